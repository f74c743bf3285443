"""Where work is done: in worker threads, or where the engine says."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.runtime.computing import Threads
from rolecall.runtime.elements import ElementSource
from rolecall.runtime.instance import Hosting
from rolecall.runtime.node import Node, NodeOptions


class Weights:
    def __init__(self) -> None:
        self.made_in = threading.get_ident()


class Trainer(rc.Role):
    weights: Weights = rc.element()

    @rc.service
    async def train(self, cost: float | None = None) -> int:
        return await self.compute(threading.get_ident, cost=cost)


class Inline:
    """Does everything at once, on the event loop, and remembers what it was."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, float | None]] = []
        self.loaded: list[str] = []

    async def run(
        self, role: rc.RoleId, function: Callable[..., Any], args: tuple[Any, ...], cost: float | None
    ) -> Any:
        self.ran.append((role, cost))
        return function(*args)

    async def load(self, role: rc.RoleId, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        self.loaded.append(role)
        return function(*args)

    async def save(self, role: rc.RoleId, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        raise AssertionError("nothing here is configured to be saved")


def hosting() -> Hosting:
    source = ElementSource(make=Weights)
    return Hosting(id=rc.RoleId("a/trainer"), role_class=Trainer, elements={"weights": source})


async def test_an_engine_may_say_where_work_is_done() -> None:
    inline = Inline()
    async with Node("a", computing=inline) as node:
        node.configure(NodeOptions(compute_threads=1))  # as a deployment does
        instance = node.host(hosting())
        await instance.start()
        assert instance.role.weights.made_in == threading.get_ident()
        assert await instance.role.train(3.0) == threading.get_ident()
        assert await instance.role.train() == threading.get_ident()
    assert inline.ran == [("a/trainer", 3.0), ("a/trainer", None)]
    assert inline.loaded == ["a/trainer"]


async def test_otherwise_in_worker_threads() -> None:
    async with Node("a") as node:
        instance = node.host(hosting())
        await instance.start()
        assert instance.role.weights.made_in != threading.get_ident()
        assert await instance.role.train() != threading.get_ident()


async def test_no_more_threads_than_were_given() -> None:
    threads, begun, go_on = Threads(1), threading.Event(), threading.Event()

    def first() -> None:
        begun.set()
        go_on.wait(20)

    order: list[str] = []

    async def run(name: str, function: Callable[[], Any]) -> None:
        await threads.run(rc.RoleId("a/trainer"), function, (), None)
        order.append(name)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, "first", first)
        await anyio.to_thread.run_sync(begun.wait, 20)
        tasks.start_soon(run, "second", int)
        await anyio.wait_all_tasks_blocked()
        await threads.save(rc.RoleId("a/trainer"), order.append, ("saved",))  # does not wait for a free one
        go_on.set()
    assert order == ["saved", "first", "second"]


async def test_errors_are_those_of_the_function() -> None:
    with pytest.raises(ZeroDivisionError):
        await Threads(1).run(rc.RoleId("a/trainer"), divmod, (1, 0), None)
