"""What must type-check, and as what: topics, inboxes and members coming and going."""

from __future__ import annotations

from typing import assert_type

import msgspec
import numpy as np
import numpy.typing as npt

import rolecall as rc


class Report(msgspec.Struct, frozen=True):
    epoch: int
    loss: float


class Chunk(msgspec.Struct, frozen=True):
    step: int
    data: rc.Tensors


class LastChunk(Chunk, frozen=True): ...


class Learner(rc.Role):
    trained = rc.Topic(Report)
    chunks = rc.Inbox(Chunk, key=lambda c: c.step)

    async def main(self) -> None:
        await self.trained.emit(Report(1, 0.5))
        chunk = await self.chunks.take(3)
        assert_type(chunk, Chunk)


class Trainer(Learner):
    numbers = rc.Topic(int)
    vectors = rc.Topic(npt.NDArray[np.float64])
    lists = rc.Inbox(list[Report])
    either: rc.Inbox[Report | Chunk] = rc.Inbox(Report | Chunk)
    maybe: rc.Topic[Report | None] = rc.Topic(Report | None)

    async def main(self) -> None:
        await self.vectors.emit(np.zeros(3))
        await self.maybe.emit(None)
        assert_type(await self.lists.take(), list[Report])
        assert_type(await self.either.take(), Report | Chunk)


class Monitor(rc.Role):
    learner: Learner = rc.one()
    learners: rc.Group[Learner] = rc.many()
    trainers: rc.Group[Trainer] = rc.many()

    @learners.on(Learner.trained, where={"loss__lt": 0.1}, overflow="latest")
    async def seen(self, source: rc.RoleId, report: Report) -> None: ...

    @trainers.on(Learner.trained)
    async def of_the_base_class(self, source: rc.RoleId, report: Report) -> None: ...

    @trainers.on(Trainer.numbers)
    async def taking_more(self, source: str, number: float) -> None: ...

    @rc.on("learner", Learner.trained, capacity=8)
    async def of_one(self, source: rc.RoleId, report: Report) -> None: ...

    @learners.on_join
    @learners.on_leave
    async def changed(self, who: rc.RoleId) -> None: ...

    async def take(self) -> None:
        async with self.learners.subscribe(Learner.trained, where={"loss__lt": 0.1}) as reports:
            source, report = await reports.take(source=self.learners.ids[0])
            assert_type(source, rc.RoleId)
            assert_type(report, Report)
            assert_type(await reports.collect(self.learners), dict[rc.RoleId, Report])
            async for who, item in reports:
                assert_type(who, rc.RoleId)
                assert_type(item, Report)
        async with self.trainers.subscribe(Learner.trained) as of_the_base_class:
            assert_type(of_the_base_class.drain(), list[tuple[rc.RoleId, Report]])
        async with self.learner.trained.subscribe() as of_one:
            assert_type(await of_one.take(), tuple[rc.RoleId, Report])

    async def unions(self) -> None:
        async with self.trainers.subscribe(Trainer.maybe) as reports:
            assert_type(reports.drain(), list[tuple[rc.RoleId, Report | None]])
        await self.trainers.put(Trainer.either, Report(1, 0.5))

    async def put(self, params: rc.Tensors) -> None:
        await self.learner.chunks.put(Chunk(1, params))
        await self.learners.put(Learner.chunks, Chunk(1, params))
        await self.trainers.put(Learner.chunks, LastChunk(1, params))


class RingWorker(rc.Role):
    ring: rc.Group[RingWorker] = rc.many()
    chunks = rc.Inbox(Chunk, key=lambda c: c.step)

    async def hop(self, step: int, params: rc.Tensors) -> None:
        right = self.ring.at(self.ring.rank(self.id) + 1)
        await right.chunks.put(Chunk(step, params))
        assert_type(await self.chunks.take(step), Chunk)
        assert_type(await self.chunks.take(source=self.ring.ids[0]), Chunk)
        assert_type(await self.chunks.collect(self.ring.others, key=step), dict[rc.RoleId, Chunk])
        assert_type(self.chunks.drain(), list[tuple[rc.RoleId, Chunk]])
