"""Training plans: with which settings a trainer trains, step by step, judging by how it went so far."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from rolecall.core.errors import ConfigError

__all__ = ("EarlyStop", "FixedPlan", "PlanStep", "StepResult", "TrainingPlan")


class PlanStep(msgspec.Struct, frozen=True):
    """The settings of one step: so many epochs, with this batch size and learning rate."""

    epochs: int = 1
    batch_size: int = 32
    lr: float = 0.1


class StepResult(msgspec.Struct, frozen=True):
    """What came of a step: its mean training loss and the number of samples it read."""

    loss: float
    samples: int


@runtime_checkable
class TrainingPlan(Protocol):
    """Decides each step of a round from the results of the steps before it; a pure function of its arguments."""

    def next(self, round: int, results: Sequence[StepResult]) -> PlanStep | None:
        """Return the next step of round `round` (from 1), or None to end it.

        `results` are those of this round. A plan that ends a round before its first step has nothing to
        train any more: the trainer refuses.
        """
        ...


class FixedPlan:
    """So many steps a round, one epoch each; the learning rate is multiplied by `decay` from round to round."""

    def __init__(self, steps: int = 1, batch_size: int = 32, lr: float = 0.1, decay: float = 1.0) -> None:
        if steps < 1:
            raise ConfigError("FixedPlan", f"{steps} steps", hint="Give at least one")
        self.steps, self.batch_size, self.lr, self.decay = steps, batch_size, lr, decay

    def next(self, round: int, results: Sequence[StepResult]) -> PlanStep | None:
        """Return the next step, or None after the last."""
        if len(results) >= self.steps:
            return None
        return PlanStep(batch_size=self.batch_size, lr=self.lr * self.decay ** (round - 1))


class EarlyStop:
    """Another plan, ended early where the loss is below `loss`, or falls by less than `least` in a step."""

    def __init__(self, plan: TrainingPlan | None = None, loss: float = 0.0, least: float = 0.0) -> None:
        self.plan = plan or FixedPlan(steps=10)
        self.loss, self.least = loss, least

    def next(self, round: int, results: Sequence[StepResult]) -> PlanStep | None:
        """Return the next step of the plan, or None where going on is not worth it."""
        if results and results[-1].loss < self.loss:
            return None
        if len(results) > 1 and results[-2].loss - results[-1].loss < self.least:
            return None
        return self.plan.next(round, results)
