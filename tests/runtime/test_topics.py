from __future__ import annotations

import random
from typing import Any

import anyio
import msgspec
import pytest

import rolecall as rc


class Report(msgspec.Struct, frozen=True):
    number: int
    loss: float | None = None


class Source(rc.Role):
    done = rc.Topic(Report)
    ratio = rc.Topic(float)

    async def burst(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            await self.done.emit(Report(number))


class Gate(rc.Role):
    """A subscriber whose handler waits for a permit."""

    sources: rc.Group[Source] = rc.many()

    def __init__(self, open: bool = True) -> None:
        self.heard: list[tuple[str, int]] = []
        self.permit = anyio.Event()
        if open:
            self.permit.set()

    async def hear(self, source: rc.RoleId, report: Report) -> None:
        assert rc.caller() == source
        await self.permit.wait()
        self.heard.append((source, report.number))

    @property
    def numbers(self) -> list[int]:
        return [number for _, number in self.heard]


class Waiting(Gate):
    @Gate.sources.on(Source.done, capacity=2)
    async def on_done(self, source: rc.RoleId, report: Report) -> None:
        await self.hear(source, report)


class Dropping(Gate):
    @Gate.sources.on(Source.done, capacity=2, overflow="drop_oldest")
    async def on_done(self, source: rc.RoleId, report: Report) -> None:
        await self.hear(source, report)


class Newest(Gate):
    @Gate.sources.on(Source.done, overflow="latest")
    async def on_done(self, source: rc.RoleId, report: Report) -> None:
        await self.hear(source, report)


# ---------------------------------------------------------------------------------------------- delivery


@pytest.mark.parametrize("checked", [True, False])
async def test_events_arrive_in_the_order_of_their_source(world, settle, checked) -> None:
    async with world("a", "b", checked=checked, sources="*/s*") as w:
        first, second = await w.role("a/s1", Source), await w.role("b/s2", Source)
        gate = await w.role("a/gate", Waiting)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.burst, 30)
            tasks.start_soon(second.burst, 30)
        await settle()
        for source in ("a/s1", "b/s2"):
            assert [number for who, number in gate.heard if who == source] == list(range(30))


async def test_emit_without_subscribers_returns_at_once(world) -> None:
    async with world() as w:
        await (await w.role("a/s", Source)).burst(1000)


async def test_an_event_of_the_wrong_type_is_refused_at_the_source(world) -> None:
    async with world() as w:
        source: Any = await w.role("a/s", Source)
        with pytest.raises(rc.WrongType, match=r"a/s\.done: event: expected Report, found int"):
            await source.done.emit(3)
        await source.ratio.emit(1)


async def test_only_its_owner_emits(world) -> None:
    class Meddler(rc.Role):
        source: Source = rc.one()

    async with world(source="a/s") as w:
        await w.role("a/s", Source)
        meddler = await w.role("a/m", Meddler)
        with pytest.raises(rc.NotAChannel, match=r"done\.emit"):
            await meddler.source.done.emit(Report(1))


# ---------------------------------------------------------------------------------------------- slow subscribers


async def test_a_slow_subscriber_does_not_stall_another(world, settle) -> None:
    async with world(sources="a/s") as w:
        source = await w.role("a/s", Source)
        slow = await w.role("a/slow", Waiting, open=False)
        quick = await w.role("a/quick", Waiting)
        async with anyio.create_task_group() as tasks:
            for number in range(6):  # each emit of a task of its own, as of concurrent handlers
                tasks.start_soon(source.burst, 1, number)
            await settle()
            assert quick.numbers == [0, 1, 2, 3, 4, 5] and slow.numbers == []
            slow.permit.set()
        await settle()
        assert slow.numbers == [0, 1, 2, 3, 4, 5]


