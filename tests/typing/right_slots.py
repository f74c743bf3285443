"""What must type-check, and as what: elements, state, and what a role gets from its runtime."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, assert_type

import msgspec
import numpy as np

import rolecall as rc


class Model(Protocol):
    def parameters(self) -> rc.Tensors: ...

    def fit(self, params: rc.Tensors, epochs: int) -> rc.Tensors: ...


class Planner(ABC):
    @abstractmethod
    def plan(self, members: list[str]) -> list[int]: ...


class TrainerState(msgspec.Struct):
    step: int = 0
    params: rc.Tensors | None = None


class Trainer(rc.Role):
    model: Model = rc.element()
    large: rc.Lazy[Model] = rc.element()
    planner: rc.Fresh[Planner] = rc.element()
    names: list[str] = rc.element(default=list)
    test_model: Model | None = rc.element(optional=True)
    later: Later = rc.element()
    state = rc.State(TrainerState)

    def __init__(self, epochs: int = 1) -> None:
        self.epochs = epochs

    async def main(self) -> None:
        assert_type(self.model, Model)
        assert_type(await self.large(), Model)
        assert_type(await self.planner(depth=3), Planner)
        assert_type(self.names, list[str])
        assert_type(self.test_model, Model | None)
        assert_type(self.later.value, int)

    async def learn(self, params: rc.Tensors) -> None:
        learned = await self.compute(self.model.fit, params, self.epochs, cost=32.0)
        assert_type(learned, rc.Tensors)
        assert_type(self.state, TrainerState)
        self.state.params = learned
        self.state = TrainerState(self.state.step + 1, learned)

    async def helped(self) -> None:
        assert_type(self.id, rc.RoleId)
        assert_type(self.rng("batches", self.state.step), np.random.Generator)
        assert_type(self.seed("fit"), int)
        self.log(step=1, loss=0.5, phase="warm-up")
        await self.safe_point()

    @rc.service(allow="manager")
    async def who(self) -> rc.RoleId:
        return rc.caller()


class Later:
    value: int = 0


class Prober(rc.Extension):
    """Adds a channel, and a look at the same state, to a trainer."""

    probed = rc.Topic(float)

    @rc.service
    async def probe(self, value: float) -> None:
        await self.probed.emit(value)


class Probing(Prober, Trainer):
    async def main(self) -> None:
        await super().main()
        assert_type(await self.who(), rc.RoleId)


def application() -> rc.App:
    return rc.App(
        name="slots",
        nodes={"device[1-3]": rc.Node()},
        roles={
            "device*": {
                "trainer": rc.RoleSpec(
                    Trainer, options={"epochs": 2}, extensions=[Prober], elements={"later": rc.ElementSpec(Later)}
                )
            }
        },
        relationships={"device*": {"manager": rc.Alias("boss"), "boss": ["device1/boss", "device2/boss"]}},
        start=[rc.Call("device1/trainer.probe", {"value": 1.0})],
        until=rc.After(30),
    )


async def run() -> None:
    history = await rc.run(application(), checked=True)
    assert_type(history, rc.History)
    assert_type(history.final, rc.Tensors | None)
    assert_type(history.curve("loss"), list[tuple[float, float]])
    assert_type(rc.run_sync(application()), rc.History)
