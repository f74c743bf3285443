# ruff: noqa: ASYNC100 -- the scopes are looked at, and nothing waits in them
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf

import anyio
import pytest

from rolecall.runtime.deadlines import effective_deadline

pytestmark = pytest.mark.every_loop


def both() -> tuple[float, float]:
    """Return what anyio says, and what we say."""
    return anyio.current_effective_deadline(), effective_deadline(asyncio.get_running_loop())


async def without_scope() -> float:
    assert both() == (inf, inf)
    return inf


async def nearest_of_all() -> float:
    with anyio.move_on_after(50) as outer, anyio.move_on_after(100), anyio.CancelScope():
        assert both() == (outer.deadline, outer.deadline)
    with anyio.move_on_after(100), anyio.move_on_after(50) as inner:
        assert both() == (inner.deadline, inner.deadline)
    return both()[1]


async def shielded() -> float:
    with anyio.move_on_after(50), anyio.CancelScope(shield=True) as shield:
        assert both() == (inf, inf)
        shield.deadline = anyio.current_time() + 100
        assert both() == (shield.deadline, shield.deadline)
    return both()[1]


async def cancelled() -> float:
    with anyio.move_on_after(50) as outer, anyio.CancelScope():
        outer.cancel()
        assert both() == (-inf, -inf)
        with anyio.CancelScope(shield=True):
            assert both() == (inf, inf)
    return both()[1]


@pytest.mark.parametrize("case", [without_scope, nearest_of_all, shielded, cancelled])
async def test_it_says_what_anyio_says(case: Callable[[], Awaitable[float]]) -> None:
    assert await case() == inf  # in a task that anyio does not know, at first
    assert await asyncio.ensure_future(case()) == inf


@pytest.mark.parametrize("case", [without_scope, nearest_of_all, shielded, cancelled])
async def test_it_says_so_in_the_tasks_of_a_group(case: Callable[[], Awaitable[float]]) -> None:
    ended: list[float] = []

    async def run() -> None:
        ended.append(await case())

    async with anyio.create_task_group() as group:
        group.start_soon(run)
    assert ended == [inf]


async def test_a_group_hands_its_deadline_on() -> None:
    found: list[tuple[float, float]] = []

    async def look() -> None:
        found.append(both())

    with anyio.move_on_after(50) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(look)
    assert found == [(scope.deadline, scope.deadline)]


async def test_outside_a_task_there_is_none() -> None:
    loop, found = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()
    loop.call_soon(lambda: found.set_result(effective_deadline(loop)))
    assert await found == inf
