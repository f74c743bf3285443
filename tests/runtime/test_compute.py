"""Work in threads: results, errors, how many at once, and whose call it serves."""

from __future__ import annotations

import threading
from typing import Any

import anyio
import pytest

import rolecall as rc


class Worker(rc.Role):
    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.meeting = threading.Barrier(2, timeout=10)

    @rc.service
    async def thread(self) -> bool:
        return await self.compute(threading.get_ident) == threading.get_ident()

    @rc.service
    async def add(self, left: int, right: int) -> int:
        return await self.compute(lambda a, b: a + b, left, right, cost=2.0)

    @rc.service
    async def fail(self) -> None:
        await self.compute(self._fail)

    @rc.service
    async def stop_iteration(self) -> None:
        await self.compute(lambda: next(iter([])))

    @rc.service
    async def whose(self) -> rc.RoleId:
        return await self.compute(rc.caller)

    @rc.service(concurrent=True)
    async def count(self) -> None:
        await self.compute(self._count)

    @rc.service(concurrent=True)
    async def meet(self) -> None:
        await self.compute(self.meeting.wait)

    async def main(self) -> None:
        self.log(sum=await self.compute(sum, [1, 2, 3]))

    def _fail(self) -> None:
        raise ZeroDivisionError("in a thread")

    def _count(self) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
        threading.Event().wait(0.001)
        with self.lock:
            self.running -= 1


class Client(rc.Role):
    worker: Worker = rc.one()


async def opened(w: Any) -> tuple[Worker, Client]:
    return await w.role("a/worker", Worker), await w.role("a/client", Client)


@pytest.mark.every_loop
@pytest.mark.parametrize("checked", [True, False])
async def test_a_function_runs_in_another_thread(world, checked) -> None:
    async with world(checked=checked) as w:
        _, client = await opened(w)
        assert await client.worker.thread() is False
        assert await client.worker.add(1, 2) == 3
        with pytest.raises(ZeroDivisionError, match="in a thread"):
            await client.worker.fail()
        with pytest.raises(RuntimeError, match="StopIteration"):
            await client.worker.stop_iteration()
        assert await client.worker.add(3, 4) == 7


async def test_the_thread_knows_whose_call_it_serves(world) -> None:
    async with world() as w:
        _, client = await opened(w)
        assert await client.worker.whose() == "a/client"


@pytest.mark.parametrize("threads", [1, 3])
async def test_a_node_computes_in_so_many_threads(world, threads) -> None:
    async with world(options={"compute_threads": threads}) as w:
        worker, client = await opened(w)
        async with anyio.create_task_group() as calls:
            for _ in range(12):
                calls.start_soon(client.worker.count)
        assert 1 <= worker.most <= threads


async def test_threads_run_side_by_side(world) -> None:
    async with world(options={"compute_threads": 2}) as w:
        _, client = await opened(w)
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.worker.meet)
            calls.start_soon(client.worker.meet)


async def test_a_main_routine_computes_and_logs(world) -> None:
    async with world() as w:
        await opened(w)
        ended = anyio.Event()
        w.instance("a/worker").start_main(lambda error: ended.set())
        await ended.wait()
        assert w.metrics == [{"sum": 6}]


async def test_the_end_of_a_role_waits_for_its_threads(world, settle) -> None:
    """A thread cannot be killed: the role has not ended before it has."""
    async with world() as w:
        worker, client = await opened(w)
        begun, go_on, ended = anyio.Event(), threading.Event(), []

        def work() -> None:
            anyio.from_thread.run_sync(begun.set)
            go_on.wait(10)
            ended.append("thread")

        async def call() -> None:
            with pytest.raises(rc.RoleLost):
                await client.worker.run(work)

        async def stop() -> None:
            await w.instance("a/worker").stop()
            ended.append("role")

        worker.work = work
        async with anyio.create_task_group() as tasks:
            w.instance("a/worker").spawn(lambda: worker.compute(work), "test")
            await begun.wait()
            tasks.start_soon(stop)
            await settle()
            go_on.set()
        assert ended == ["thread", "role"]
