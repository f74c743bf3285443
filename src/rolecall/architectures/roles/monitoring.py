"""A monitor of all that train: what they report, and who has come to a standstill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import anyio
import msgspec

import rolecall as rc
from rolecall.architectures.roles.learners import Pulse, TrainingReport, Worker
from rolecall.core.errors import ConfigError

__all__ = ("Monitor", "Stalled")


class Stalled(msgspec.Struct, frozen=True):
    """A role that answers, but whose work has gone on for too long: since when, and after how many pieces."""

    role: rc.RoleId
    working_s: float
    done: int


class Monitor(rc.Role):
    """Collects the reports of all trainers, and says whose heartbeat lives while its work stands still.

    Every `every_s` it asks each for its pulse. One that answers and has been at one piece of work for more than
    `stall_s` is told once, as the event and the metric `stalled`; one that does not answer
    within `answer_s` as the metric `silent`.
    The role must be named `monitor`.
    """

    trainers: rc.Group[Worker] = rc.many()
    me: Monitor = rc.one("monitor")
    stalled = rc.Topic(Stalled)

    def __init__(self, every_s: float = 1.0, stall_s: float = 30.0, answer_s: float = 3.0) -> None:
        if min(every_s, stall_s, answer_s) <= 0:
            found = f"every_s={every_s}, stall_s={stall_s}, answer_s={answer_s}"
            raise ConfigError("Monitor", found, hint="All must be positive")
        self.every_s, self.stall_s, self.answer_s = every_s, stall_s, answer_s
        self.latest: dict[rc.RoleId, TrainingReport] = {}
        self._told: set[tuple[rc.RoleId, str]] = set()

    async def setup(self) -> None:
        self._watching = await self.me.watch.start()  # no main routine: the application's end must not wait for it

    @trainers.on(Worker.trained, overflow="latest")
    async def seen(self, source: rc.RoleId, report: TrainingReport) -> None:
        """Keep the newest report of each trainer."""
        self.latest[source] = report
        self._told.discard((source, "stalled"))

    @rc.service
    async def reports(self) -> dict[rc.RoleId, TrainingReport]:
        """Return the newest report of each trainer."""
        return dict(self.latest)

    @rc.task
    async def watch(self) -> None:
        """Ask for pulses until the role ends."""
        while True:
            await anyio.sleep(self.every_s)
            await self.look()

    async def look(self) -> None:
        """Ask every trainer for its pulse, and tell who stands still and who is silent."""
        pulses, missing = await self._pulses()
        for role, pulse in pulses.items():
            self._told.discard((role, "silent"))
            if pulse.working_s is not None and pulse.working_s > self.stall_s and self._is_news(role, "stalled"):
                await self.stalled.emit(Stalled(role, pulse.working_s, pulse.done))
        for role in missing:
            self._is_news(role, "silent")

    async def _pulses(self) -> tuple[Mapping[rc.RoleId, Pulse], Iterable[rc.RoleId]]:
        """Return the pulses of those that answer in time, and who does not."""
        try:
            replies = await self.trainers.within(deadline_s=self.answer_s).call(Worker.pulse)
        except rc.QuorumMissed as error:  # nobody
            return {}, list(error.failures)
        return replies, list(replies.failures)

    def _is_news(self, role: rc.RoleId, what: str) -> bool:
        """Log a finding that has not been told yet; return whether it is one."""
        if (role, what) in self._told:
            return False
        self._told.add((role, what))
        self.log(**{what: role})
        return True