async def test_emit_waits_for_room_and_goes_on_when_there_is_some(world, settle) -> None:
    async with world(sources="a/s") as w:
        source = await w.role("a/s", Source)
        slow = await w.role("a/slow", Waiting, open=False)
        emitted = []

        async def emit() -> None:
            for number in range(8):
                await source.done.emit(Report(number))
                emitted.append(number)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(emit)
            await settle()
            assert emitted == [0, 1, 2], "one is handled, two wait, the next waits at its source"
            slow.permit.set()
        await settle()
        assert slow.numbers == list(range(8))


@pytest.mark.parametrize("end", ["stop", "fail", "lose"])
async def test_a_subscriber_that_ends_lets_the_emitter_go(world, settle, end) -> None:
    async with world("a", "b", sources="a/s") as w:
        source = await w.role("a/s", Source)
        await w.role("b/slow", Waiting, open=False)
        quick = await w.role("a/quick", Waiting)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(source.burst, 6)
            await settle()
            if end == "stop":
                await w.instance("b/slow").stop()
            elif end == "fail":
                await w.instance("b/slow").fail("it broke")
            else:
                w.nodes["b"].kill()
        await settle()
        assert quick.numbers == list(range(6))


async def test_an_emit_that_is_cancelled_takes_back_what_had_no_room(world, settle) -> None:
    async with world(sources="a/s") as w:
        source = await w.role("a/s", Source)
        slow = await w.role("a/slow", Waiting, open=False)
        quick = await w.role("a/quick", Waiting)
        await source.burst(3)
        with anyio.move_on_after(0.01):
            await source.done.emit(Report(3))
        slow.permit.set()
        await settle()
        await source.burst(1, 4)
        await settle()
        assert slow.numbers == [0, 1, 2, 4]
        assert quick.numbers == [0, 1, 2, 3, 4]


async def test_drop_oldest_keeps_the_newest_and_never_waits(world, settle) -> None:
    async with world(sources="a/s") as w:
        source = await w.role("a/s", Source)
        gate = await w.role("a/gate", Dropping, open=False)
        await source.burst(1)
        await settle()
        await source.burst(9, 1)
        gate.permit.set()
        await settle()
        assert gate.numbers == [0, 8, 9]
        assert w.letters == [], "its subscriber asked for it"


async def test_latest_keeps_the_newest_of_each_source(world, settle) -> None:
    async with world(sources="a/s*") as w:
        first, second = await w.role("a/s1", Source), await w.role("a/s2", Source)
        gate = await w.role("a/gate", Newest, open=False)
        await first.burst(1)
        await settle()
        await first.burst(5, 1)
        await second.burst(5, 10)
        await first.burst(1, 6)
        gate.permit.set()
        await settle()
        assert gate.heard == [("a/s1", 0), ("a/s2", 14), ("a/s1", 6)]
        assert w.letters == []


async def test_events_that_wait_count_their_bytes(world, settle) -> None:
    class Bulk(rc.Role):
        blobs = rc.Topic(bytes)

    class Slow(rc.Role):
        sources: rc.Group[Bulk] = rc.many()

        def __init__(self) -> None:
            self.permit, self.heard = anyio.Event(), 0

        @sources.on(Bulk.blobs)
        async def on_blob(self, source: rc.RoleId, blob: bytes) -> None:
            await self.permit.wait()
            self.heard += 1

    async with world(checked=False, sources="a/s") as w:
        source, slow = await w.role("a/s", Bulk), await w.role("a/slow", Slow)
        blob, emitted = bytes(100 * 2**20), []

        async def emit() -> None:
            for number in range(5):
                await source.blobs.emit(blob)
                emitted.append(number)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(emit)
            await settle()
            assert emitted == [0, 1, 2], "256 MiB may wait: two of 100 MiB beside the one that is handled"
            slow.permit.set()
        await settle()
        assert slow.heard == 5


