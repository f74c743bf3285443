from __future__ import annotations

import asyncio
from typing import Any

import anyio
import msgspec
import pytest

import rolecall as rc


class Report(msgspec.Struct, frozen=True):
    number: int


class Source(rc.Role):
    done = rc.Topic(Report)

    async def burst(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            await self.done.emit(Report(number))


class Reader(rc.Role):
    sources: rc.Group[Source] = rc.many()
    first: Source = rc.one()


class Opened:
    """Two sources on two nodes and a reader."""

    def __init__(self, w: Any) -> None:
        self.w = w

    async def __aenter__(self) -> Opened:
        await self.w.__aenter__()
        self.one, self.two = await self.w.role("a/s1", Source), await self.w.role("b/s2", Source)
        self.reader = await self.w.role("a/reader", Reader)
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.w.__aexit__(*error)


@pytest.fixture(params=[True, False], ids=["checked", "unchecked"])
def opened(world, request) -> Any:
    return Opened(world("a", "b", checked=request.param, sources="*/s*", first="a/s1"))


def numbers(events: list[tuple[rc.RoleId, Report]]) -> list[tuple[str, int]]:
    return [(who, report.number) for who, report in events]


# ---------------------------------------------------------------------------------------------- taking


async def test_events_wait_until_they_are_taken(opened) -> None:
    async with opened as o, o.reader.sources.subscribe(Source.done) as events:
        await o.one.burst(2)
        await o.two.burst(1, 10)
        assert len(events) == 3
        assert numbers([await events.take(), await events.take(source=rc.RoleId("b/s2"))]) == [
            ("a/s1", 0),
            ("b/s2", 10),
        ]
        assert numbers(events.drain()) == [("a/s1", 1)]
        assert len(events) == 0 and events.drain() == []


async def test_take_waits_for_an_event(opened, settle) -> None:
    taken = []

    async def take(events: Any, source: str | None) -> None:
        taken.append(await events.take(source=source))

    async with opened as o, o.reader.sources.subscribe(Source.done) as events, anyio.create_task_group() as tasks:
        tasks.start_soon(take, events, "b/s2")
        await settle()
        tasks.start_soon(take, events, None)
        await settle()
        await o.one.burst(1)
        await settle()
        assert numbers(taken) == [("a/s1", 0)]
        await o.two.burst(1)
        await settle()
        assert numbers(taken) == [("a/s1", 0), ("b/s2", 0)]


async def test_collect_gives_one_of_each_in_the_order_asked(opened, settle) -> None:
    async with opened as o, o.reader.sources.subscribe(Source.done) as events:
        await o.one.burst(2)
        collected: list[Any] = []

        async def collect() -> None:
            collected.append(await events.collect([rc.RoleId("b/s2"), rc.RoleId("a/s1")]))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(collect)
            await settle()
            assert collected == []
            await o.two.burst(1)
        assert list(collected[0].items()) == [("b/s2", Report(0)), ("a/s1", Report(0))]
        assert numbers(events.drain()) == [("a/s1", 1)]


async def test_collect_takes_a_group(opened) -> None:
    async with opened as o, o.reader.sources.subscribe(Source.done) as events:
        await o.two.burst(1)
        await o.one.burst(1)
        assert list(await events.collect(o.reader.sources)) == ["a/s1", "b/s2"]


async def test_conditions_hold_for_what_is_taken(opened) -> None:
    async with opened as o, o.reader.first.done.subscribe(where={"number__ge": 2}) as events:
        await o.one.burst(4)
        assert numbers(events.drain()) == [("a/s1", 2), ("a/s1", 3)]


async def test_a_role_may_read_its_own_topic(opened) -> None:
    async with opened as o, o.one.done.subscribe() as events:
        await o.one.burst(1)
        assert numbers([await events.take()]) == [("a/s1", 0)]


# ---------------------------------------------------------------------------------------------- full queues


async def test_a_full_subscription_holds_its_emitter(opened, settle) -> None:
    async with opened as o, o.reader.first.done.subscribe(capacity=2) as events, anyio.create_task_group() as tasks:
        tasks.start_soon(o.one.burst, 5)
        await settle()
        assert len(events) == 2
        assert [report.number for _, report in [await events.take() for _ in range(5)]] == [0, 1, 2, 3, 4]


async def test_leaving_lets_the_emitter_go(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        async with o.reader.first.done.subscribe(capacity=1):
            tasks.start_soon(o.one.burst, 5)
            await settle()


async def test_the_end_of_the_reader_lets_the_emitter_go(opened, settle) -> None:
    async with opened as o, anyio.create_task_group() as tasks:
        subscription = o.reader.first.done.subscribe(capacity=1)
        await subscription.__aenter__()
        tasks.start_soon(o.one.burst, 5)
        await settle()
        await o.w.instance("a/reader").stop()


async def test_a_full_subscription_may_be_drained_with_what_waits_at_the_source(opened, settle) -> None:
    async with opened as o, o.reader.first.done.subscribe(capacity=2) as events, anyio.create_task_group() as tasks:
        for number in range(4):
            tasks.start_soon(o.one.burst, 1, number)
        await settle()
        assert numbers(events.drain()) == [("a/s1", number) for number in range(4)]


async def test_drop_oldest_and_latest(opened) -> None:
    async with opened as o:
        group = o.reader.sources
        async with (
            group.subscribe(Source.done, capacity=2, overflow="drop_oldest") as newest_two,
            group.subscribe(Source.done, overflow="latest") as latest,
        ):
            await o.one.burst(3)
            await o.two.burst(3)
            assert numbers(newest_two.drain()) == [("b/s2", 1), ("b/s2", 2)]
            assert numbers(latest.drain()) == [("a/s1", 2), ("b/s2", 2)]


@pytest.mark.parametrize("options", [{"overflow": "fail"}, {"overflow": "never"}, {"capacity": 0}])
async def test_a_queue_that_makes_no_sense_is_refused(opened, options) -> None:
    async with opened as o:
        with pytest.raises(rc.DeclarationError, match=r"a/reader: subscription to done: (overflow|capacity)="):
            o.reader.first.done.subscribe(**options)


async def test_an_unknown_field_is_refused(opened) -> None:
    async with opened as o:
        with pytest.raises(
            rc.DeclarationError, match=r"'nunber': Report has no field 'nunber'\. Did you mean 'number'\?"
        ):
            o.reader.first.done.subscribe(where={"nunber": 3})


# ---------------------------------------------------------------------------------------------- cancelled


async def test_a_cancelled_take_loses_nothing(opened) -> None:
    async with opened as o, o.reader.first.done.subscribe() as events:
        with anyio.move_on_after(0.01):
            await events.take()
        await o.one.burst(1)
        assert numbers(events.drain()) == [("a/s1", 0)]


async def test_a_take_cancelled_as_its_event_comes_gives_it_to_the_next(opened, settle) -> None:
    async with opened as o, o.reader.first.done.subscribe() as events:
        impatient, patient = asyncio.create_task(events.take()), asyncio.create_task(events.take())
        await settle()
        await o.one.burst(1)
        impatient.cancel()
        assert (await patient)[1] == Report(0)
        assert impatient.cancelled()


async def test_a_take_cancelled_as_its_event_comes_leaves_it_there(opened, settle) -> None:
    async with opened as o, o.reader.first.done.subscribe() as events:
        impatient = asyncio.create_task(events.take())
        await settle()
        await o.one.burst(2)
        impatient.cancel()
        await settle()
        assert numbers(events.drain()) == [("a/s1", 0), ("a/s1", 1)]


async def test_a_cancelled_collect_puts_back_what_it_had(opened) -> None:
    async with opened as o, o.reader.sources.subscribe(Source.done) as events:
        await o.one.burst(2)
        with anyio.move_on_after(0.01):
            await events.collect(o.reader.sources)
        assert numbers(events.drain()) == [("a/s1", 0), ("a/s1", 1)]


# ---------------------------------------------------------------------------------------------- lost sources


async def test_collect_with_a_lost_source_raises(opened, settle) -> None:
    async with opened as o, o.reader.sources.subscribe(Source.done) as events:
        await o.one.burst(1)
        group = o.reader.sources
        async with anyio.create_task_group() as tasks:

            async def collect() -> None:
                with pytest.raises(rc.RoleLost, match="b/s2 was lost"):
                    await events.collect(group)

            tasks.start_soon(collect)
            await settle()
            await o.w.instance("b/s2").stop()
        with pytest.raises(rc.RoleLost, match="b/s2 was lost"):
            await events.collect(group)
        assert numbers(events.drain()) == [("a/s1", 0)], "what had come is still there"


async def test_an_event_of_a_source_that_has_ended_can_be_taken(opened) -> None:
    async with opened as o, o.reader.sources.subscribe(Source.done) as events:
        group = o.reader.sources
        await o.one.burst(1)
        await o.two.burst(1)
        await o.w.instance("b/s2").stop()
        assert list(await events.collect(group)) == ["a/s1", "b/s2"]
        with pytest.raises(rc.RoleLost):
            await events.take(source=rc.RoleId("b/s2"))


async def test_a_source_that_comes_back_is_another_to_a_subscription(opened) -> None:
    async with opened as o, o.reader.sources.subscribe(Source.done) as events:
        await o.w.instance("b/s2").stop()
        await (await o.w.role("b/s2", Source)).burst(1)
        with pytest.raises(rc.RoleLost):
            await events.collect(["b/s2"])


async def test_iteration_ends_with_the_last_source(opened, settle) -> None:
    seen = []

    async def read(events: Any) -> None:
        async for source, report in events:
            seen.append((source, report.number))

    async with opened as o, o.reader.sources.subscribe(Source.done) as events, anyio.create_task_group() as tasks:
        tasks.start_soon(read, events)
        await o.one.burst(1)
        await o.w.instance("a/s1").stop()
        await settle()
        await o.two.burst(2)
        o.w.nodes["b"].kill()
    assert seen == [("a/s1", 0), ("b/s2", 0), ("b/s2", 1)]


async def test_take_with_no_source_left_raises(opened) -> None:
    async with opened as o, o.reader.first.done.subscribe() as events:
        await o.w.instance("a/s1").stop()
        with pytest.raises(rc.RoleLost):
            await events.take()


async def test_a_source_that_is_none_of_the_group_is_a_mistake(opened) -> None:
    async with opened as o, o.reader.first.done.subscribe() as events:
        with pytest.raises(rc.LifecycleError, match="b/s2 is none of its sources"):
            await events.take(source=rc.RoleId("b/s2"))


async def test_a_subscription_must_be_entered(opened) -> None:
    async with opened as o:
        events = o.reader.first.done.subscribe()
        with pytest.raises(rc.LifecycleError, match="Use it inside `async with`"):
            await events.take()
        async with events:
            await o.one.burst(1)
        assert numbers([await events.take()]) == [("a/s1", 0)], "what came while it was"
        with pytest.raises(rc.LifecycleError):
            await events.take()


async def test_subscribing_to_a_role_that_is_gone_raises_and_leaves_nothing(opened) -> None:
    async with opened as o:
        group = o.reader.sources
        await o.w.instance("b/s2").stop()
        with pytest.raises(rc.RoleLost):
            async with group.subscribe(Source.done, capacity=1):
                pass
        await o.one.burst(3)
