"""AD-PSGD, asynchronous decentralised parallel SGD (Lian et al. 2018, algorithm 1).

Every worker computes a gradient at its model, and meanwhile averages its model with that of one neighbour, both at
once; the gradient is then applied to whatever the model has become. Whoever is in the middle of an averaging refuses
another, so that nobody ever waits for one who waits, on any graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Unpack

import anyio
import msgspec

import rolecall as rc
from rolecall.architectures.peer import Common, Replica, alike, neighbours, peers_app
from rolecall.architectures.workloads import AnyModel
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset

__all__ = ("ADPSGDWorker", "ExchangeAggregator", "ExchangeState", "app")

Mode = Literal["both", "active", "passive"]


class ExchangeState(msgspec.Struct):
    """A node's model; how many averagings with neighbours it has begun, and how many of them came about."""

    params: Tensors | None = None
    asked: int = 0
    averaged: int = 0


class ExchangeAggregator(rc.Role):
    """Holds a node's model, and averages it with that of one neighbour at a time.

    The active side asks, the passive side answers; `mode` says which of them this one is, or `both`. It refuses while
    it averages itself, and is refused by others who do; then it asks another, `tries` times in all, after a pause drawn
    at random, so that those who began together do not meet in the same way again. A neighbour that is gone, or that
    does not answer within `patience_s`, is done without.
    """

    neighbours: rc.Group[ExchangeAggregator] = rc.many()
    state = rc.State(ExchangeState)

    def __init__(self, mode: Mode = "both", tries: int = 4, patience_s: float = 5.0) -> None:
        self.mode, self.tries, self.patience_s, self.averaging = mode, tries, patience_s, False

    @rc.service
    async def start(self, params: Tensors) -> None:
        if self.state.params is None:
            self.state.params = params

    @rc.service
    async def value(self) -> Tensors:
        return self.params

    @rc.service
    async def add(self, change: Tensors) -> Tensors:
        self.state.params = self.params + change
        return self.state.params

    @rc.service(concurrent=True, allow="neighbours")
    async def exchange(self, theirs: Tensors) -> Tensors:
        if self.averaging or self.mode == "active" or self.state.params is None:
            raise rc.Refused("averaging with another" if self.averaging else f"not answering: {self.mode}")
        mine = self.params
        self.merge(rc.caller(), theirs)
        return mine

    @rc.task
    async def average(self) -> bool:
        """Average with a neighbour that is free; return whether there was one."""
        for attempt in range(self.tries if self.neighbours.others and self.mode != "passive" else 0):
            self.state.asked += 1
            began_s = anyio.current_time()
            if await self.averaged_with(self.neighbours.choice(self.state.asked)):
                self.state.averaged += 1
                return True
            longest_s = (attempt + 1) * (anyio.current_time() - began_s)
            await anyio.sleep(longest_s * self.rng("pause", self.state.asked).uniform(0, 2))
        return False

    async def averaged_with(self, neighbour: ExchangeAggregator) -> bool:
        self.averaging = True
        try:
            with rc.deadline(self.patience_s):
                theirs = await neighbour.exchange(self.params)
        except rc.Refused:
            return False
        except (rc.RoleLost, rc.DeadlineExceeded) as error:
            self.logger.warning("goes on without a neighbour: %s", error)
            return False
        finally:
            self.averaging = False
        self.merge(neighbour.id, theirs)
        return True

    def merge(self, other: rc.RoleId, theirs: Tensors) -> None:
        """Take the mean of the node's model and another's, which does the same: both hold the same bits then."""
        self.state.params = (self.params + alike(theirs, self.params, other)) / 2

    @property
    def params(self) -> Tensors:
        """The node's model; there is one once its worker has begun."""
        if self.state.params is None:
            raise rc.LifecycleError(f"{self.id} has no model yet. Call `start` with one first.")
        return self.state.params


class ADPSGDWorker(Replica):
    """Computes gradients while its aggregator, which holds the model, averages; they count when both have ended.

    After the last one it averages once more, so that what it holds in the end is more than its own last step.
    """

    aggregator: ExchangeAggregator = rc.one()

    async def main(self) -> None:
        await self.aggregator.start(self.model.parameters())
        while self.state.round < self.rounds:
            await self.safe_point()
            params = await self.aggregator.value()
            averaging = await self.aggregator.average.start()
            gradient = await self.gradient(params, self.state.round)
            await averaging
            self.state.round += 1
            await self.tell(self.state.round, await self.aggregator.add(gradient * -self.lr))
        await self.aggregator.average()


def app(
    model: AnyModel,
    data: str | Dataset | Sequence[Dataset],
    *,
    topology: str = "regular(4)",
    bipartite: bool = False,
    tries: int = 4,
    **common: Unpack[Common],
) -> rc.App:
    """Build an application for `rc.run` from a model and data.

    Args:
        model: as for `fedavg.app`; it must give gradients (`rolecall.learn.Differentiable`).
        data: a data set for each node; or one, or the name of one.
        topology: the graph of the nodes; see `rolecall.core.topologies`. In a `complete` one, who joins later is in.
        bipartite: every other node asks, those between only answer, as published; the graph should join the two.
        tries: how many neighbours are asked, one after the other, when some refuse.
        common: see `rolecall.architectures.peer.Common`. A round is one step of each node; `local_steps` is not used.
    """
    mode = {"mode": {"$cycle": ["active", "passive"]}} if bipartite else {}
    return peers_app(
        "adpsgd",
        ADPSGDWorker,
        model,
        data,
        {"rounds": 200, "lr": 0.3, **common},
        beside={"aggregator": rc.RoleSpec(ExchangeAggregator, {"tries": tries, **mode})},
        related={"aggregator": {"neighbours": neighbours(topology, "node*/aggregator")}},
    )
