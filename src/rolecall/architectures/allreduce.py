"""All-reduce: workers without a server that hold the same sum in the end; the way there is a subclass's.

`AllReduceAggregator` is the member of a node, `StepCoordinator` has all workers make step after step of synchronous
SGD, `x <- x - lr * (1/n) sum_i g_i(x)`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import anyio
import msgspec
import numpy.typing as npt

import rolecall as rc
from rolecall.architectures.peer import Common, Replica, peers_app
from rolecall.architectures.workloads import AnyModel
from rolecall.core.errors import WrongType
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset

__all__ = ("AllReduceAggregator", "AllReduceWorker", "Part", "StepCoordinator", "allreduce_app")

Vector = npt.NDArray[Any]


class Part(msgspec.Struct, frozen=True):
    """A part of a sum on its way: of which step, after how many hops, and how long the whole vector is."""

    step: int
    hop: int
    of: int
    data: Vector


class AllReduceAggregator(rc.Role):
    """Sums vectors with the other members, so that all end with the same bits.

    The members are those there are at the first sum; who joins later has no part in it. When one of them is lost,
    `reduce` fails at every other with `RoleLost`, which names it.
    """

    members: rc.Group[AllReduceAggregator] = rc.many()
    parts = rc.Inbox(Part, key=lambda part: (part.step, part.hop))

    async def setup(self) -> None:
        self.all: rc.Group[AllReduceAggregator] | None = None
        self.lost: rc.RoleId | None = None
        self.reducing = anyio.CancelScope()

    @rc.service
    async def reduce(self, mine: Tensors, step: int) -> Tensors:
        """Return the mean of what all members give for a step, summed in the dtype it has."""
        self.all = self.all or self.members
        with anyio.CancelScope() as self.reducing:
            if self.lost is None:
                return mine.like(await self.total(mine.flat, step) / len(self.all))
        raise rc.RoleLost(str(self.lost), f"{self.id} cannot go on with step {step} without it", "unknown")

    @abstractmethod
    async def total(self, vector: Vector, step: int) -> Vector:
        """Return the sum of the vectors of all members."""

    @members.on_leave
    async def gone(self, who: rc.RoleId) -> None:
        if self.all and who in self.all:
            self.lost = self.lost or who
            self.reducing.cancel()

    @property
    def ring(self) -> rc.Group[AllReduceAggregator]:
        """The members whose vectors are summed, in the order that all of them see."""
        return self.all or self.members

    @property
    def rank(self) -> int:
        """This member's place in that order."""
        return self.ring.rank(self.id)

    async def send(self, rank: int, step: int, hop: int, data: Vector, of: Vector) -> None:
        """Send a part of a sum to the member of this rank; `of` is the whole vector."""
        await self.ring.at(rank).parts.put(Part(step, hop, of.size, data))

    async def receive(self, rank: int, step: int, hop: int, of: Vector) -> Vector:
        """Wait for the part that the member of this rank sends; raise `WrongType` when its vector differs in length."""
        source = self.ring.ids[rank % len(self.ring)]
        part = await self.parts.take((step, hop), source=source)
        if part.of != of.size:
            raise WrongType(f"all-reduce of step {step}: what {source} gives", f"{of.size:,} values", f"{part.of:,}")
        return part.data


class AllReduceWorker(Replica):
    """Holds a replica of the model, the same bits as all others, and makes a step with all of them when told to."""

    aggregator: AllReduceAggregator = rc.one()

    @rc.task
    async def step(self, round: int) -> None:
        gradient = await self.gradient(self.params, round)
        await self.finish_round(self.params - self.lr * await self.aggregator.reduce(gradient, round))


class CoordinatorState(msgspec.Struct):
    """The steps done."""

    round: int = 0


class StepCoordinator(rc.Role):
    """Has all workers make step after step; no data of theirs goes through it."""

    workers: rc.Group[AllReduceWorker] = rc.many()
    state = rc.State(CoordinatorState)

    def __init__(self, rounds: int = 100) -> None:
        self.rounds = rounds

    @rc.task(resumable=True)
    async def run(self) -> None:
        workers = self.workers
        while self.state.round < self.rounds:
            await self.safe_point()
            await workers.call(AllReduceWorker.step, self.state.round)
            self.state.round += 1


def allreduce_app(
    name: str,
    aggregator: type[AllReduceAggregator],
    model: AnyModel,
    data: str | Dataset | Sequence[Dataset],
    common: Common,
) -> rc.App:
    """Build an application whose workers sum by this kind of all-reduce; for the builders of each kind."""
    defaults: Common = {"rounds": 60, "lr": 0.5}
    app = peers_app(
        name,
        AllReduceWorker,
        model,
        data,
        {**defaults, **common},
        beside={"aggregator": rc.RoleSpec(aggregator)},
        related={"aggregator": {"members": "node*/aggregator"}},
    )
    coordinator = rc.RoleSpec(StepCoordinator, {"rounds": app.parameters["rounds"]})
    return msgspec.structs.replace(
        app,
        roles={**app.roles, "node1": {**app.roles["node1"], "coordinator": coordinator}},
        relationships={**app.relationships, "node1/coordinator": {"workers": "node*/worker"}},
        start="node1/coordinator.run",
    )
