"""Something that happens once."""

from __future__ import annotations

import asyncio

import anyio
import anyio.lowlevel

from rolecall.runtime.signals import Signal


async def test_all_who_wait_are_let_go() -> None:
    signal, through = Signal(), list[int]()

    async def wait(number: int) -> None:
        await signal.wait()
        through.append(number)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(wait, number)
        await anyio.wait_all_tasks_blocked()
        assert not signal.is_set() and through == []
        signal.set()
        signal.set()  # it has happened already
    assert signal.is_set()
    assert through == [0, 1, 2]


async def test_who_comes_later_does_not_wait_but_others_get_a_turn() -> None:
    signal, turns = Signal(), list[str]()
    signal.set()
    other = asyncio.create_task(anyio.lowlevel.checkpoint())
    other.add_done_callback(lambda _: turns.append("other"))
    for _ in range(3):
        await signal.wait()
    assert turns == ["other"]


async def test_who_gives_up_leaves_nothing_behind() -> None:
    signal = Signal()
    with anyio.move_on_after(0):
        await signal.wait()
    task = asyncio.create_task(signal.wait())
    await anyio.wait_all_tasks_blocked()
    signal.set()
    task.cancel()  # too late: it has been let go
    await asyncio.wait([task])
    assert signal.is_set()
