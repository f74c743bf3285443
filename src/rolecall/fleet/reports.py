"""What a node reports to its conductor, and how it gets there: in order, bounded, in batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

import msgspec

from rolecall.core.ids import RoleId
from rolecall.core.records import Audited, DeadLetter, LogLine, Metric, StatusChange

__all__ = ("Logged", "Outgoing", "Report", "Reported", "RoleEnded", "RoleFailed")

WAITING_RECORDS = 100_000
BATCH_RECORDS = 1_000


class RoleEnded(msgspec.Struct, frozen=True, tag="ended"):
    """A role has ended."""

    role: RoleId
    why: str


class RoleFailed(msgspec.Struct, frozen=True, tag="failed"):
    """The main routine of a role that was assigned has failed; `policy` is what its specification says of failures."""

    role: RoleId
    policy: str | None
    kind: str
    message: str


class Logged(msgspec.Struct, frozen=True, tag="logged"):
    """What was logged in the process of the node by Python's own logging, with the name of the logger."""

    logger: str
    level: int
    text: str


Reported: TypeAlias = Metric | StatusChange | DeadLetter | LogLine | Audited | RoleEnded | RoleFailed | Logged


class Report(msgspec.Struct, frozen=True):
    """What has happened on a node since the last report, in order."""

    records: list[Reported]


class Outgoing:
    """Records that wait to be reported; of too many the newest are dropped, and counted."""

    def __init__(self, limit: int = WAITING_RECORDS) -> None:
        self._limit = limit
        self._waiting: deque[Reported] = deque()
        self._dropped = 0
        self._sent = 0
        self._news = asyncio.Event()
        self._none = asyncio.Event()
        self._none.set()

    def add(self, record: Reported) -> None:
        """Have a record sent after those before it."""
        if len(self._waiting) >= self._limit:
            self._dropped += 1
            return
        self._waiting.append(record)
        self._none.clear()
        self._news.set()

    async def flow(self, send: Callable[[list[Reported]], Coroutine[Any, Any, int]]) -> None:
        """Send what there is, a batch at a time, for ever; `send` returns how many it could send."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), BATCH_RECORDS))]
                self._sent += await send(batch)
            self._none.set()

    async def all_sent(self) -> int:
        """Wait until nothing waits; return how many records have been sent."""
        await self._none.wait()
        return self._sent

    async def count_anew(self) -> None:
        """Count from what is added next, once nothing waits: for somebody who has not heard what was before."""
        await self._none.wait()
        self._sent = 0

    def take_dropped(self) -> int:
        """Return how many records have been dropped since it was asked last."""
        dropped, self._dropped = self._dropped, 0
        return dropped
