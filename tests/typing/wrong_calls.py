"""What must not type-check: roles calling roles. Each marked line is an error, and no other line is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator

import msgspec

import rolecall as rc


class Report(msgspec.Struct, frozen=True):
    loss: float


class Learner(rc.Role):
    @rc.task(progress=Report)
    @abstractmethod
    async def train(self, rounds: int, lr: float = 0.1) -> float: ...

    @rc.stream
    @abstractmethod
    def losses(self) -> AsyncIterator[float]: ...


class Trainer(Learner):
    @rc.task(progress=Report)
    async def train(self, rounds: int, lr: float = 0.1) -> float:
        return lr

    @rc.stream
    async def losses(self) -> AsyncIterator[float]:
        yield 0.5

    @rc.service
    async def name(self) -> str:
        return self.id


class Server(rc.Role):
    @rc.service
    async def push(self, change: float) -> None: ...


class Coordinator(rc.Role):
    server: Server = rc.one()
    learner: Learner = rc.one()
    learners: rc.Group[Learner] = rc.many()
    trainers: rc.Group[Trainer] = rc.many()

    async def wrong_arguments(self) -> None:
        await self.server.push("1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.server.push()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await self.server.push(1.0, 2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        await self.learner.train(3, rate=0.1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        _ = await self.learner.train.start("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        self.learner.losses(1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]

    async def wrong_results(self) -> None:
        _text: str = await self.learner.train(3)  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        handle = await self.learner.train.start(3)
        _number: int = await handle.result()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        _other: int = await handle  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        async for report in handle:
            _wrong: float = report  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        async for loss in self.learner.losses():
            _whole: int = loss  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        _nothing: str = await self.server.push(1.0)  # type: ignore[assignment, func-returns-value]  # pyright: ignore[reportAssignmentType]

    async def wrong_channels(self) -> None:
        await self.learner.name()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        await self.server.pull()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        await self.server.push.start(1.0)  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        await self.learner.losses()  # type: ignore[misc]  # pyright: ignore[reportGeneralTypeIssues]

    async def wrong_roles_in_groups(self) -> None:
        await self.learners.call(Trainer.train, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.learners.call(Trainer.name)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.trainers.call(Server.push, 1.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.learners.call_each(lambda who: Trainer.train.bind(3))  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
        await self.trainers.call_each(lambda who: Server.push.bind(1.0))  # type: ignore[arg-type, return-value]  # pyright: ignore[reportArgumentType]
        await self.learners.call(Learner.losses)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType, reportCallIssue]

    async def wrong_arguments_in_groups(self) -> None:
        await self.learners.call(Learner.train, "3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.learners.call(Learner.train)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue]
        await self.learners.call(Learner.train, 3, quorum=2)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue]
        await self.learners.call_each(lambda who: Learner.train.bind("3"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.learners.call_each(lambda who: Learner.train.bind(who))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.learners.within(late="later").call(Learner.train, 3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    async def wrong_results_in_groups(self) -> None:
        _replies: rc.Replies[str] = await self.learners.call(Learner.train, 3)  # type: ignore[arg-type]  # pyright: ignore[reportAssignmentType]
        _first: str = (await self.learners.call(Learner.train, 3))[self.learners.ids[0]]  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        _trainer: Trainer = self.learners.choice()  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
        _narrowed: rc.Group[Trainer] = self.learners  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]

    async def not_a_call(self) -> None:
        self.learner.train  # nothing is wrong with looking at it
        self.learner.train(3)  # type: ignore[unused-coroutine]  # pyright: ignore[reportUnusedCoroutine]

    async def wrong_unbound(self) -> None:
        await Trainer.train(self.learner)(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await Learner.train(self.learner)("3")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await Learner.train(3)  # type: ignore[arg-type, misc]  # pyright: ignore[reportArgumentType, reportGeneralTypeIssues]


class Gossip(rc.Role):
    """Relates to others of its own class."""

    peers: rc.Group[Gossip] = rc.many()

    @rc.service
    async def exchange(self, theirs: list[float]) -> list[float]:
        return theirs

    async def main(self) -> None:
        await self.peers.choice().exchange([1])
        await self.peers.choice().exchange(["1"])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType]
        await self.peers.call(Server.push, 1.0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        await self.peers.exchange([1.0])  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]
        await self.peers["device1/gossip"].exchange([1.0])  # type: ignore[index]  # pyright: ignore[reportArgumentType]
