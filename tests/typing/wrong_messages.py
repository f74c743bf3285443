"""What must not type-check: topics, inboxes, members coming and going. Only marked lines are errors."""

from __future__ import annotations

import msgspec

import rolecall as rc


class Report(msgspec.Struct, frozen=True):
    loss: float


class Chunk(msgspec.Struct, frozen=True):
    step: int


class Learner(rc.Role):
    chunks = rc.Inbox(Chunk, key=lambda c: c.step)
    wrong_key = rc.Inbox(Chunk, key=lambda c: c.hop)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownLambdaType, reportUnknownMemberType]

    async def main(self) -> None:
        _report: Report = await self.chunks.take(3)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        _sources: list[str] = self.chunks.drain()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]


class Trainer(Learner):
    trained = rc.Topic(Report)
    stages = rc.Inbox(str)
    # A union needs an annotation; to mypy, this is an inbox of reports.
    either = rc.Inbox(Report | Chunk)  # pyright: ignore[reportUnknownVariableType]
    number: rc.Inbox[int] = rc.Inbox(str)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
    maybe: rc.Topic[Report | None] = rc.Topic(Report | None)

    async def main(self) -> None:
        await self.maybe.emit(0.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.trained.emit(0.5)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.trained.emit(Report(0.5), Report(0.4))  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


class Monitor(rc.Role):
    trainer: Trainer = rc.one()
    trainers: rc.Group[Trainer] = rc.many()
    learners: rc.Group[Learner] = rc.many()

    @trainers.on(Trainer.trained)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def wrong_event(self, source: rc.RoleId, report: Chunk) -> None: ...

    @trainers.on(Trainer.trained)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def no_source(self, report: Report) -> None: ...

    @trainers.on(Trainer.trained)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    def not_async(self, source: rc.RoleId, report: Report) -> None: ...

    @learners.on(Trainer.trained)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def of_a_subclass(self, source: rc.RoleId, report: Report) -> None: ...

    @trainers.on(Trainer.stages)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def an_inbox(self, source: rc.RoleId, stage: str) -> None: ...

    @trainers.on(Trainer.trained, overflow="newest")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def unknown_policy(self, source: rc.RoleId, report: Report) -> None: ...

    @rc.on("trainer", Trainer.trained)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def wrong_event_of_one(self, source: rc.RoleId, report: Chunk) -> None: ...

    @trainers.on_join  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    async def joined(self, who: rc.RoleId, report: Report) -> None: ...

    async def take(self) -> None:
        async with self.trainers.subscribe(Trainer.trained) as reports:
            _wrong: tuple[rc.RoleId, Chunk] = await reports.take()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        self.learners.subscribe(Trainer.trained)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        async with self.trainer.trained.subscribe() as of_one:
            _number: tuple[rc.RoleId, float] = await of_one.take()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    async def put(self) -> None:
        await self.trainer.chunks.put("chunk")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.trainers.put(Trainer.stages, Chunk(3))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.learners.put(Trainer.stages, "first")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.trainers.put(Trainer.trained, Report(0.5))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
