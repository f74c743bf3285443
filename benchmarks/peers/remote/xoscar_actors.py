"""The actors of xoscar's processes, which import them from here."""

from __future__ import annotations

import asyncio
from typing import Any

import xoscar as xo


class Worker(xo.Actor):
    """Answers with what it was given, or how much it was."""

    async def echo(self, value: Any) -> Any:
        """Return the value."""
        return value

    async def weigh(self, value: Any) -> int:
        """Return how many bytes came."""
        size: int = value.nbytes
        return size


class Subscriber(xo.StatelessActor):
    """Counts what it is told; stateless means to xoscar that its calls do not wait for each other."""

    def __init__(self) -> None:
        self._count, self._news = 0, asyncio.Event()

    async def on_ticked(self, value: Any) -> None:
        """Count one."""
        self._count += 1
        self._news.set()

    async def count_to(self, expected: int) -> None:
        """Return when so many have come since the last time."""
        while self._count < expected:
            self._news.clear()
            await self._news.wait()
        self._count = 0
