from __future__ import annotations

import asyncio
import random
from typing import Any

import anyio
import msgspec
import pytest

import rolecall as rc


class Chunk(msgspec.Struct, frozen=True):
    step: int
    hop: int = 0
    body: bytes = b""


class Worker(rc.Role):
    chunks = rc.Inbox(Chunk, key=lambda c: c.step, capacity=3)
    plain = rc.Inbox(int)
    bulk = rc.Inbox(bytes, capacity_bytes=250)


class Sender(rc.Role):
    worker: Worker = rc.one()
    workers: rc.Group[Worker] = rc.many()

    async def send(self, *steps: int) -> None:
        for step in steps:
            await self.worker.chunks.put(Chunk(step))


class Opened:
    """A worker and two senders, one of them on another node."""

    def __init__(self, w: Any) -> None:
        self.w = w

    async def __aenter__(self) -> Opened:
        await self.w.__aenter__()
        self.worker = await self.w.role("a/worker", Worker)
        self.near, self.far = await self.w.role("a/near", Sender), await self.w.role("b/far", Sender)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.w.__aexit__(*error)


@pytest.fixture(params=[True, False], ids=["checked", "unchecked"])
def opened(world, request) -> Any:
    return Opened(world("a", "b", checked=request.param, worker="a/worker", workers="*/worker*"))


NEAR, FAR = rc.RoleId("a/near"), rc.RoleId("b/far")


def steps(messages: list[tuple[rc.RoleId, Chunk]]) -> list[tuple[str, int]]:
    return [(who, chunk.step) for who, chunk in messages]


# ---------------------------------------------------------------------------------------------- taking


async def test_messages_are_taken_oldest_first(opened) -> None:
    async with opened as o:
        await o.near.send(1, 2)
        await o.far.send(3)
        assert len(o.worker.chunks) == 3
        assert [(await o.worker.chunks.take()).step for _ in range(3)] == [1, 2, 3]
        assert len(o.worker.chunks) == 0


async def test_messages_are_taken_by_key_and_source(opened) -> None:
    async with opened as o:
        await o.near.send(1, 2)
        await o.far.send(2)
        chunks = o.worker.chunks
        assert await chunks.take(2, source=FAR) == Chunk(2)
        assert await chunks.take(2) == Chunk(2)
        assert await chunks.take(source=NEAR) == Chunk(1)


