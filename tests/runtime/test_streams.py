"""Streams: order, back-pressure both ways, and their ends."""

from __future__ import annotations

import gc
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import anyio
import pytest

import rolecall as rc


class Source(rc.Role):
    def __init__(self) -> None:
        self.written: list[int] = []
        self.ended = 0

    @rc.stream(concurrent=4)
    async def items(self, count: int) -> AsyncIterator[int]:
        """Count, and note how far it got."""
        try:
            for number in range(count):
                self.written.append(number)
                yield number
        finally:
            self.ended += 1

    @rc.stream
    async def serial(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number

    @rc.stream
    async def failing(self, after: int) -> AsyncIterator[int]:
        for number in range(after):
            yield number
        raise rc.Refused("no more")

    @rc.stream
    async def broken(self) -> AsyncIterator[int]:
        yield 1
        raise ValueError("broken")

    @rc.stream
    async def slow(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            await anyio.sleep(1)
            yield number

    @rc.stream
    async def callers(self) -> AsyncIterator[str]:
        yield rc.caller()
        yield rc.caller()

    @rc.stream
    async def lists(self) -> AsyncIterator[list[int]]:
        items = [1]
        yield items
        yield items


class Reader(rc.Role):
    source: Source = rc.one()


async def opened(w: Any, home: str = "a") -> tuple[Source, Reader]:
    return await w.role(f"{home}/source", Source), await w.role("a/reader", Reader)


@pytest.mark.every_loop
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("count", [0, 1, 16, 17, 100])
async def test_items_arrive_whole_and_in_order(world, checked, count) -> None:
    async with world("a", "b", source="b/source", checked=checked) as w:
        source, reader = await opened(w, "b")
        assert [item async for item in reader.source.items(count)] == list(range(count))
        assert source.ended == 1


async def test_the_writer_is_never_more_than_its_window_ahead(world, settle) -> None:
    async with world() as w:
        source, reader = await opened(w)
        async with reader.source.items(1000) as items:
            assert source.written == []  # it starts with the first item asked for
            read = 0
            async for _ in items:
                read += 1
                await settle(5)
                assert read < len(source.written) <= read + 17
                if read == 100:
                    break
        assert source.ended == 1


async def test_closing_stops_the_writer_before_it_returns(world, settle) -> None:
    async with world() as w:
        source, reader = await opened(w)
        async with aclosing(reader.source.items(1000)) as items:
            assert await anext(items) == 0
        assert source.ended == 1
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        await items.aclose()


async def test_a_reader_closed_before_it_began_never_starts_the_writer(world, settle) -> None:
    async with world() as w:
        source, reader = await opened(w)
        items = reader.source.items(10)
        await items.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        await settle()
        assert source.written == []


async def test_losing_the_last_reference_stops_the_writer(world, settle) -> None:
    async with world() as w:
        source, reader = await opened(w)
        async for item in reader.source.items(1000):
            if item == 3:
                break
        await settle()
        assert source.ended == 1


async def test_closing_wakes_whoever_waits_for_the_next_item(world, settle) -> None:
    async with world() as w:
        _, reader = await opened(w)
        items = reader.source.slow(10)
        ends = []

        async def read() -> None:
            ends.append([item async for item in items])

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await settle()
            await items.aclose()
        assert ends == [[]]


async def test_the_end_of_the_reading_role_stops_the_writer(world, settle) -> None:
    async with world("a", "b", source="b/source") as w:
        source, reader = await opened(w, "b")
        items = reader.source.items(1000)
        assert await anext(items) == 0
        await w.instance("a/reader").stop()
        await settle()
        assert source.ended == 1
        await items.aclose()


# ------------------------------------------------------------------------------------------------- failures


async def test_an_error_comes_after_the_items_before_it(world) -> None:
    async with world() as w:
        _, reader = await opened(w)
        read = []
        items = reader.source.failing(20)
        with pytest.raises(rc.Refused, match="no more"):
            async for item in items:
                read.append(item)  # noqa: PERF401 - what came before the error counts
        assert read == list(range(20))
        with pytest.raises(StopAsyncIteration):
            await anext(items)
        assert w.letters == []


async def test_an_error_that_the_reader_did_not_stay_for_is_a_dead_letter(world, settle) -> None:
    async with world() as w:
        _, reader = await opened(w)
        items: Any = reader.source.broken()
        assert await anext(items) == 1
        await settle()
        await items.aclose()
        items = reader.source.broken()
        assert await anext(items) == 1
        await settle()
        del items
        gc.collect()
        assert [(x.kind, x.channel, x.reason) for x in w.letters] == [("stream", "broken", "ValueError: broken")] * 2


async def test_a_stream_of_a_role_that_ends_is_no_complete_stream(world, settle) -> None:
    async with world() as w:
        _, reader = await opened(w)
        items = reader.source.items(1000)
        assert await anext(items) == 0
        await w.instance("a/source").stop()
        with pytest.raises(rc.RoleLost, match="a/source was lost: it has stopped") as raised:
            async for _ in items:
                pass
        assert raised.value.effect == "unknown"


# ------------------------------------------------------------------------------------------------- deadlines


@pytest.mark.virtual_time
async def test_the_deadline_is_that_of_the_scope_around_the_call(world) -> None:
    async with world() as w:
        _, reader = await opened(w)
        items = reader.source.slow(5)
        with anyio.move_on_after(1.5) as scope:
            first = await anext(items)
        assert not scope.cancelled_caught
        assert [first, *[item async for item in items]] == [0, 1, 2, 3, 4]


@pytest.mark.virtual_time
async def test_a_stream_cut_by_its_deadline_is_no_complete_stream(world) -> None:
    async with world() as w:
        _, reader = await opened(w)
        with anyio.move_on_after(2.5):  # noqa: ASYNC100 - it is the stream's, wherever that is read
            items = reader.source.slow(5)
        read = []
        with pytest.raises(rc.DeadlineExceeded, match=r"a/source\.slow did not answer before the deadline"):
            async for item in items:
                read.append(item)  # noqa: PERF401 - as above
        assert read == [0, 1]
        assert len(w.lines) == 1


@pytest.mark.virtual_time
async def test_reading_under_a_deadline_ends_with_the_scope(world) -> None:
    async with world() as w:
        _, reader = await opened(w)
        read = []
        with anyio.move_on_after(2.5) as scope:
            async for item in reader.source.slow(5):
                read.append(item)  # noqa: PERF401 - as above
        assert scope.cancelled_caught
        assert read == [0, 1]


# ------------------------------------------------------------------------------------------------- the rest


async def test_a_serial_stream_is_written_one_at_a_time(world, settle) -> None:
    async with world() as w:
        _, reader = await opened(w)
        first, second = reader.source.serial(100), reader.source.serial(100)
        assert await anext(first) == 0
        waiting: list[int] = []

        async def read() -> None:
            waiting.append(await anext(second))

        async with anyio.create_task_group() as group:
            group.start_soon(read)
            await settle()
            assert waiting == []
            await first.aclose()
        assert waiting == [0]
        await second.aclose()


async def test_the_writer_knows_its_caller(world) -> None:
    async with world() as w:
        _, reader = await opened(w)
        assert [who async for who in reader.source.callers()] == ["a/reader", "a/reader"]


async def test_wrong_arguments_are_found_when_the_stream_is_opened(world) -> None:
    async with world() as w:
        _, reader = await opened(w)
        with pytest.raises(rc.WrongArgument, match="'count' is str, not int"):
            await anext(reader.source.items("x"))


async def test_items_do_not_share_memory_with_the_writer(world) -> None:
    async with world() as w:
        _, reader = await opened(w)
        first, second = [item async for item in reader.source.lists()]
        assert first == second == [1]
        assert first is not second


def test_a_stream_must_yield() -> None:
    with pytest.raises(rc.DeclarationError, match="must be an `async def` that yields its items"):

        @rc.stream
        async def nothing(self) -> int:
            return 1