async def test_a_handler_that_raises_hears_the_next_event(world, settle) -> None:
    class Clumsy(rc.Role):
        sources: rc.Group[Source] = rc.many()

        def __init__(self) -> None:
            self.heard: list[int] = []

        @sources.on(Source.done)
        async def on_done(self, source: rc.RoleId, report: Report) -> None:
            self.heard.append(report.number)
            raise ValueError("not this one")

    async with world(sources="a/s") as w:
        source, clumsy = await w.role("a/s", Source), await w.role("a/clumsy", Clumsy)
        await source.burst(2)
        await settle()
        assert clumsy.heard == [0, 1]
        assert [(letter.kind, letter.role) for letter in w.letters] == [("event", "a/clumsy")] * 2
        assert "not this one" in w.letters[0].reason


# ---------------------------------------------------------------------------------------------- conditions


class Choosy(rc.Role):
    sources: rc.Group[Source] = rc.many()

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.late: list[int] = []
        self.good: list[int] = []

    @sources.on(Source.done, where={"number__ge": rc.attribute("start"), "number__in": (1, 2, 5, 7)})
    async def on_late(self, source: rc.RoleId, report: Report) -> None:
        self.late.append(report.number)

    @sources.on(Source.done, where={"loss__lt": 0.1})
    async def on_good(self, source: rc.RoleId, report: Report) -> None:
        self.good.append(report.number)


async def test_conditions_are_checked_at_the_source(world, settle) -> None:
    async with world(sources="a/s") as w:
        source, choosy = await w.role("a/s", Source), await w.role("a/choosy", Choosy, start=2)
        for number in range(8):
            await source.done.emit(Report(number, number / 50))
        await settle()
        assert choosy.late == [2, 5, 7]
        assert choosy.good == [0, 1, 2, 3, 4]


async def test_a_condition_that_cannot_be_checked_is_no_error_of_the_emitter(world, settle) -> None:
    async with world(sources="a/s") as w:
        source, choosy = await w.role("a/s", Source), await w.role("a/choosy", Choosy)
        await source.done.emit(Report(1, None))
        await source.done.emit(Report(2, 0.0))
        await settle()
        assert choosy.late == [1, 2] and choosy.good == [2]
        [letter] = w.letters
        assert (letter.role, letter.channel) == ("a/s", "done")
        assert "the condition of a/choosy.on_good failed: TypeError" in letter.reason


async def test_a_subclass_may_override_a_handler_and_it_stays_one(world, settle) -> None:
    class Sub(Choosy):
        async def on_late(self, source: rc.RoleId, report: Report) -> None:
            self.late.append(-report.number)

    async with world(sources="a/s") as w:
        source, sub = await w.role("a/s", Source), await w.role("a/sub", Sub)
        await source.done.emit(Report(1))
        await settle()
        assert sub.late == [-1]


# ---------------------------------------------------------------------------------------------- coming and going


async def test_sources_come_and_go_while_events_flow(world, settle) -> None:
    async with world("a", "b", sources="b/s*") as w:
        gate = await w.role("a/gate", Waiting)
        first = await w.role("b/s1", Source)
        await first.burst(3)
        second = await w.role("b/s2", Source)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(first.burst, 5, 3)
            tasks.start_soon(second.burst, 5)
            await settle(2)
            await w.instance("b/s1").stop()
        await settle()
        assert [number for who, number in gate.heard if who == "b/s2"] == [0, 1, 2, 3, 4]
        heard = [number for who, number in gate.heard if who == "b/s1"]
        assert heard[:3] == [0, 1, 2] and heard == sorted(set(heard))
        again = await w.role("b/s1", Source)
        await again.burst(1, 100)
        await settle()
        assert gate.heard[-1] == ("b/s1", 100)


