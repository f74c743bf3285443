"""What must not type-check: abstract roles, overrides, elements, state, applications. Only marked lines are errors."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec

import rolecall as rc


class Model(Protocol):
    def fit(self, epochs: int) -> float: ...


class Progress(msgspec.Struct, frozen=True):
    done: float


class Learner(rc.Role):
    @rc.task
    @abstractmethod
    async def train(self, rounds: int) -> float: ...

    @rc.service
    async def samples(self) -> int:
        return 10


class Unfinished(Learner):
    """Implements nothing, so it is as abstract as what it derives from."""


class OtherArguments(Learner):
    @rc.task
    async def train(self, rounds: str) -> float:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0.5


class OtherResult(Learner):
    @rc.task
    async def train(self, rounds: int) -> str:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return "0.5"


class OtherKind(Learner):
    @rc.service
    async def train(self, rounds: int) -> float:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0.5


class Plain(Learner):
    async def train(self, rounds: int) -> float:  # type: ignore[override]  # pyright: ignore[reportIncompatibleVariableOverride]
        return 0.5


class Finished(Learner):
    @rc.task
    async def train(self, rounds: int) -> float:
        return await super().train(rounds)  # type: ignore[safe-super]


class WrongSuper(Finished):
    @rc.task
    async def train(self, rounds: int) -> float:
        _few: str = await super().samples()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        return await super().train("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Handlers(rc.Role):
    @rc.service  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    def not_async(self, rounds: int) -> float:
        return 0.5

    @rc.stream  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def no_items(self) -> int:
        return 3

    @rc.service(concurrent="yes")  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportArgumentType]
    async def unknown_policy(self) -> None: ...

    @rc.service(workers=3)  # type: ignore[call-overload, untyped-decorator]  # pyright: ignore[reportCallIssue, reportUntypedFunctionDecorator]
    async def unknown_option(self) -> None: ...

    @rc.task(progress=Progress)
    async def reports(self) -> int:
        return 3

    @rc.stream
    async def items(self) -> AsyncIterator[str]:
        yield 3  # type: ignore[misc]  # pyright: ignore[reportReturnType]


class TrainerState(msgspec.Struct):
    step: int = 0


class Trainer(rc.Role):
    model: Model = rc.element()
    large: rc.Lazy[Model] = rc.element()
    fresh: rc.Fresh[Model] = rc.element()
    maybe: Model | None = rc.element(optional=True)
    state = rc.State(TrainerState)
    wrong_state = rc.State(int)  # type: ignore[type-var]  # pyright: ignore[reportArgumentType, reportUnknownVariableType]

    async def main(self) -> None:
        self.model.predict()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        self.model.fit("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.large.fit(3)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        (await self.large()).fit("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        (await self.fresh()).predict()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        self.maybe.fit(3)  # type: ignore[union-attr]  # pyright: ignore[reportOptionalMemberAccess]
        self.state.steps = 3  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
        self.state.step = "3"  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]
        self.state = 3  # type: ignore[assignment]

    async def asks(self) -> None:
        await self.compute(self.model.fit, "3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.compute(self.model.fit)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        _words: str = await self.compute(self.model.fit, 3)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
        self.log(losses=[0.5])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.id = rc.RoleId("device1/trainer")  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]


def applications() -> None:
    Unfinished()  # type: ignore[abstract]  # pyright: ignore[reportAbstractUsage]
    rc.App(name="a", nodes={"server": 3})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    rc.App(name="a", until="finished")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    rc.App(name="a", roles={"server": {"trainer": Trainer}})  # type: ignore[dict-item]  # pyright: ignore[reportArgumentType]
    rc.RoleSpec(Trainer, on_failure="ignore")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
