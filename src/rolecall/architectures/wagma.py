"""WAGMA-SGD, wait-avoiding group model averaging (Li, Ben-Nun, Nadiradze and others 2020).

After each step a worker averages its model with those of a group of workers, another group in each step, without
waiting for the slow among them: the first of a group to be ready has the models of the group summed as they are, and
those that are not ready count with what they had after the step before. All `tau` steps everybody averages with
everybody, and waits for that.

With `w'` the model after the step and S the members of the group, a worker whose `w'` is in the sum goes on with
`sum / S`, one that comes too late with `(sum + w') / (S + 1)`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import anyio
import msgspec

import rolecall as rc
from rolecall.architectures.allreduce import AllReduceAggregator
from rolecall.architectures.butterfly_allreduce import ButterflyAllReduce
from rolecall.architectures.peer import Common, Peer, alike, peers_app
from rolecall.architectures.settings import at_least_one
from rolecall.architectures.workloads import AnyModel
from rolecall.core.errors import ConfigError
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset

__all__ = ("Contribution", "GroupAggregator", "GroupSum", "WAGMAWorker", "app", "group_of")


class Contribution(msgspec.Struct, frozen=True):
    """A worker's model after one of its steps, from 0; -1 is before the first."""

    params: Tensors
    step: int


class GroupSum(msgspec.Struct, frozen=True):
    """The sum of a group's models, and after which of its steps each member's was."""

    params: Tensors
    steps: dict[rc.RoleId, int]


class GroupAggregator(rc.Role):
    """Keeps a worker's last model, and sums the last models of a group; the first of each group does that for it."""

    members: rc.Group[GroupAggregator] = rc.many()

    def __init__(self, size: int = 4) -> None:
        if size < 2 or size & (size - 1):
            raise ConfigError("GroupAggregator", f"size is {size}", hint="Give a power of two, at least 2")
        self.size = size

    async def setup(self) -> None:
        self.last: Contribution | None = None
        self.all: rc.Group[GroupAggregator] | None = None
        self.sums = dict[int, GroupSum]()
        self.fetched = dict[int, int]()
        self.summing = anyio.Lock()

    @rc.service
    async def offer(self, mine: Contribution) -> None:
        """Make this the worker's last model."""
        self.last = mine

    @rc.service
    async def average(self, step: int) -> GroupSum:
        """Return the sum of the worker's group in a step; nobody is waited for."""
        members = self.all = self.all or self.members
        ranks = group_of(members.rank(self.id), step, self.size, len(members))
        return await members.at(ranks[0]).total(step, [members.ids[rank] for rank in ranks])

    @rc.service(concurrent=True, allow="members")
    async def total(self, step: int, group: list[rc.RoleId]) -> GroupSum:
        """Return the sum of a group in a step, made when the first of its members asks."""
        async with self.summing:
            if step not in self.sums:
                self.sums[step] = await self.summed(group)
                self.fetched[step] = 0
        self.fetched[step] += 1
        if self.fetched[step] < len(group):
            return self.sums[step]
        del self.fetched[step]
        return self.sums.pop(step)

    async def summed(self, group: list[rc.RoleId]) -> GroupSum:
        given = await self.members.only(group).call(GroupAggregator.contribute)
        mine = given[self.id].params
        total = sum((alike(one.params, mine, who) for who, one in given.items()), start=mine * 0)
        return GroupSum(total, {who: one.step for who, one in given.items()})

    @rc.service(concurrent=True, allow="members")
    async def contribute(self) -> Contribution:
        """Return the worker's last model, whatever step it is after."""
        if self.last is None:
            raise rc.LifecycleError(f"{self.id} has no model yet. Call `offer` with one first.")
        return self.last


class WAGMAWorker(Peer):
    """Makes a step, then averages with its group as it is, or, all `tau` steps, with everybody."""

    group: GroupAggregator = rc.one()
    aggregator: AllReduceAggregator = rc.one()

    def __init__(
        self,
        rounds: int = 100,
        local_steps: int = 1,
        batch_size: int = 32,
        lr: float = 0.1,
        test_every: int = 10,
        tau: int = 10,
    ) -> None:
        super().__init__(rounds, local_steps, batch_size, lr, test_every)
        at_least_one("WAGMAWorker", tau=tau)
        self.tau = tau

    async def setup(self) -> None:
        await self.group.offer(Contribution(self.params, self.state.round - 1))

    async def one_round(self, params: Tensors, round: int) -> Tensors:
        trained = await self.descend(params, round)
        await self.group.offer(Contribution(trained, round))
        if (round + 1) % self.tau == 0:
            return await self.aggregator.reduce(trained, round)
        return self.merge(trained, await self.group.average(round), round)

    def merge(self, trained: Tensors, total: GroupSum, round: int) -> Tensors:
        """Return the mean of the group, of which the worker's model is already a part or comes late."""
        if total.steps[self.group.id] == round:
            return total.params / len(total.steps)
        return (total.params + trained) / (len(total.steps) + 1)


def group_of(rank: int, step: int, size: int, count: int) -> list[int]:
    """Return the ranks of a member's group in a step: those that differ in some bits alone, other bits in each step.

    Which bits goes round: `log2(size)` of them, from `step * log2(size)` on. With a `count` that is no power of two
    some groups are smaller.
    """
    bits, width = max(1, (count - 1).bit_length()), size.bit_length() - 1
    free = sum({1 << (step * width + bit) % bits for bit in range(width)})
    return [other for other in range(count) if other & ~free == rank & ~free]


def app(
    model: AnyModel,
    data: str | Dataset | Sequence[Dataset],
    *,
    size: int = 4,
    tau: int = 10,
    **common: Unpack[Common],
) -> rc.App:
    """Build an application for `rc.run` from a model and data.

    Args:
        model: as for `fedavg.app`; it must give gradients (`rolecall.learn.Differentiable`).
        data: a data set for each node; or one, or the name of one.
        size: the members of a group, a power of two (published: about the square root of the number of nodes).
        tau: everybody averages with everybody all so many steps.
        common: see `rolecall.architectures.peer.Common`.
    """
    return peers_app(
        "wagma",
        WAGMAWorker,
        model,
        data,
        {"rounds": 150, "lr": 0.3, **common},
        options={"tau": tau},
        beside={"group": rc.RoleSpec(GroupAggregator, {"size": size}), "aggregator": rc.RoleSpec(ButterflyAllReduce)},
        related={"group": {"members": "node*/group"}, "aggregator": {"members": "node*/aggregator"}},
    )
