"""Something that happens once, and can be waited for; it takes no memory to speak of until somebody does."""

from __future__ import annotations

import asyncio

import anyio.lowlevel

__all__ = ("Signal",)


class Signal:
    """What `anyio.Event` is, on the event loop of this process and in a tenth of the memory."""

    __slots__ = ("_is_set", "_waiting")

    def __init__(self) -> None:
        self._is_set = False
        self._waiting: list[asyncio.Future[None]] | None = None

    def is_set(self) -> bool:
        """Return whether it has happened."""
        return self._is_set

    def set(self) -> None:
        """Have it happen, and let go who waits."""
        self._is_set = True
        waiting, self._waiting = self._waiting, None
        for future in waiting or ():
            if not future.done():
                future.set_result(None)

    async def wait(self) -> None:
        """Return when it has happened, at once but not without a chance for others if it has already."""
        if self._is_set:
            await anyio.lowlevel.checkpoint()
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiting is None:
            self._waiting = []
        self._waiting.append(future)
        try:
            await future
        except asyncio.CancelledError:
            if self._waiting is not None:
                self._waiting.remove(future)
            raise
