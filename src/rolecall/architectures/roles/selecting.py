"""Client selectors: who trains in a round."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import AsyncExitStack
from functools import partial

import anyio

import rolecall as rc
from rolecall.architectures.roles.learners import TrainingReport, Worker
from rolecall.core.errors import ConfigError
from rolecall.learn import Dataset, Model

__all__ = (
    "ClientSelector",
    "CyclicSelector",
    "FastestSelector",
    "LossSelector",
    "RandomSelector",
    "TrainingTimeProber",
    "round_half_up",
)


class ClientSelector(rc.Role):
    """Chooses who trains in a round."""

    @rc.service
    @abstractmethod
    async def select(self, round: int, clients: list[rc.RoleId]) -> list[rc.RoleId]: ...


class _ShareSelector(ClientSelector):
    """Chooses a share of the clients, at least one."""

    def __init__(self, fraction: float = 1.0) -> None:
        if not 0 < fraction <= 1:
            raise ConfigError(type(self).__name__, f"fraction is {fraction}", hint="It is above 0 and at most 1")
        self.fraction = fraction

    def count(self, clients: list[rc.RoleId]) -> int:
        return max(1, round_half_up(self.fraction * len(clients)))


class RandomSelector(_ShareSelector):
    """Chooses a share of the clients at random, at least one."""

    @rc.service
    async def select(self, round: int, clients: list[rc.RoleId]) -> list[rc.RoleId]:
        chosen = self.rng("select", round).choice(len(clients), self.count(clients), replace=False)
        return [clients[i] for i in sorted(chosen)]


class CyclicSelector(_ShareSelector):
    """Chooses a share of the clients in turn, so that all train equally often."""

    @rc.service
    async def select(self, round: int, clients: list[rc.RoleId]) -> list[rc.RoleId]:
        count = self.count(clients)
        first = (round - 1) * count
        return [clients[(first + i) % len(clients)] for i in range(count)]


class LossSelector(_ShareSelector):
    """Chooses the share of the clients whose training loss was highest when they last trained.

    Those that have not trained yet come first (Power-of-Choice with the losses that are known anyway, Cho et al.
    2020). It reads the losses from the topic `trained` of its relationship `trainers`.
    """

    trainers: rc.Group[Worker] = rc.many()

    async def setup(self) -> None:
        self._losses: dict[rc.RoleId, float] = {}
        self._stack = AsyncExitStack()
        self._events: rc.Subscription[TrainingReport] | None = None

    async def teardown(self) -> None:
        await self._stack.aclose()

    @rc.service
    async def select(self, round: int, clients: list[rc.RoleId]) -> list[rc.RoleId]:
        await self._read()
        order = sorted(range(len(clients)), key=lambda at: (-self._losses.get(clients[at], float("inf")), at))
        return [clients[at] for at in sorted(order[: self.count(clients)])]

    async def _read(self) -> None:
        if self._events is None:  # not in `setup`, which does not wait for the trainers'
            self._events = self.trainers.subscribe(Worker.trained, overflow="latest")
            await self._stack.enter_async_context(self._events)
        for source, report in self._events.drain():
            self._losses[source] = report.loss


class TrainingTimeProber(rc.Extension):
    """Extends a trainer: measures how long an epoch over its data takes."""

    model: Model = rc.element()
    data: Dataset = rc.element()

    @rc.task
    async def probe(self) -> float:
        """Train for one epoch, to no effect, and return the seconds it took on the role's clock."""
        began_s = anyio.current_time()
        fit = partial(self.model.fit, epochs=1, seed=self.seed("probe"))
        await self.compute(fit, self.model.parameters(), self.data, cost=len(self.data))
        return anyio.current_time() - began_s


class FastestSelector(_ShareSelector):
    """Chooses the share of the clients that were fastest when they were probed, before the first round."""

    probers: rc.Group[TrainingTimeProber] = rc.many("trainers")

    async def setup(self) -> None:
        self.seconds: dict[rc.RoleId, float] = {}

    @rc.service
    async def select(self, round: int, clients: list[rc.RoleId]) -> list[rc.RoleId]:
        new = [client for client in clients if client not in self.seconds]
        if new:
            replies = await self.probers.only(new).within(quorum=1).call(TrainingTimeProber.probe)
            self.seconds.update({client: replies.get(client, float("inf")) for client in new})
        order = sorted(range(len(clients)), key=lambda at: (self.seconds[clients[at]], at))
        return [clients[at] for at in sorted(order[: self.count(clients)])]


def round_half_up(value: float) -> int:
    """Return the nearest whole number, halves up (Python rounds them to even)."""
    return int(value + 0.5)
