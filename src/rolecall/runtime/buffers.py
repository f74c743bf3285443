"""What waits to be taken: the messages of an inbox, the events of a subscription, the items of a stream."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Iterable
from typing import Any, Generic, TypeVar

from rolecall.core.ids import RoleId
from rolecall.core.policies import Overflow

__all__ = ("Buffer", "Items")

M = TypeVar("M")


class _Taker:
    __slots__ = ("future", "key", "source")

    def __init__(self, key: Hashable, source: RoleId | None, future: asyncio.Future[Any]) -> None:
        self.key, self.source, self.future = key, source, future

    def wants(self, source: RoleId, key: Hashable) -> bool:
        return (self.key is None or self.key == key) and (self.source is None or self.source == source)


class Buffer(Generic[M]):
    """A bounded queue with selective taking. All logic is synchronous; only waiting is not."""

    def __init__(
        self, capacity: int, overflow: Overflow = "wait", key: Callable[[M], Hashable] | None = None
    ) -> None:
        self.capacity, self.overflow, self._key = capacity, overflow, key
        self.items: deque[tuple[RoleId, Hashable, M]] = deque()
        self.parked: deque[tuple[asyncio.Future[None], RoleId, Hashable, M]] = deque()
        self._takers: list[_Taker] = []

    def __len__(self) -> int:
        return len(self.items)

    def offer(self, source: RoleId, item: M) -> asyncio.Future[None] | None:
        """Hand over an item; return what to wait for when the buffer is full and its senders wait."""
        key = self._key(item) if self._key is not None else None
        for taker in self._takers:
            if taker.wants(source, key) and not taker.future.done():
                taker.future.set_result((source, item))
                return None
        if len(self.items) < self.capacity and not self.parked:
            self.items.append((source, key, item))
            return None
        return self._overflow(source, key, item)

    async def take(self, key: Hashable = None, source: RoleId | None = None) -> tuple[RoleId, M]:
        """Return the oldest item with this key and source, waiting for it."""
        found = self.take_nowait(key, source)
        if found is not None:
            return found
        taker = _Taker(key, source, asyncio.get_running_loop().create_future())
        self._takers.append(taker)
        try:
            taken: tuple[RoleId, M] = await taker.future
            return taken
        except asyncio.CancelledError:
            if taker.future.done() and not taker.future.cancelled() and taker.future.exception() is None:
                self._restore(*taker.future.result())
            raise
        finally:
            self._takers.remove(taker)

    def take_nowait(self, key: Hashable = None, source: RoleId | None = None) -> tuple[RoleId, M] | None:
        """Return the oldest fitting item, or None."""
        wanted = _Taker(key, source, None)  # type: ignore[arg-type]
        for position, (sender, item_key, item) in enumerate(self.items):
            if wanted.wants(sender, item_key):
                del self.items[position]
                self._unpark()
                return sender, item
        return None

    async def collect(self, sources: Iterable[RoleId], key: Hashable = None) -> dict[RoleId, M]:
        """Return one item of each source, in the order of `sources`."""
        return {source: (await self.take(key, source))[1] for source in list(sources)}

    def drain(self) -> list[tuple[RoleId, M]]:
        """Return and remove all there is, parked items included."""
        drained = [(source, item) for source, _, item in self.items]
        self.items.clear()
        self._unpark()
        return drained

    def lose(self, source: RoleId, error: Exception) -> None:
        """Fail those who wait for an item of a source that is gone."""
        for taker in self._takers:
            if taker.source == source and not taker.future.done():
                taker.future.set_exception(error)

    def close(self, error: Exception) -> None:
        """Fail the senders that wait."""
        for admission, *_ in self.parked:
            if not admission.done():
                admission.set_exception(error)
        self.parked.clear()

    def _overflow(self, source: RoleId, key: Hashable, item: M) -> asyncio.Future[None] | None:
        if self.overflow == "wait":
            admission: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.parked.append((admission, source, key, item))
            return admission
        if self.overflow == "latest":
            self.items.clear()
        else:
            self.items.popleft()
        self.items.append((source, key, item))
        return None

    def _unpark(self) -> None:
        while self.parked and len(self.items) < self.capacity:
            admission, source, key, item = self.parked.popleft()
            if admission.done():  # the sender gave up
                continue
            self.items.append((source, key, item))
            admission.set_result(None)

    def _restore(self, source: RoleId, item: M) -> None:
        key = self._key(item) if self._key is not None else None
        self.items.appendleft((source, key, item))


class Items(Generic[M]):
    """The items of a stream between its writer and its reader, at most `window` of them."""

    def __init__(self, window: int) -> None:
        self.window = window
        self.waiting: deque[M] = deque()
        self.closed = False
        self._news: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None

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
        return item

    def close(self) -> None:
        """Say that no more will come."""
        self.closed = True
        _resolve(self._news)


def _resolve(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
