"""The roles of the tests of the contract, and the ledger in which they say what they have done.

The ledger is outside of the world: what stands in it has happened, whatever became of the node where it did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import msgspec

import rolecall as rc


def now_s() -> float:
    """Return the time of the world."""
    return asyncio.get_running_loop().now_s()  # type: ignore[attr-defined, no-any-return]


class Handling(msgspec.Struct):
    """One message in a handler, in one life of the role."""

    life: int
    role: str
    channel: str
    caller: str
    n: int
    begun_s: float
    deadline_s: float
    ended_s: float | None = None
    fate: str = "running"

    @property
    def remaining_s(self) -> float:
        """What was left of the deadline when it began."""
        return self.deadline_s - self.begun_s


class Ledger:
    """What has happened, in order."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forget all of it."""
        self.lives = 0
        self.handlings: list[Handling] = []
        self.scripts: dict[str, Callable[[Any], Awaitable[None]]] = {}
        self.heard: dict[tuple[str, int], list[Any]] = {}

    def of(self, channel: str | None = None, n: int | None = None) -> list[Handling]:
        """Return the handlings of a channel, of a message."""
        wanted = [each for each in self.handlings if channel in (None, each.channel)]
        return [each for each in wanted if n in (None, each.n)]

    def begin(self, role: Called, channel: str, caller: str, n: int) -> Handling:
        """Take note that a handler has begun."""
        left_s = anyio.current_effective_deadline() - anyio.current_time()
        made = Handling(role.life, str(role.id), channel, caller, n, now_s(), now_s() + left_s)
        self.handlings.append(made)
        return made


LEDGER = Ledger()


class Note(msgspec.Struct, frozen=True):
    """An event, or a message to an inbox."""

    caller: str
    n: int
    padding: bytes = b""


class Called(rc.Role):
    """Does what it is asked to, and has it written down."""

    further: Called = rc.one()
    notes = rc.Inbox(Note, capacity=3)

    def __init__(self) -> None:
        LEDGER.lives += 1
        self.life = LEDGER.lives

    async def _work(self, channel: str, caller: str, n: int, work_s: float, linger_s: float = 0.0) -> int:
        handling = LEDGER.begin(self, channel, caller, n)
        try:
            await anyio.sleep(work_s)
            handling.fate = "done"
        except BaseException:
            handling.fate = "stopped"
            with anyio.CancelScope(shield=True):
                await anyio.sleep(linger_s)
            raise
        finally:
            handling.ended_s = now_s()
        return n

    @rc.service
    async def note(self, caller: str, n: int, work_s: float, padding: bytes = b"") -> int:
        return await self._work("note", caller, n, work_s)

    @rc.service(concurrent=True)
    async def many(self, caller: str, n: int, work_s: float, linger_s: float = 0.0) -> int:
        return await self._work("many", caller, n, work_s, linger_s)

    @rc.service
    async def linger(self, caller: str, n: int, work_s: float, linger_s: float) -> int:
        return await self._work("linger", caller, n, work_s, linger_s)

    @rc.service(idempotent=True, concurrent=True)
    async def again(self, caller: str, n: int, work_s: float) -> int:
        return await self._work("again", caller, n, work_s)

    @rc.service(concurrent=True)
    async def relay(self, caller: str, n: int, work_s: float) -> int:
        handling = LEDGER.begin(self, "relay", caller, n)
        try:
            return await self.further.many(caller, n, work_s)
        finally:
            handling.ended_s, handling.fate = now_s(), "over"

    @rc.service
    async def fail(self, caller: str, n: int) -> int:
        await self._work("fail", caller, n, 0.0)
        raise LookupError(f"there is no {n}")

    # ------------------------------------------------------------------------------------------ small mailboxes

    @rc.service(mailbox=3)
    async def waits(self, caller: str, n: int, work_s: float) -> int:
        return await self._work("waits", caller, n, work_s)

    @rc.service(mailbox_bytes=100_000)
    async def weighs(self, caller: str, n: int, work_s: float, padding: bytes) -> int:
        return await self._work("weighs", caller, n, work_s)

    @rc.service(mailbox=3, overflow="fail")
    async def fails(self, caller: str, n: int, work_s: float) -> int:
        return await self._work("fails", caller, n, work_s)

    @rc.service(mailbox=3, overflow="drop_oldest")
    async def drops(self, caller: str, n: int, work_s: float) -> int:
        return await self._work("drops", caller, n, work_s)

    @rc.service(overflow="latest")
    async def latest(self, caller: str, n: int, work_s: float) -> int:
        return await self._work("latest", caller, n, work_s)

    # ------------------------------------------------------------------------------------------ tasks and streams

    @rc.task(progress=int)
    async def train(self, caller: str, n: int, work_s: float) -> int:
        for report in range(3):
            rc.progress(report)
        return await self._work("train", caller, n, work_s)

    @rc.stream
    async def count(self, caller: str, n: int, items: int) -> AsyncIterator[int]:
        handling = LEDGER.begin(self, "count", caller, n)
        try:
            for item in range(items):
                yield item
            handling.fate = "done"
        except BaseException:
            handling.fate = "stopped"
            raise
        finally:
            handling.ended_s = now_s()


class Caller(rc.Role):
    """Runs the script that the test has for it."""

    called: Called = rc.one()
    group: rc.Group[Called] = rc.many()
    peers: rc.Group[Caller] = rc.many()
    told = rc.Topic(Note)

    async def main(self) -> None:
        script = LEDGER.scripts.get(str(self.id))
        if script is not None:
            await script(self)


class Reader(rc.Role):
    """Hears what the callers tell; one life after another."""

    callers: rc.Group[Caller] = rc.many()

    def __init__(self) -> None:
        LEDGER.lives += 1
        self.life = LEDGER.lives

    @callers.on(Caller.told, capacity=4)
    async def hear(self, source: rc.RoleId, note: Note) -> None:
        LEDGER.heard.setdefault((str(self.id), self.life), []).append((str(source), note.n))
        await anyio.sleep(0.002)
