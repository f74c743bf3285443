"""What a conductor has all nodes know: one thing after the other, in the order in which it happened."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

__all__ = ("Announcements",)

Say = Callable[[str, tuple[Any, ...]], Coroutine[Any, Any, None]]


class Announcements:
    """A queue of calls of the agents' services; `say` makes one, and must not raise."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._put, self._take = anyio.create_memory_object_stream[tuple[str, tuple[Any, ...], asyncio.Future[None]]](
            math.inf
        )

    def add(self, channel: str, *what: Any) -> asyncio.Future[None]:
        """Have all agents know something, after what they were to know before; the future is done when they do."""
        known: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._put.send_nowait((channel, what, known))
        return known

    async def flow(self) -> None:
        """Make the calls, for ever."""
        async for channel, what, known in self._take:
            await self._say(channel, what)
            if not known.done():
                known.set_result(None)

    def close(self) -> None:
        """Have nothing more known."""
        self._put.close()
        self._take.close()
