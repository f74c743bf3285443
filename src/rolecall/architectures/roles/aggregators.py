"""Aggregators: of all at once, of a layer of a tree, of each as it comes, and of gradients."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

import rolecall as rc
from rolecall.architectures.roles.learners import Learner
from rolecall.architectures.settings import at_least_one
from rolecall.core.tensors import Tensors
from rolecall.learn import (
    Gradient,
    OptimizerState,
    Parametric,
    Rule,
    ServerOptimizer,
    Update,
    WeightedMean,
    discount,
    mean_gradient,
    screened,
)
from rolecall.learn.screening import BadUpdate, OnBad, fault

__all__ = (
    "CollectiveAggregator",
    "CumulativeAggregator",
    "CumulativeState",
    "GradientAggregator",
    "LayeredCollectiveAggregator",
    "Merging",
    "MergingState",
    "Versioned",
)


class MergingState(msgspec.Struct):
    """What an aggregator remembers: its server optimizer's state."""

    optimizer: OptimizerState = OptimizerState()


class Merging(rc.Role):
    """What aggregators of updates share: look at them, merge them by a rule, make a server optimizer's step.

    An update that cannot be averaged (another shape, NaN) raises `BadUpdate`; with `bad` "drop" it is left out,
    which the metric `left_out` and a warning tell.
    """

    rule: Rule = rc.element(default=WeightedMean)
    optimizer: ServerOptimizer | None = rc.element(optional=True)
    state = rc.State(MergingState)
    bad: OnBad = "fail"

    async def merged(self, updates: Mapping[rc.RoleId, Update], params: Tensors) -> Tensors:
        """Return the model that comes of the updates of a round which began with `params`."""
        good = await self.compute(screened, updates, params, self.bad)
        for role in updates:
            if role not in good:
                self.log(left_out=role)
                self.logger.warning("The update of %s is left out: %s", role, fault(updates[role], params))
        mean = await self.compute(self.rule, list(good.values()))
        if self.optimizer is None:
            return mean
        params, self.state.optimizer = self.optimizer.step(params, mean, self.state.optimizer)
        return params


class CollectiveAggregator(Merging):
    """Makes one model of the updates of many; those who sent them are not told."""

    def __init__(self, bad: OnBad = "fail") -> None:
        self.bad = bad

    @rc.service
    async def aggregate(self, updates: dict[rc.RoleId, Update], params: Tensors) -> Tensors:
        """Merge the updates of a round that began with `params`, in the order of `updates`."""
        return await self.merged(updates, params)


class LayeredCollectiveAggregator(Merging, Learner):
    """A node of a tree: makes one update of its children's, and is a learner like them to the node above it.

    Args:
        steps: rounds of the children for one of its own.
        layer: which layer of the tree it is; the leaves are 0.
        quorum, deadline_s: when a round goes on without the slowest children.
    """

    children: rc.Group[Learner] = rc.many()

    def __init__(
        self,
        steps: int = 1,
        layer: int = 1,
        quorum: float = 1.0,
        deadline_s: float | None = None,
        bad: OnBad = "fail",
    ) -> None:
        at_least_one(type(self).__name__, steps=steps)
        self.steps, self.layer, self.quorum, self.deadline_s, self.bad = steps, layer, quorum, deadline_s, bad

    @rc.task
    async def train(self, params: Tensors, round: int) -> Update:
        """Have the children train `steps` times, each time from the mean of the time before."""
        samples, loss = 0, 0.0
        with self.at_work():
            for step in range(self.steps):
                updates = await self.gathered(params, (round - 1) * self.steps + step + 1)
                params = await self.merged(updates, params)
                samples = sum(update.samples for update in updates.values())
                loss = sum(update.loss * update.samples for update in updates.values()) / max(1, samples)
        return Update(params, samples, loss)

    async def gathered(self, params: Tensors, round: int) -> dict[rc.RoleId, Update]:
        """Return the updates of the children."""
        patient = self.children.within(quorum=float(self.quorum), deadline_s=self.deadline_s)
        return dict((await patient.call(Learner.train, params, round)).items())


class Versioned(msgspec.Struct, frozen=True):
    """A model and its version: how many updates have gone into it."""

    params: Tensors
    version: int


class CumulativeState(msgspec.Struct):
    """The model so far, its version, and the version from which each source started last."""

    params: Tensors | None = None
    version: int = 0
    started: dict[str, int] = {}


class CumulativeAggregator(rc.Role):
    """Merges each update into its model as it comes, by `mixing` times a discount for its age (Xie et al. 2019).

    A source that sends a second update made from a version it has already used is refused: no work counts twice.
    """

    model: Parametric = rc.element()
    state = rc.State(CumulativeState)
    merged = rc.Topic(Versioned)

    def __init__(self, mixing: float = 0.6, staleness: str = "polynomial") -> None:
        self.mixing, self.staleness = mixing, staleness

    @rc.service
    async def current(self) -> Versioned:
        """Return the model as it is now."""
        return Versioned(self.state.params or self.model.parameters(), self.state.version)

    @rc.service
    async def add(self, update: Update, version: int) -> Versioned:
        """Merge an update that was made from version `version` of the model; return what the model is then.

        Raises `BadUpdate` where it cannot be averaged, `Refused` where it has been merged before.
        """
        source, now = rc.caller(), await self.current()
        self._judge(source, update, version, now)
        share = self.mixing * discount(now.version - version, self.staleness)
        merged = Versioned(Tensors.mean([now.params, update.params], [1 - share, share]), now.version + 1)
        self.state.params, self.state.version = merged.params, merged.version
        self.state.started[source] = version
        await self.merged.emit(merged)
        return merged

    def _judge(self, source: rc.RoleId, update: Update, version: int, now: Versioned) -> None:
        problem = fault(update, now.params)
        if problem is None and version > now.version:
            problem = f"it was made from version {version}, and the newest is {now.version}"
        if problem is not None:
            raise BadUpdate(source, problem)
        if version <= self.state.started.get(source, -1):
            raise rc.Refused(f"{source} has sent an update made from version {version} or later before.")


class GradientAggregator(rc.Role):
    """Makes a step of gradient descent by the mean of many gradients, weighted by the samples behind each."""

    def __init__(self, lr: float = 0.1, bad: OnBad = "fail") -> None:
        self.lr = lr
        self.bad: OnBad = bad

    @rc.service
    async def apply(self, gradients: dict[rc.RoleId, Gradient], params: Tensors) -> Tensors:
        """Return `params` after the step."""
        return await self.compute(self.stepped, gradients, params)

    def stepped(self, gradients: Mapping[rc.RoleId, Gradient], params: Tensors) -> Tensors:
        """Make the step; runs in a worker thread."""
        good = screened(gradients, params, self.bad)
        return params - mean_gradient(good.values()) * self.lr
