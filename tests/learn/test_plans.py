from __future__ import annotations

import pytest

from rolecall.core.errors import ConfigError
from rolecall.learn import EarlyStop, FixedPlan, PlanStep, StepResult, TrainingPlan


def steps(plan: TrainingPlan, losses: list[float], round: int = 1) -> list[PlanStep]:
    """Follow a plan whose steps come to these losses."""
    results: list[StepResult] = []
    found: list[PlanStep] = []
    while (step := plan.next(round, results)) is not None and len(found) < len(losses):
        found.append(step)
        results.append(StepResult(losses[len(results)], samples=10))
    return found


def test_a_fixed_plan_has_so_many_steps_at_a_rate_that_falls_by_round() -> None:
    plan = FixedPlan(steps=3, batch_size=8, lr=0.4, decay=0.5)
    assert steps(plan, [1.0] * 9, round=3) == [PlanStep(1, 8, 0.1)] * 3


def test_it_ends_early_where_the_loss_is_low_enough() -> None:
    assert len(steps(EarlyStop(FixedPlan(9), loss=0.3), [0.9, 0.5, 0.2, 0.1])) == 3


def test_or_where_it_has_stopped_falling() -> None:
    assert len(steps(EarlyStop(FixedPlan(9), least=0.05), [0.9, 0.5, 0.49, 0.1])) == 3


def test_no_steps_at_all() -> None:
    with pytest.raises(ConfigError, match="0 steps"):
        FixedPlan(0)