async def test_a_taker_waits_for_its_key(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        taken: list[Any] = []

        async def take(key: int) -> None:
            taken.append((await o.worker.chunks.take(key)).step)

        tasks.start_soon(take, 7)
        tasks.start_soon(take, 8)
        await settle()
        await o.near.send(1, 8)
        await settle()
        assert taken == [8]
        await o.far.send(7)
        await settle()
        assert taken == [8, 7]
        assert steps(o.worker.chunks.drain()) == [("a/near", 1)]


async def test_a_role_puts_into_its_own_inbox(opened) -> None:
    async with opened as o:
        await o.worker.plain.put(3)
        assert o.worker.plain.drain() == [("a/worker", 3)]


async def test_collect_gives_one_of_each_with_the_key(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        collected: list[dict[Any, Any]] = []

        async def collect() -> None:
            collected.append(await o.worker.chunks.collect([FAR, NEAR], key=5))

        await o.near.send(4, 5)
        tasks.start_soon(collect)
        await settle()
        assert not collected and len(o.worker.chunks) == 1
        await o.far.send(6, 5)
        await settle()
        assert list(collected[0]) == [FAR, NEAR] and set(collected[0].values()) == {Chunk(5)}
        assert steps(o.worker.chunks.drain()) == [("a/near", 4), ("b/far", 6)]


async def test_a_key_without_keys_is_a_mistake(opened) -> None:
    async with opened as o:
        with pytest.raises(rc.DeclarationError, match=r"Worker\.plain: its messages have no key.*key=lambda"):
            await o.worker.plain.take(3)
        with pytest.raises(rc.DeclarationError, match="have no key"):
            await o.worker.plain.collect([NEAR], key=3)


async def test_a_message_of_the_wrong_type_is_refused(opened) -> None:
    async with opened as o:
        with pytest.raises(rc.WrongType, match=r"a/worker\.chunks: message: expected Chunk, found int"):
            await o.near.worker.chunks.put(3)
        with pytest.raises(rc.WrongType):
            await o.near.workers.put(Worker.plain, "three")


async def test_only_its_owner_takes(opened) -> None:
    async with opened as o:
        chunks = o.near.worker.chunks
        for take in (chunks.take, chunks.drain, lambda: chunks.collect([]), lambda: len(chunks)):
            with pytest.raises(rc.NotAChannel, match=r"chunks\.\w+' is not a channel of a/worker"):
                await take()


# ---------------------------------------------------------------------------------------------- full


async def test_a_full_inbox_slows_its_senders(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        tasks.start_soon(o.near.send, 1, 2, 3, 4, 5, 6)
        await settle()
        assert len(o.worker.chunks) == 3
        assert [(await o.worker.chunks.take()).step for _ in range(6)] == [1, 2, 3, 4, 5, 6]


async def test_messages_that_wait_count_their_bytes(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:

        async def send() -> None:
            for letter in b"abcd":
                await o.near.worker.bulk.put(bytes([letter]) * 100)

        tasks.start_soon(send)
        await settle()
        assert len(o.worker.bulk) == 2
        assert [(await o.worker.bulk.take())[:1] for _ in range(4)] == [b"a", b"b", b"c", b"d"]
        await o.near.worker.bulk.put(bytes(1000))  # one that is too large for it, alone, is better than none


async def test_what_is_wanted_is_found_among_those_that_wait_at_their_sender(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        tasks.start_soon(o.near.send, 1, 1, 1, 2)
        await settle()
        assert await o.worker.chunks.take(2) == Chunk(2), "the full inbox holds only others"
        tasks.start_soon(o.far.send, 3)
        await settle()
        assert await o.worker.chunks.collect([NEAR, FAR]) == {NEAR: Chunk(1), FAR: Chunk(3)}


async def test_collect_of_more_than_there_is_room_for(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        await o.near.send(1, 1, 1)
        tasks.start_soon(o.far.send, 9)
        await settle()
        assert await o.worker.chunks.collect([FAR, NEAR]) == {FAR: Chunk(9), NEAR: Chunk(1)}


async def test_drain_takes_those_too_that_wait_at_their_sender(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        tasks.start_soon(o.near.send, 1, 2, 3, 4)
        tasks.start_soon(o.far.send, 5)
        await settle()
        assert steps(o.worker.chunks.drain()) == [
            ("a/near", 1),
            ("a/near", 2),
            ("a/near", 3),
            ("a/near", 4),
            ("b/far", 5),
        ]


async def test_a_put_that_is_cancelled_while_it_waits_is_not_delivered(opened, settle) -> None:
    async with opened as o:
        await o.near.send(1, 2, 3)
        with anyio.move_on_after(0.01) as scope:
            await o.near.send(4)
        assert scope.cancelled_caught
        assert [(await o.worker.chunks.take()).step for _ in range(3)] == [1, 2, 3]
        await o.near.send(5)
        await settle()
        assert steps(o.worker.chunks.drain()) == [("a/near", 5)]


async def test_puts_stay_in_order_when_one_of_them_is_cancelled(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        await o.near.send(1, 2, 3)
        impatient = asyncio.create_task(o.near.send(4))
        await settle()
        tasks.start_soon(o.near.send, 5, 6)
        await settle()
        impatient.cancel()
        await settle()
        assert [(await o.worker.chunks.take()).step for _ in range(5)] == [1, 2, 3, 5, 6]


async def test_a_put_that_waits_fails_with_the_end_of_its_receiver(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        await o.near.send(1, 2, 3)

        async def send(sender: Any) -> None:
            with pytest.raises(rc.RoleLost, match="a/worker was lost"):
                await sender.send(4)

        tasks.start_soon(send, o.near)
        tasks.start_soon(send, o.far)
        await settle()
        await o.w.instance("a/worker").stop()


async def test_a_put_to_a_role_that_is_gone_raises(opened) -> None:
    async with opened as o:
        await o.w.instance("a/worker").stop()
        with pytest.raises(rc.RoleLost, match="a/worker was lost"):
            await o.far.send(1)


# ---------------------------------------------------------------------------------------------- groups


async def test_a_group_gets_a_message_each(opened) -> None:
    async with opened as o:
        other = await o.w.role("b/worker2", Worker)
        await o.near.workers.put(Worker.plain, 3)
        assert (o.worker.plain.drain(), other.plain.drain()) == ([(NEAR, 3)], [(NEAR, 3)])


async def test_a_group_put_reaches_the_others_when_one_is_gone(opened) -> None:
    async with opened as o:
        other = await o.w.role("b/worker2", Worker)
        group = o.near.workers
        await o.w.instance("a/worker").stop()
        with pytest.raises(rc.RoleLost, match="a/worker was lost"):
            await group.put(Worker.plain, 3)
        assert other.plain.drain() == [(NEAR, 3)]


async def test_a_group_put_that_waits_outlives_the_end_of_one(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        other = await o.w.role("b/worker2", Worker)
        for _ in range(3):
            await o.near.workers.put(Worker.chunks, Chunk(1))

        async def put() -> None:
            with pytest.raises(rc.RoleLost, match="a/worker was lost"):
                await o.near.workers.put(Worker.chunks, Chunk(2))

        tasks.start_soon(put)
        await settle()
        await o.w.instance("a/worker").stop()
        await settle()
        assert [(await other.chunks.take()).step for _ in range(4)] == [1, 1, 1, 2]


async def test_a_group_put_that_is_cancelled_takes_back_what_was_not_admitted(opened, settle) -> None:
    async with opened as o:
        other = await o.w.role("b/worker2", Worker)
        await o.near.send(1, 1, 1)
        with anyio.move_on_after(0.01):
            await o.near.workers.put(Worker.chunks, Chunk(2))
        o.worker.chunks.drain()
        await settle()
        assert len(o.worker.chunks) == 0
        assert steps(other.chunks.drain()) == [("a/near", 2)]


# ---------------------------------------------------------------------------------------------- cancelled and lost


async def test_a_cancelled_take_loses_nothing(opened, settle) -> None:
    async with opened as o:
        impatient = asyncio.create_task(o.worker.chunks.take(2))
        patient = asyncio.create_task(o.worker.chunks.take())
        await settle()
        await o.near.send(2)
        impatient.cancel()
        assert await patient == Chunk(2)
        assert impatient.cancelled()


async def test_a_cancelled_collect_puts_back_what_it_had(opened) -> None:
    async with opened as o:
        await o.near.send(1, 2)
        with anyio.move_on_after(0.01):
            await o.worker.chunks.collect([NEAR, FAR])
        assert steps(o.worker.chunks.drain()) == [("a/near", 1), ("a/near", 2)]


async def test_waiting_for_a_role_that_ends_raises(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:

        async def expect_loss(wait: Any) -> None:
            with pytest.raises(rc.RoleLost, match="b/far was lost"):
                await wait

        tasks.start_soon(expect_loss, o.worker.chunks.take(source=FAR))
        tasks.start_soon(expect_loss, o.worker.chunks.collect([NEAR, FAR]))
        await settle()
        await o.near.send(1)
        o.w.nodes["b"].kill()
        await settle()
        assert steps(o.worker.chunks.drain()) == [("a/near", 1)]
        with pytest.raises(rc.NodeLost):
            await o.worker.chunks.take(source=FAR)


async def test_messages_of_a_role_that_has_ended_can_be_taken(opened) -> None:
    async with opened as o:
        await o.far.send(1, 2)
        await o.near.send(3)
        await o.w.instance("b/far").stop()
        assert await o.worker.chunks.take(source=FAR) == Chunk(1)
        assert await o.worker.chunks.collect([FAR, NEAR]) == {FAR: Chunk(2), NEAR: Chunk(3)}


async def test_a_source_that_never_was_may_still_come(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        taken: list[Chunk] = []

        async def take() -> None:
            taken.append(await o.worker.chunks.take(source=rc.RoleId("b/late")))

        tasks.start_soon(take)
        await settle()
        late = await o.w.role("b/late", Sender)
        await late.send(1)
        await settle()
        assert taken == [Chunk(1)]


@pytest.mark.parametrize("options", [{"capacity": 0}, {"capacity_bytes": 0}])
def test_an_inbox_without_room_is_refused(options: Any) -> None:
    with pytest.raises(rc.DeclarationError, match=r"rc\.Inbox\(int\): capacity and capacity_bytes"):
        rc.Inbox(int, **options)


@pytest.mark.virtual_time
@pytest.mark.parametrize("seed", range(12))
async def test_whatever_is_cancelled_nothing_is_lost_or_doubled(opened, seed) -> None:
    """Senders and takers that give up at any moment, takers of keys, of sources and of all: drawn from a seed."""
    rng = random.Random(seed)
    sent: list[tuple[str, int]] = []
    taken: list[tuple[str, int]] = []

    async def send(sender: Sender) -> None:
        for hop in range(40):
            await anyio.sleep(rng.random())
            chunk = Chunk(rng.randrange(3), hop, sender.id.encode())
            with anyio.move_on_after(rng.choice([0.1, 1, 100])):
                await sender.worker.chunks.put(chunk)
                sent.append((sender.id, hop))

    async def take(worker: Worker) -> None:
        for _ in range(60):
            await anyio.sleep(rng.random())
            with anyio.move_on_after(rng.choice([0.1, 1])):
                if rng.random() < 0.3:
                    found = list((await worker.chunks.collect([NEAR, FAR], key=rng.choice([None, 1]))).values())
                else:
                    found = [await worker.chunks.take(rng.choice([None, 0, 1, 2]), source=rng.choice([None, NEAR]))]
                taken.extend((chunk.body.decode(), chunk.hop) for chunk in found)

    async with opened as o:
        async with anyio.create_task_group() as tasks:
            for sender in (o.near, o.far, o.near):
                tasks.start_soon(send, sender)
            for _ in range(3):
                tasks.start_soon(take, o.worker)
            await anyio.sleep(100)
            taken.extend((chunk.body.decode(), chunk.hop) for _, chunk in o.worker.chunks.drain())
    assert sorted(taken) == sorted(sent)
