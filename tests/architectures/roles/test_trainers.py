"""Trainers: by plan, until told to stop, in layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import rolecall as rc
from rolecall.architectures.roles import (
    ContinuousTrainer,
    LayeredPlannedTrainer,
    Learner,
    PlannedTrainer,
    Trainer,
    Worker,
)
from rolecall.learn import ArrayDataset, EarlyStop, FixedPlan, Gradient, PlanStep, StepResult, TorchModel, Update

DATA = ArrayDataset(np.random.default_rng(1).normal(size=(20, 5)), np.arange(20) % 3, 3)


def model(net: Any) -> TorchModel:
    return TorchModel(net)


class Caller(rc.Role):
    """Has its trainer train for some rounds, each from the model of the one before."""

    model: TorchModel = rc.element()
    trainer: Learner = rc.one()

    @rc.task
    async def run(self, rounds: int) -> list[Update]:
        params, found = self.model.parameters(), []
        for round in range(1, rounds + 1):
            found.append(await self.trainer.train(params, round))
            params = found[-1].params
        return found


def trained(net: Any, trainer: type[Learner], rounds: int = 1, plan: Any = None, **options: Any) -> rc.History:
    elements = {"model": rc.ElementSpec(value=model(net)), "data": rc.ElementSpec(value=DATA)}
    if plan is not None:
        elements["plan"] = rc.ElementSpec(value=plan)
    roles = {
        "trainer": rc.RoleSpec(trainer, options=options, elements=elements),
        "caller": rc.RoleSpec(Caller, elements={"model": elements["model"]}),
    }
    start = rc.Call("a/caller.run", {"rounds": rounds})
    return rc.run_sync(rc.App(name="train", nodes={"a": rc.Node()}, roles={"a": roles}, start=start), seed=7)


def updates(history: rc.History) -> list[Update]:
    found: list[Update] = history.returned["a/caller.run"]
    return found


def test_a_planned_trainer_takes_its_settings_from_its_plan(net: Any) -> None:
    planned = updates(trained(net, PlannedTrainer, plan=FixedPlan(batch_size=4, lr=0.3)))
    plain = updates(trained(net, Trainer, batch_size=4, lr=0.3))
    assert planned[0].params == plain[0].params


def test_the_rate_of_the_plan_falls_from_round_to_round(net: Any) -> None:
    history = trained(net, PlannedTrainer, rounds=2, plan=FixedPlan(lr=0.3, decay=0.1))
    moved = [a.params.distance(b.params) for a, b in zip(updates(history), updates(history)[1:], strict=False)]
    start = updates(history)[0].params.distance(model(net).parameters())
    assert moved[0] < start / 3


def test_a_plan_hears_of_each_step_and_may_end_early(net: Any) -> None:
    class Heard:
        results: tuple[StepResult, ...] = ()

        def next(self, round: int, results: Sequence[StepResult]) -> PlanStep | None:
            self.results = tuple(results)
            return PlanStep(lr=0.1) if len(results) < 3 else None

    heard = Heard()
    history = trained(net, PlannedTrainer, plan=heard)
    assert [result.samples for result in heard.results] == [20, 20, 20]
    losses = [result.loss for result in heard.results]
    assert losses == sorted(losses, reverse=True) and history.last("trained") == 60
    early = trained(net, PlannedTrainer, plan=EarlyStop(FixedPlan(3, lr=0.1), loss=losses[0] + 1e-9))
    assert early.last("trained") == 20


def test_a_plan_that_is_over_is_a_refusal(net: Any) -> None:
    class Two:
        def next(self, round: int, results: Sequence[StepResult]) -> PlanStep | None:
            return PlanStep() if round < 3 and not results else None

    with pytest.raises(rc.ApplicationFailed, match=r"a/trainer has come to the end .* before round 3"):
        trained(net, PlannedTrainer, rounds=3, plan=Two())


def test_a_layered_trainer_reports_its_layer(net: Any) -> None:
    class Listening(rc.Extension):
        trainers: rc.Group[Worker] = rc.many("trainer")

        async def main(self) -> None:
            async with self.trainers.subscribe(Worker.trained) as reports:
                _, report = await reports.take()
                self.log(layer=report.layer, read=report.samples)

    elements = {"model": rc.ElementSpec(value=model(net)), "data": rc.ElementSpec(value=DATA)}
    roles = {
        "trainer": rc.RoleSpec(LayeredPlannedTrainer, options={"layer": 2}, elements=elements),
        "caller": rc.RoleSpec(Caller, elements={"model": elements["model"]}, extensions=[Listening]),
    }
    start = rc.Call("a/caller.run", {"rounds": 3})
    history = rc.run_sync(rc.App(name="layers", nodes={"a": rc.Node()}, roles={"a": roles}, start=start), seed=7)
    assert (history.last("layer"), history.last("read")) == (2, 20)


class Stopper(rc.Role):
    """Lets a continuous trainer go on until it has read enough, by its progress."""

    model: TorchModel = rc.element()
    trainer: ContinuousTrainer = rc.one()

    @rc.task
    async def run(self, enough: int) -> Gradient:
        handle = await self.trainer.accumulate.start(self.model.parameters(), 1)
        async for samples in handle:
            if samples >= enough:
                await self.trainer.finish()
                break
        return await handle


def accumulated(net: Any, enough: int, **options: Any) -> rc.History:
    elements = {"model": rc.ElementSpec(value=model(net)), "data": rc.ElementSpec(value=DATA)}
    roles = {
        "trainer": rc.RoleSpec(ContinuousTrainer, options={"batch_size": 5, **options}, elements=elements),
        "stopper": rc.RoleSpec(Stopper, elements={"model": elements["model"]}),
    }
    start = rc.Call("a/stopper.run", {"enough": enough})
    return rc.run_sync(rc.App(name="on", nodes={"a": rc.Node()}, roles={"a": roles}, start=start), seed=7)


def test_a_continuous_trainer_goes_on_until_it_is_told_to_finish(net: Any) -> None:
    found: Gradient = accumulated(net, enough=15).returned["a/stopper.run"]
    assert found.samples >= 15 and found.samples % 5 == 0


def test_or_until_it_has_read_as_many_as_it_may_and_its_gradient_is_the_mean(net: Any) -> None:
    history = accumulated(net, enough=1000, most=20)
    found: Gradient = history.returned["a/stopper.run"]
    whole = model(net).gradient(model(net).parameters(), DATA, batch_size=20)
    assert found.samples == 20 == history.last("trained")
    assert found.values.allclose(whole.values, rtol=0, atol=1e-12)
    assert found.loss == pytest.approx(whole.loss)