async def test_subscribers_come_and_go_while_events_flow(world, settle) -> None:
    async with world("a", "b", sources="a/s") as w:
        source = await w.role("a/s", Source)

        async def flow() -> None:
            for number in range(200):
                await source.done.emit(Report(number))
                await settle(1)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(flow)
            early = await w.role("b/early", Waiting)
            await settle(10)
            await w.instance("b/early").stop()
            late = await w.role("b/late", Waiting)
        await settle()
        for gate in (early, late):
            assert gate.numbers == list(range(gate.numbers[0], gate.numbers[-1] + 1)), "none missed in between"
        assert early.numbers[-1] < late.numbers[0] and late.numbers[-1] == 199
        assert all(letter.kind == "event" for letter in w.letters)


async def test_a_member_without_the_topic_does_not_hurt_those_who_have_it(world, settle) -> None:
    class Other(rc.Role):
        """Has no topics."""

    async with world(sources="a/s*") as w:
        gate = await w.role("a/gate", Waiting)
        await w.role("a/s0", Other)
        source = await w.role("a/s1", Source)
        await source.burst(1)
        await settle()
        assert gate.heard == [("a/s1", 0)]
        [letter] = w.letters
        assert letter.kind == "subscription" and "'done' is not a channel of a/s0" in letter.reason


async def test_a_member_without_the_topic_is_an_error_at_the_start(world) -> None:
    async with world(sources="a/*") as w:
        await w.role("a/other", Gate)
        with pytest.raises(rc.NotAChannel, match="'done' is not a channel of a/"):
            await w.role("a/waiting", Waiting)


async def test_events_of_the_start_wait_for_their_subscriber(world, settle) -> None:
    class Slow(Waiting):
        async def setup(self) -> None:
            await self.permit.wait()

    async with world(sources="a/s") as w:
        source = await w.role("a/s", Source)
        instance = w.hosted("a/slow", Slow, open=False)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(instance.start)
            await settle()
            await source.burst(2)
            assert instance.role.heard == []
            instance.role.permit.set()
        await settle()
        assert instance.role.numbers == [0, 1]


@pytest.mark.virtual_time
@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_the_order_of_a_source_holds_and_who_waits_misses_nothing(world, seed) -> None:
    """Emitters that give up, slow handlers, subscribers that come and go: all drawn from a seed."""
    rng = random.Random(seed)
    given_up: dict[str, set[int]] = {"a/s1": set(), "b/s2": set()}
    gates: list[Gate] = []

    class Uneven(Waiting):
        async def hear(self, source: rc.RoleId, report: Report) -> None:
            await anyio.sleep(rng.random())
            self.heard.append((source, report.number))

    async def emit(source: Source) -> None:
        for number in range(60):
            with anyio.move_on_after(rng.choice([0.2, 5, 50])):
                await source.done.emit(Report(number))
                await anyio.sleep(rng.random() / 2)
                continue
            given_up[source.id].add(number)

    async def come_and_go(w: Any, name: str) -> None:
        for _ in range(4):
            await anyio.sleep(3 * rng.random())
            gates.append(await w.role(name, rng.choice([Uneven, Dropping, Newest])))
            await anyio.sleep(9 * rng.random())
            await w.instance(name).stop()

    async with world("a", "b", sources="*/s*") as w:
        sources = [await w.role("a/s1", Source), await w.role("b/s2", Source)]
        loyal = await w.role("a/loyal", Uneven)
        async with anyio.create_task_group() as tasks:
            for source in sources:
                tasks.start_soon(emit, source)
            tasks.start_soon(come_and_go, w, "a/guest")
            tasks.start_soon(come_and_go, w, "b/guest")
        await anyio.sleep(50)
    for gate in [loyal, *gates]:
        for source in given_up:
            numbers = [number for who, number in gate.heard if who == source]
            assert numbers == sorted(set(numbers)), "in order, none twice"
            if isinstance(gate, Uneven) and numbers:
                expected = set(range(numbers[0], numbers[-1] + 1))
                assert expected - set(numbers) <= given_up[source], "missed what nobody took back"
    assert len(loyal.heard) >= 120 - sum(map(len, given_up.values()))
