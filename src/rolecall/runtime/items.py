"""The items of a stream on their way from its writer to its reader."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ("Items",)

M = TypeVar("M")


class Items(Generic[M]):
    """The items of a stream between its writer and its reader, at most `window` of them."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.waiting: deque[M] = deque()
        self.closed = False
        self.on_read: Callable[[], None] | None = None
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

    def arrived(self, item: M) -> None:
        """Add an item that came from another node, whose writer keeps to the window."""
        self.waiting.append(item)
        _resolve(self._news)

    async def write(self, item: M) -> None:
        """Add an item, waiting while the reader is a window behind."""
        while len(self.waiting) >= self.window:
            self._room = asyncio.get_running_loop().create_future()
            await self._room
        self.waiting.append(item)
        _resolve(self._news)

    async def read(self) -> M:
        """Return the next item; raise `StopAsyncIteration` after the last."""
        while not self.waiting:
            if self.closed:
                raise StopAsyncIteration
            self._news = asyncio.get_running_loop().create_future()
            await self._news
        item = self.waiting.popleft()
        _resolve(self._room)
        if self.on_read is not None:
            self.on_read()
        return item

    def close(self) -> None:
        """Say that no more will come."""
        self.closed = True
        _resolve(self._news)


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
