"""What must type-check, and as what: roles calling roles."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator
from typing import assert_type

import msgspec

import rolecall as rc


class Report(msgspec.Struct, frozen=True):
    epoch: int
    loss: float


class Update(msgspec.Struct, frozen=True):
    params: rc.Tensors
    samples: int


class Learner(rc.Role):
    """Abstract: a contract that others fulfil."""

    @rc.task(progress=Report)
    @abstractmethod
    async def train(self, params: rc.Tensors, epochs: int = 1) -> Update: ...

    @rc.service
    @abstractmethod
    async def samples(self) -> int: ...

    @rc.stream
    @abstractmethod
    def weights(self, first: int) -> AsyncIterator[rc.Tensors]: ...


class Trainer(Learner):
    """Implements all channels of the abstract class, each declared anew."""

    @rc.task(progress=Report)
    async def train(self, params: rc.Tensors, epochs: int = 1) -> Update:
        for epoch in range(epochs):
            rc.progress(Report(epoch, 0.5))
        return Update(params, await self.samples())

    @rc.service(concurrent=True, idempotent=True)
    async def samples(self) -> int:
        return 10

    @rc.stream
    async def weights(self, first: int) -> AsyncIterator[rc.Tensors]:
        yield rc.Tensors({})

    @rc.service
    async def name(self) -> str:
        return self.id


class Careful(Trainer):
    """Overrides a channel and uses the one it inherits."""

    @rc.task(progress=Report)
    async def train(self, params: rc.Tensors, epochs: int = 1) -> Update:
        update = await super().train(params, epochs=2 * epochs)
        assert_type(update, Update)
        return Update(update.params + params, update.samples + await super().samples())

    @rc.stream
    async def weights(self, first: int) -> AsyncIterator[rc.Tensors]:
        async for tensors in super().weights(first):
            yield tensors * 2


class Wider(Trainer):
    """An override may take more. pyright holds parameters to be invariant, whatever a class says."""

    @rc.task(progress=Report)
    async def train(self, params: rc.Tensors | None, epochs: int = 1, lr: float = 0.1) -> Update:  # pyright: ignore[reportIncompatibleVariableOverride]
        return await super().train(params or rc.Tensors({}), epochs)


class Coordinator(rc.Role):
    trainer: Trainer = rc.one()
    learner: Learner = rc.one("trainer")
    trainers: rc.Group[Trainer] = rc.many()
    learners: rc.Group[Learner] = rc.many("trainers")

    async def services(self, params: rc.Tensors) -> None:
        assert_type(await self.trainer.samples(), int)
        assert_type(await self.learner.samples(), int)
        assert_type(await self.trainer.name(), str)
        assert_type(await self.trainers.at(0).name(), str)
        assert_type(await self.trainers.choice().samples(), int)
        assert_type(await self.trainers[self.trainer.id].samples(), int)

    async def tasks(self, params: rc.Tensors) -> None:
        assert_type(await self.trainer.train(params), Update)
        assert_type(await self.learner.train(params, 3), Update)
        assert_type(await self.learner.train(params=params, epochs=3), Update)
        handle = await self.started(params)
        async for report in handle:
            assert_type(report, Report)
        assert_type(await handle, Update)
        assert_type(await handle.result(), Update)
        assert_type(await handle.cancel(), rc.Outcome)

    async def started(self, params: rc.Tensors) -> rc.TaskHandle[Update, Report]:
        return await self.learner.train.start(params, epochs=2)

    async def streams(self) -> None:
        async for tensors in self.trainer.weights(0):
            assert_type(tensors, rc.Tensors)
        async with self.learner.weights(first=0) as reader:
            assert_type(await anext(reader), rc.Tensors)

    async def groups(self, params: rc.Tensors) -> None:
        replies = await self.trainers.call(Trainer.train, params, epochs=2)
        assert_type(replies, rc.Replies[Update])
        assert_type(replies.failures, dict[rc.RoleId, Exception])
        for role, update in replies.items():
            assert_type(role, rc.RoleId)
            assert_type(update, Update)
        assert_type(await self.trainers.call(Learner.train, params), rc.Replies[Update])
        assert_type(await self.learners.call(Learner.samples), rc.Replies[int])
        chosen = self.trainers.sample(0.5).within(quorum=0.8, deadline_s=30, late="keep")
        assert_type(chosen, rc.Group[Trainer])
        async for who, samples in chosen.call(Trainer.samples).as_completed():
            assert_type(who, rc.RoleId)
            assert_type(samples, int)

    async def each(self, plans: dict[rc.RoleId, int], params: rc.Tensors) -> None:
        by_role = self.trainers.call_each(lambda who: Trainer.train.bind(params, epochs=plans[who]))
        assert_type(await by_role, rc.Replies[Update])
        by_base = self.trainers.call_each(lambda who: Learner.train.bind(params))
        assert_type(await by_base, rc.Replies[Update])

    async def unbound(self, params: rc.Tensors) -> None:
        assert_type(await Trainer.train(self.trainer)(params), Update)
        assert_type(await Learner.samples(self.trainer)(), int)
        assert_type(await (await Learner.train(self.learner).start(params)), Update)

    def widened(self) -> rc.Group[Learner]:
        return self.trainers


class Gossip(rc.Role):
    """Relates to others of its own class."""

    peers: rc.Group[Gossip] = rc.many()
    next: Gossip = rc.one()

    @rc.service(concurrent=True)
    async def exchange(self, theirs: list[float]) -> list[float]:
        return theirs

    async def main(self) -> None:
        assert_type(self.peers.choice(), Gossip)
        assert_type(await self.peers.choice().exchange([1.0]), list[float])
        assert_type(await self.next.exchange([1.0]), list[float])
        assert_type(await self.peers.others.call(Gossip.exchange, [1.0]), rc.Replies[list[float]])
        assert_type(await self.exchange([1.0]), list[float])


class Manager(rc.Role):
    """Has nodes do things."""

    nodes: rc.Group[rc.NodeRole] = rc.many()

    @nodes.on(rc.NodeRole.changed)
    async def changed(self, node: rc.RoleId, change: rc.RoleStatus) -> None: ...

    async def main(self) -> None:
        node = self.nodes[self.nodes.ids[0]]
        assert_type(await node.assign(rc.RoleSpec(Gossip, options={"a": 1}), name="gossip"), rc.RoleId)
        assert_type(await node.status(), rc.NodeStatus)
        assert_type(await self.nodes.call(rc.NodeRole.roles), rc.Replies[list[rc.RoleStatus]])
        await node.relate("peers", ["*/gossip"], rc.RoleId("a/gossip"), how="add")
        await node.relate("peers", "*/gossip")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
