"""Tasks: handles, progress, outcomes, and to whom a task belongs."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import anyio
import anyio.from_thread
import pytest

import rolecall as rc


class Broken(rc.RolecallError):
    """An error of the tests."""


class Worker(rc.Role):
    def __init__(self) -> None:
        self.events: list[Any] = []
        self.gate = anyio.Event()

    @rc.task(progress=int)
    async def count(self, to: int) -> str:
        for number in range(to):
            rc.progress(number)
            await anyio.lowlevel.checkpoint()
        return f"counted to {to}"

    @rc.task(progress=float)
    async def wrong_progress(self) -> None:
        rc.progress("half")

    @rc.task
    async def no_progress(self) -> None:
        rc.progress(1)

    @rc.service
    async def service_progress(self) -> None:
        rc.progress(1)

    @rc.task(progress=int)
    async def count_in_thread(self, to: int) -> str:
        return await self.compute(self._count, to)

    def _count(self, to: int) -> str:
        for number in range(to):
            rc.progress(number)
        self.log(counted=to)
        return str(rc.caller())

    @rc.task(mailbox=1)
    async def wait(self, number: int) -> int:
        self.events.append(("start", number))
        try:
            await self.gate.wait()
        finally:
            self.events.append(("end", number))
        return number

    @rc.task
    async def fail(self) -> None:
        raise Broken("no such luck")

    @rc.task
    async def refuse(self) -> None:
        raise rc.Refused("not today")

    @rc.task(overflow="latest")
    async def newest(self) -> None:
        await self.gate.wait()

    @rc.task
    async def fail_on_cancel(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise Broken("while tidying up")

    @rc.task
    async def finish_on_cancel(self) -> int:
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            pass
        return 7

    @rc.task
    async def stubborn(self) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(10)

    @rc.task
    async def deadline(self) -> float:
        return anyio.current_effective_deadline()


class Client(rc.Role):
    worker: Worker = rc.one()


async def opened(w: Any, home: str = "a") -> tuple[Worker, Client]:
    return await w.role(f"{home}/worker", Worker), await w.role("a/client", Client)


@pytest.mark.every_loop
@pytest.mark.parametrize("checked", [True, False])
async def test_a_task_is_called_or_started(world, checked) -> None:
    async with world("a", "b", worker="b/worker", checked=checked) as w:
        await opened(w, "b")
        client = w.instance("a/client").role
        assert await client.worker.count(3) == "counted to 3"
        handle = await client.worker.count.start(4)
        assert handle.role == "b/worker"
        assert not handle.done
        assert [number async for number in handle] == [0, 1, 2, 3]
        assert await handle == "counted to 4"
        assert await handle.result() == "counted to 4"
        assert handle.done
        assert [number async for number in handle] == []


async def test_a_slow_reader_misses_the_oldest_reports(world, settle) -> None:
    async with world() as w:
        _, client = await opened(w)
        handle = await client.worker.count.start(1000)
        await handle
        reports = [number async for number in handle]
        assert reports == list(range(1000 - len(reports), 1000))
        assert 1 < len(reports) < 1000


async def test_several_may_read_the_reports_and_wait_for_the_result(world, settle) -> None:
    async with world() as w:
        worker, client = await opened(w)
        handle = await client.worker.wait.start(1)
        results = []

        async def wait() -> None:
            results.append(await handle)

        async with anyio.create_task_group() as waiting:
            waiting.start_soon(wait)
            waiting.start_soon(wait)
            await settle()
            worker.gate.set()
        assert results == [1, 1]


@pytest.mark.parametrize(
    ("channel", "error", "message"),
    [
        ("wrong_progress", rc.WrongType, "a/worker.wrong_progress: progress: expected float, found str"),
        ("no_progress", rc.LifecycleError, "a/worker.no_progress reports progress but is not declared"),
        ("service_progress", rc.LifecycleError, "a/worker.service_progress reports progress but is not"),
    ],
)
async def test_progress_that_was_not_declared_is_an_error(world, channel, error, message) -> None:
    async with world() as w:
        _, client = await opened(w)
        with pytest.raises(error, match=message):
            await getattr(client.worker, channel)()
        with pytest.raises(rc.LifecycleError, match=r"rc\.progress\(\) was used outside"):
            rc.progress(1)


@pytest.mark.every_loop
async def test_progress_and_metrics_come_from_worker_threads_too(world) -> None:
    async with world() as w:
        _, client = await opened(w)
        handle = await client.worker.count_in_thread.start(100)
        assert [number async for number in handle] == list(range(100))
        assert await handle == "a/client"
        assert w.metrics == [{"counted": 100}]


# ------------------------------------------------------------------------------------------------- cancelling


async def test_cancelling_says_what_became_of_the_task(world, settle) -> None:
    async with world() as w:
        worker, client = await opened(w)
        handle = await client.worker.wait.start(1)
        await settle()
        assert await handle.cancel() is rc.Outcome.CANCELLED
        assert worker.events == [("start", 1), ("end", 1)]
        assert handle.done
        assert await handle.cancel() is rc.Outcome.CANCELLED
        with pytest.raises(rc.LifecycleError, match=r"a/worker\.wait: the task was cancelled; it has no result"):
            await handle

        handle = await client.worker.finish_on_cancel.start()
        await settle()
        assert await handle.cancel() is rc.Outcome.FINISHED
        assert await handle == 7

        handle = await client.worker.fail_on_cancel.start()
        await settle()
        assert await handle.cancel() is rc.Outcome.FAILED
        with pytest.raises(Broken, match="while tidying up"):
            await handle

        handle = await client.worker.count.start(1)
        await handle
        assert await handle.cancel() is rc.Outcome.FINISHED


async def test_a_task_cancelled_before_its_worker_looked_never_starts(world, settle) -> None:
    async with world() as w:
        worker, client = await opened(w)
        handle = await client.worker.wait.start(1)
        assert await handle.cancel() is rc.Outcome.CANCELLED
        worker.gate.set()
        assert await client.worker.wait(2) == 2
        assert worker.events == [("start", 2), ("end", 2)]


@pytest.mark.virtual_time
async def test_the_outcome_of_a_task_that_does_not_stop_is_unknown(world) -> None:
    async with world() as w:
        _, client = await opened(w)
        handle = await client.worker.stubborn.start()
        await anyio.sleep(1)
        began = anyio.current_time()
        assert await handle.cancel() is rc.Outcome.UNKNOWN
        assert anyio.current_time() - began == pytest.approx(1)
        assert not handle.done


async def test_a_task_that_waits_is_cancelled_at_once(world, settle) -> None:
    async with world() as w:
        worker, client = await opened(w)
        first, second = await client.worker.wait.start(1), await client.worker.wait.start(2)
        assert await second.cancel() is rc.Outcome.CANCELLED
        worker.gate.set()
        assert await first == 1
        assert worker.events == [("start", 1), ("end", 1)]


async def test_leaving_the_wait_does_not_stop_the_task(world, settle) -> None:
    async with world() as w:
        worker, client = await opened(w)
        handle = await client.worker.wait.start(1)
        with anyio.move_on_after(0.01) as scope:
            await handle
        assert scope.cancelled_caught
        assert worker.events == [("start", 1)]
        worker.gate.set()
        assert await handle == 1


# ------------------------------------------------------------------------------------------------- starting


async def test_start_returns_when_the_mailbox_has_admitted_the_task(world, settle) -> None:
    async with world() as w:
        worker, client = await opened(w)
        handles = [await client.worker.wait.start(number) for number in (1, 2)]  # one runs, one waits
        async with anyio.create_task_group() as group:
            third = group.start_soon(client.worker.wait.start, 3)
            await settle()
            assert len(w.instance("a/worker").dispatchers["wait"].parked) == 1
            worker.gate.set()
        assert [await handle for handle in handles] == [1, 2]
        assert third is not None
        await settle()
        assert [number for what, number in worker.events if what == "start"] == [1, 2, 3]


async def test_a_start_that_is_given_up_while_parked_starts_nothing(world, settle) -> None:
    async with world() as w:
        worker, client = await opened(w)
        handles = [await client.worker.wait.start(number) for number in (1, 2)]
        with anyio.move_on_after(0.01):
            await client.worker.wait.start(3)
        worker.gate.set()
        assert [await handle for handle in handles] == [1, 2]
        assert [number for what, number in worker.events if what == "start"] == [1, 2]


async def test_a_start_whose_role_ends_before_it_was_admitted_raises(world, settle) -> None:
    async with world() as w:
        _, client = await opened(w)
        handles = [await client.worker.wait.start(number) for number in (1, 2)]
        errors = []

        async def start() -> None:
            try:
                await client.worker.wait.start(3)
            except rc.RoleLost as error:
                errors.append(error.effect)

        async with anyio.create_task_group() as group:
            group.start_soon(start)
            await settle()
            await w.instance("a/worker").stop()
        assert errors == ["none"]
        for handle, effect in zip(handles, ("unknown", "none"), strict=True):
            with pytest.raises(rc.RoleLost) as raised:
                await handle
            assert raised.value.effect == effect


@pytest.mark.virtual_time
async def test_a_started_task_inherits_no_deadline(world) -> None:
    async with world() as w:
        _, client = await opened(w)
        with anyio.move_on_after(1):
            handle = await client.worker.deadline.start()
        assert await handle == float("inf")
        with anyio.move_on_after(1) as scope:
            assert await client.worker.deadline() == scope.deadline


# ------------------------------------------------------------------------------------------------- ownership


async def test_the_end_of_a_role_cancels_what_it_started(world, settle) -> None:
    async with world("a", "b", worker="b/worker") as w:
        worker, client = await opened(w, "b")
        await client.worker.wait.start(1)
        handle = await client.worker.wait.start(2)
        await settle()
        await w.instance("a/client").stop()
        await settle()
        assert worker.events == [("start", 1), ("end", 1)]
        assert handle.done
        assert w.letters == []


@pytest.mark.parametrize("kept", [True, False])
async def test_a_failure_that_nobody_asks_for_is_a_dead_letter(world, settle, kept) -> None:
    async with world() as w:
        _, client = await opened(w)
        handle: Any = await client.worker.fail.start()
        if not kept:
            del handle
        await settle()
        handle = None
        gc.collect()
        assert [(x.kind, x.role, x.channel, x.reason) for x in w.letters] == [
            ("task", "a/worker", "fail", "Broken: no such luck")
        ]


async def test_a_failure_that_was_asked_for_is_none(world, settle) -> None:
    async with world() as w:
        _, client = await opened(w)
        handle: Any = await client.worker.fail.start()
        with pytest.raises(Broken):
            await handle
        del handle
        gc.collect()
        assert w.letters == []


async def test_a_failure_after_the_wait_was_left_is_a_dead_letter(world, settle) -> None:
    async with world() as w:
        _, client = await opened(w)
        handle: Any = await client.worker.fail_on_cancel.start()
        with anyio.move_on_after(0.01):
            await handle
        assert await handle.cancel() is rc.Outcome.FAILED
        del handle
        gc.collect()
        assert [x.reason for x in w.letters] == ["Broken: while tidying up"]


async def test_a_refusal_or_a_displacement_that_nobody_asks_for_is_none(world, settle) -> None:
    async with world() as w:
        worker, client = await opened(w)
        await client.worker.refuse.start()
        for _ in range(3):
            await client.worker.newest.start()
        await settle()
        worker.gate.set()
        await settle()
        gc.collect()
        assert w.letters == []


async def test_progress_may_be_left_and_taken_up_again(world) -> None:
    async with world() as w:
        _, client = await opened(w)
        handle = await client.worker.count.start(5)
        async for number in handle:
            if number == 1:
                break
        assert [number async for number in handle] == [2, 3, 4]
