"""The queue behind inboxes and subscriptions, against a plain list as its model."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import RoleLost
from rolecall.core.ids import RoleId
from rolecall.runtime.buffers import Buffer, admitted

SOURCES = [RoleId("a/x"), RoleId("a/y"), RoleId("a/z")]
sources = st.sampled_from(SOURCES)
keys = st.sampled_from([None, 0, 1])


def items_of(buffer: Buffer[Any]) -> list[Any]:
    return [item for _, item in buffer.drain()]


@given(
    st.integers(1, 5),
    st.lists(st.one_of(st.tuples(st.just("put"), sources, st.integers(0, 1)), st.tuples(st.just("take"), keys))),
)
def test_nothing_is_lost_doubled_or_reordered(capacity: int, steps: list[Any]) -> None:
    """Takes and puts in any order: what is taken is the oldest that fits, and all senders get in."""

    async def run() -> None:
        buffer: Buffer[Any] = Buffer(capacity, key=lambda item: item[1])
        model: list[tuple[RoleId, int, int]] = []
        waits = []
        for number, step in enumerate(steps):
            if step[0] == "put":
                item = (number, step[2])
                model.append((step[1], *item))
                waits.append(buffer.offer(step[1], item, 1))
            else:
                fitting = [entry for entry in model if step[1] is None or entry[2] == step[1]]
                if fitting:
                    model.remove(fitting[0])
                    assert await buffer.take(step[1]) == (fitting[0][0], fitting[0][1:])
            assert len(buffer) == min(capacity, len(model))
        assert buffer.drain() == [(source, (number, key)) for source, number, key in model]
        assert all(wait is None or wait.future.done() for wait in waits)

    asyncio.run(run())


@given(st.integers(1, 4), st.lists(sources, max_size=20))
def test_drop_oldest_is_a_ring(capacity: int, order: list[RoleId]) -> None:
    buffer: Buffer[int] = Buffer(capacity, "drop_oldest")
    assert [buffer.offer(source, number, 1) for number, source in enumerate(order)] == [None] * len(order)
    assert items_of(buffer) == list(range(len(order)))[-capacity:]


@given(st.lists(sources, max_size=20))
def test_latest_is_a_table_by_source(order: list[RoleId]) -> None:
    buffer: Buffer[int] = Buffer(64, "latest")
    for number, source in enumerate(order):
        buffer.offer(source, number, 1)
    assert items_of(buffer) == sorted({source: number for number, source in enumerate(order)}.values())


@pytest.mark.parametrize(("overflow", "kept"), [("drop_oldest", [2, 3]), ("latest", [3])])
async def test_what_a_cancelled_taker_gives_back_has_to_give_way_too(overflow: Any, kept: list[int]) -> None:
    buffer: Buffer[int] = Buffer(2, overflow)
    taker = asyncio.create_task(buffer.take())
    await asyncio.sleep(0)
    for number in (1, 2, 3):
        buffer.offer(SOURCES[0], number, 1)
    taker.cancel()
    await asyncio.wait([taker])
    assert items_of(buffer) == kept


async def test_bytes_bound_what_waits() -> None:
    buffer: Buffer[int] = Buffer(10, capacity_bytes=100)
    waits = [buffer.offer(SOURCES[0], number, size) for number, size in enumerate((60, 60, 10))]
    assert [wait is None for wait in waits] == [True, False, False], "a small one does not overtake"
    await buffer.take()
    assert [wait is None or wait.future.done() for wait in waits] == [True] * 3
    assert items_of(buffer) == [1, 2]


async def test_drop_oldest_makes_room_in_bytes() -> None:
    buffer: Buffer[int] = Buffer(10, "drop_oldest", capacity_bytes=100)
    for number, size in enumerate((40, 40, 90, 5)):
        buffer.offer(SOURCES[0], number, size)
    assert items_of(buffer) == [2, 3]


async def test_withdrawing_a_large_one_lets_a_small_one_in() -> None:
    buffer: Buffer[int] = Buffer(10, capacity_bytes=100)
    _, large, small = (buffer.offer(SOURCES[0], number, size) for number, size in enumerate((60, 60, 10)))
    assert large is not None and small is not None
    large.withdraw()
    large.withdraw()
    assert small.future.done()
    assert items_of(buffer) == [0, 2]


async def test_closing_fails_those_who_wait_for_room() -> None:
    buffer: Buffer[int] = Buffer(1)
    waits = [buffer.offer(SOURCES[0], number, 1) for number in range(3)]
    buffer.close(RoleLost("a/w", "it has stopped", "none"))
    with pytest.raises(RoleLost):
        await admitted([wait for wait in waits if wait is not None])
    for wait in waits[1:]:
        assert wait is not None and isinstance(wait.future.exception(), RoleLost)
