"""Coordinators: what makes round after round of the others' work."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import msgspec

import rolecall as rc
from rolecall.architectures.roles.aggregators import CollectiveAggregator
from rolecall.architectures.roles.hooks import Rounds
from rolecall.architectures.roles.learners import Learner
from rolecall.architectures.roles.selecting import ClientSelector
from rolecall.core.tensors import Tensors
from rolecall.learn import Parametric, Update

__all__ = ("Coordinator", "FederationState", "RoundCoordinator")


class FederationState(msgspec.Struct):
    """The rounds done and the global model after them."""

    round: int = 0
    params: Tensors | None = None


class RoundCoordinator(Rounds):
    """Runs rounds, each from the model of the one before; what a round is, derived classes say."""

    model: Parametric = rc.element()
    state = rc.State(FederationState)

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    @rc.task(resumable=True)
    async def run(self) -> None:
        """Run the rounds that are left."""
        params = self.state.params or self.model.parameters()
        while self.state.round < self.rounds:
            await self.safe_point()
            params = await self.round(self.state.round + 1, params)
            self.state = FederationState(self.state.round + 1, params)

    @abstractmethod
    async def round(self, round: int, params: Tensors) -> Tensors:
        """Return the model after round `round` (from 1), which begins with `params`."""


class Coordinator(RoundCoordinator):
    """Has some of the learners train in each round, and their updates aggregated.

    `quorum` and `deadline_s` say when a round goes on without the slowest of them.
    """

    selector: ClientSelector = rc.one()
    aggregator: CollectiveAggregator = rc.one()
    trainers: rc.Group[Learner] = rc.many()

    def __init__(self, rounds: int, quorum: float = 1.0, deadline_s: float | None = None) -> None:
        super().__init__(rounds)
        self.quorum, self.deadline_s = quorum, deadline_s

    async def round(self, round: int, params: Tensors) -> Tensors:
        """Select, train, aggregate."""
        chosen = await self.selector.select(round, list(self.trainers))
        updates = await self.ask([who for who in chosen if who in self.trainers], round, params)  # some may have left
        params = await self.aggregator.aggregate(dict(updates.items()), params)
        losses = [update.loss for update in updates.values()]
        self.log(round=round, clients=len(losses), train_loss=sum(losses) / len(losses))
        await self.after_round(round, params)
        return params

    async def ask(self, chosen: list[rc.RoleId], round: int, params: Tensors) -> Mapping[rc.RoleId, Update]:
        """Have those chosen train; extensions that send each of them something of its own override it."""
        patient = self.trainers.only(chosen).within(quorum=float(self.quorum), deadline_s=self.deadline_s)
        return await patient.call(Learner.train, params, round)
