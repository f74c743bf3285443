"""Leaving a call: what waits goes at once, what runs is cancelled, and a channel is busy until it has stopped."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import anyio
import anyio.from_thread
import pytest

import rolecall as rc


class Server(rc.Role):
    def __init__(self) -> None:
        self.events: list[Any] = []
        self.gate = anyio.Event()
        self.open = threading.Event()
        self.stray: asyncio.Future[None] | None = None

    @rc.service
    async def wait(self, number: int) -> int:
        """Wait for the gate; tidy up when cancelled."""
        self.events.append(("start", number))
        try:
            await self.gate.wait()
        finally:
            self.events.append(("end", number))
        return number

    @rc.service
    async def echo(self, number: int) -> int:
        return number

    @rc.service
    async def cancelling(self) -> int:
        task = asyncio.current_task()
        assert task is not None
        await asyncio.sleep(0)
        return task.cancelling()

    @rc.service
    async def stubborn(self, seconds: float) -> str:
        """Go on for a while whatever is asked."""
        with anyio.CancelScope(shield=True):
            await anyio.sleep(seconds)
        self.events.append("stubborn ended")
        return "done"

    @rc.service
    async def swallow(self, number: int) -> int:
        """Answer even when cancelled."""
        try:
            await anyio.sleep_forever()
        except asyncio.CancelledError:
            pass
        return number

    @rc.service
    async def break_on_cancel(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("while tidying up")

    @rc.service
    async def poll(self) -> None:
        """Work in a thread that asks whether to go on."""
        await self.compute(self._poll)

    @rc.service
    async def deaf(self) -> None:
        """Work in a thread that does not ask."""
        await self.compute(self.open.wait)
        self.events.append("thread ended")

    @rc.service
    async def await_stray(self) -> None:
        self.stray = asyncio.get_running_loop().create_future()
        await self.stray

    def _poll(self) -> None:
        self.events.append("thread started")
        try:
            while True:
                anyio.from_thread.check_cancelled()
                time.sleep(0.001)
        finally:
            self.events.append("thread ended")


class Middle(rc.Role):
    server: Server = rc.one()

    @rc.service
    async def relay(self, number: int) -> int:
        return await self.server.wait(number)


class Client(rc.Role):
    server: Server = rc.one()
    servers: rc.Group[Server] = rc.many()
    middle: Middle = rc.one()


async def opened(w: Any) -> tuple[Server, Client]:
    return await w.role("a/server", Server), await w.role("a/client", Client)


@pytest.mark.every_loop
@pytest.mark.parametrize("checked", [True, False])
async def test_leaving_the_scope_cancels_the_handler_and_waits_for_it(world, checked) -> None:
    async with world(checked=checked) as w:
        server, client = await opened(w)
        with anyio.move_on_after(0.01) as scope:
            await client.server.wait(1)
        assert scope.cancelled_caught
        assert server.events == [("start", 1), ("end", 1)]
        assert await client.server.echo(2) == 2


async def test_what_waits_or_is_parked_never_starts(world, settle) -> None:
    async with world(options={"mailbox": 1}) as w:
        server, client = await opened(w)
        async with anyio.create_task_group() as first:
            first.start_soon(client.server.wait, 0)
            await settle()
            async with anyio.create_task_group() as others:
                for number in (1, 2, 3):
                    others.start_soon(client.server.wait, number)
                await settle()
                others.cancel_scope.cancel()
            server.gate.set()
        assert server.events == [("start", 0), ("end", 0)]


async def test_cancellation_goes_down_the_chain(world, settle) -> None:
    async with world("a", "b", "c", middle="b/middle", server="c/server") as w:
        server = await w.role("c/server", Server)
        await w.role("b/middle", Middle)
        client = await w.role("a/client", Client)
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.middle.relay, 1)
            await settle()
            calls.cancel_scope.cancel()
        assert server.events == [("start", 1), ("end", 1)]


@pytest.mark.virtual_time
async def test_a_deadline_goes_down_the_chain(world) -> None:
    async with world("a", "b", "c", middle="b/middle", server="c/server") as w:
        server = await w.role("c/server", Server)
        await w.role("b/middle", Middle)
        client = await w.role("a/client", Client)
        before = anyio.current_time()
        with pytest.raises(TimeoutError):
            with anyio.fail_after(2):
                await client.middle.relay(1)
        assert anyio.current_time() - before == 2
        assert server.events == [("start", 1), ("end", 1)]
        assert sorted(line.partition(":")[0] for line in w.lines) == [
            "warning b/middle.relay", "warning c/server.wait",
        ]  # fmt: skip


# ------------------------------------------------------------------------------------------------- slow to stop


@pytest.mark.virtual_time
async def test_the_caller_waits_one_second_at_most_and_the_channel_stays_busy(world) -> None:
    async with world() as w:
        server, client = await opened(w)
        began = anyio.current_time()
        with anyio.move_on_after(1):
            await client.server.stubborn(10)
        assert anyio.current_time() - began == pytest.approx(2)
        assert "warning a/server.stubborn: has not stopped 1 s after it was cancelled" in "\n".join(w.lines)
        assert server.events == []
        assert await client.server.stubborn(0) == "done"
        assert anyio.current_time() - began == pytest.approx(10)
        assert server.events == ["stubborn ended", "stubborn ended"]


@pytest.mark.virtual_time
async def test_a_group_call_waits_one_second_in_all(world) -> None:
    async with world(servers="a/server*") as w:
        for number in range(5):
            await w.role(f"a/server{number}", Server)
        client = await w.role("a/client", Client)
        began = anyio.current_time()
        with anyio.move_on_after(1):
            await client.servers.call(Server.stubborn, 10)
        assert anyio.current_time() - began == pytest.approx(2)


@pytest.mark.virtual_time
async def test_a_handler_may_finish_in_time_although_cancelled(world) -> None:
    async with world() as w:
        _, client = await opened(w)
        with anyio.move_on_after(1):
            await client.server.swallow(1)
        assert await client.server.echo(2) == 2
        assert w.letters == []


# ------------------------------------------------------------------------------------------------- threads


@pytest.mark.every_loop
async def test_cancellation_reaches_the_thread_which_ends_before_the_caller_goes_on(world) -> None:
    async with world() as w:
        server, client = await opened(w)
        with anyio.move_on_after(0.02):
            await client.server.poll()
        assert server.events == ["thread started", "thread ended"]


@pytest.mark.virtual_time
async def test_a_thread_that_does_not_ask_keeps_its_channel_busy(world, settle) -> None:
    async with world() as w:
        server, client = await opened(w)
        with anyio.move_on_after(1):
            await client.server.deaf()
        dispatcher = w.instance("a/server").dispatchers["deaf"]
        assert len(dispatcher.running) == 1
        assert server.events == []
        server.open.set()
        await client.server.deaf()
        assert server.events == ["thread ended", "thread ended"]
        await settle()
        assert dispatcher.running == []


# ------------------------------------------------------------------------------------------------- workers go on


@pytest.mark.every_loop
@pytest.mark.parametrize("channel", ["wait", "swallow"])
async def test_a_worker_serves_on_after_many_cancellations(world, settle, channel) -> None:
    async with world() as w:
        _, client = await opened(w)
        for number in range(50):
            async with anyio.create_task_group() as calls:
                calls.start_soon(getattr(client.server, channel), number)
                await settle(3)
                calls.cancel_scope.cancel()
        assert await client.server.echo(1) == 1
        assert await client.server.cancelling() == 0
        assert len(w.instance("a/server").dispatchers[channel].workers) == 1


@pytest.mark.virtual_time
async def test_a_worker_serves_on_after_many_deadlines(world) -> None:
    async with world() as w:
        server, client = await opened(w)
        for number in range(50):
            with anyio.move_on_after(1):
                await client.server.wait(number)
        server.gate.set()
        assert await client.server.wait(99) == 99
        assert await client.server.cancelling() == 0


async def test_what_waits_behind_a_cancelled_handler_is_served(world, settle) -> None:
    async with world() as w:
        server, client = await opened(w)
        scope = anyio.CancelScope()

        async def first() -> None:
            with scope:
                await client.server.wait(0)

        async with anyio.create_task_group() as calls:
            calls.start_soon(first)
            await settle()
            calls.start_soon(client.server.wait, 1)
            await settle()
            scope.cancel()
            await settle()
            assert server.events == [("start", 0), ("end", 0), ("start", 1)]
            server.gate.set()


async def test_a_cancellation_inside_a_handler_is_an_error_of_the_handler(world, settle) -> None:
    """Nobody cancelled the call: something it awaited was. The worker goes on, and so does its caller."""
    async with world() as w:
        server, client = await opened(w)
        errors = []

        async def call() -> None:
            try:
                await client.server.await_stray()
            except rc.RemoteError as error:
                errors.append(str(error))

        async with anyio.create_task_group() as calls:
            for _ in range(3):
                calls.start_soon(call)
            for _ in range(3):
                await settle()
                server.stray.cancel()
        assert errors == ["CancelledError in a/server.await_stray: something it awaited was cancelled"] * 3


async def test_an_error_raised_while_being_cancelled_is_a_dead_letter(world, settle) -> None:
    async with world() as w:
        _, client = await opened(w)
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.server.break_on_cancel)
            await settle()
            calls.cancel_scope.cancel()
        assert [(x.kind, x.role, x.channel, x.reason) for x in w.letters] == [
            ("service", "a/server", "break_on_cancel", "ValueError: while tidying up")
        ]


# ------------------------------------------------------------------------------------------------- plain asyncio


@pytest.mark.every_loop
async def test_asyncio_may_cancel_a_call_too(world, settle) -> None:
    async with world() as w:
        server, client = await opened(w)
        call = asyncio.ensure_future(client.server.wait(1))
        await settle()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await client.server.wait(2)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.server.wait(3), 0.01)
        assert server.events == [(what, n) for n in (1, 2, 3) for what in ("start", "end")]
        server.gate.set()
        assert await client.server.wait(4) == 4
