"""Trainers that follow a plan, which hears how each step went and may end a round early."""

from __future__ import annotations

import anyio

import rolecall as rc
from rolecall.architectures.roles.learners import Trainer
from rolecall.core.tensors import Tensors
from rolecall.learn import FixedPlan, StepResult, TrainingPlan, Update

__all__ = ("LayeredPlannedTrainer", "PlannedTrainer")


class PlannedTrainer(Trainer):
    """Asks its plan for the settings of each step of a round, and tells it what came of the steps before.

    The optimizer starts anew with every step. A plan that ends a round before its first step is over: the call
    is refused.
    """

    plan: TrainingPlan = rc.element(default=FixedPlan)

    @rc.task
    async def train(self, params: Tensors, round: int) -> Update:
        began_s = anyio.current_time()
        results: list[StepResult] = []
        with self.at_work():
            while (step := self.plan.next(round, results)) is not None:
                purpose = "fit" if not results else f"fit {len(results)}"
                update = await self.fitted(params, step, seed=self.seed(purpose, round))
                params = update.params
                results.append(StepResult(update.loss, step.epochs * len(self.data)))
        if not results:
            raise rc.Refused(f"{self.id} has come to the end of its training plan before round {round}.")
        await self.report(round, sum(result.samples for result in results), results[-1].loss, began_s)
        return Update(params, len(self.data), results[-1].loss)


class LayeredPlannedTrainer(PlannedTrainer):
    """A planned trainer that says which layer of a tree it is in, where a node carries several roles of the tree."""

    def __init__(self, layer: int = 0, epochs: int = 1, batch_size: int = 32, lr: float = 0.1) -> None:
        super().__init__(epochs, batch_size, lr)
        self.layer = layer
