"""Mailboxes and concurrency: how many handlers at once, how much may wait, and what gives way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

import rolecall as rc


class Busy(rc.Role):
    """Its handlers note their number and wait for the gate."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.running = self.most = 0
        self.gate = anyio.Event()

    async def handle(self, number: Any) -> Any:
        self.started.append(number)
        self.running += 1
        self.most = max(self.most, self.running)
        await self.gate.wait()
        self.running -= 1
        return number

    @rc.service
    async def serial(self, number: int) -> int:
        return await self.handle(number)

    @rc.service
    async def other(self, number: int) -> int:
        return await self.handle(number)

    @rc.service(concurrent=2)
    async def two(self, number: int) -> int:
        return await self.handle(number)

    @rc.service(concurrent=True)
    async def all(self, number: int) -> int:
        return await self.handle(number)

    @rc.service(mailbox=2)
    async def small(self, number: int) -> int:
        return await self.handle(number)

    @rc.service(mailbox=2, overflow="fail")
    async def failing(self, number: int) -> int:
        return await self.handle(number)

    @rc.service(mailbox=2, overflow="drop_oldest")
    async def dropping(self, number: int) -> int:
        return await self.handle(number)

    @rc.service(overflow="latest")
    async def latest(self, number: int) -> int:
        return await self.handle(number)

    @rc.service(mailbox_bytes=1000)
    async def bytes_wait(self, data: bytes) -> int:
        return len(await self.handle(data))

    @rc.service(mailbox_bytes=1000, overflow="fail")
    async def bytes_fail(self, data: bytes) -> int:
        return len(await self.handle(data))

    @rc.service(mailbox_bytes=1000, overflow="drop_oldest")
    async def bytes_drop(self, data: bytes) -> int:
        return len(await self.handle(data))


class Client(rc.Role):
    busy: Busy = rc.one()


async def opened(w: Any) -> tuple[Busy, Client]:
    return await w.role("a/busy", Busy), await w.role("a/client", Client)


class Calls:
    """Calls made side by side, with what became of each."""

    def __init__(self, group: Any, settle: Callable[[], Any]) -> None:
        self._group, self._settle = group, settle
        self.answers: dict[Any, Any] = {}
        self.scopes: dict[Any, anyio.CancelScope] = {}

    async def make(self, channel: Any, *values: Any) -> None:
        for value in values:
            self._group.start_soon(self._call, channel, value)
        await self._settle()

    async def _call(self, channel: Any, value: Any) -> None:
        with anyio.CancelScope() as self.scopes[value]:
            try:
                self.answers[value] = await channel(value)
            except rc.RolecallError as error:
                self.answers[value] = error


async def test_handlers_run_one_at_a_time_unless_declared_otherwise(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        for channel, most in ((client.busy.serial, 1), (client.busy.two, 2), (client.busy.all, 20)):
            busy.started, busy.most, busy.gate = [], 0, anyio.Event()
            async with anyio.create_task_group() as group:
                calls = Calls(group, settle)
                await calls.make(channel, *range(20))
                assert busy.started == list(range(most))
                busy.gate.set()
            assert busy.most == most
            assert calls.answers == {number: number for number in range(20)}


async def test_channels_of_a_role_interleave(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.serial, 1)
            await calls.make(client.busy.other, 2)
            assert busy.started == [1, 2]
            busy.gate.set()


@pytest.mark.parametrize("checked", [True, False])
async def test_a_full_mailbox_parks_its_senders(world, settle, checked) -> None:
    async with world(checked=checked) as w:
        busy, client = await opened(w)
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.small, *range(10))
            dispatcher = w.instance("a/busy").dispatchers["small"]
            assert (len(dispatcher.mailbox), len(dispatcher.parked)) == (2, 7)
            busy.gate.set()
        assert calls.answers == {number: number for number in range(10)}
        assert busy.started == list(range(10))


async def test_a_full_mailbox_holds_up_no_other_channel(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.small, *range(10))
            await calls.make(client.busy.other, 99)
            assert busy.started == [0, 99]
            busy.gate.set()


async def test_overflow_fail_tells_the_caller(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.failing, *range(5))
            assert set(calls.answers) == {3, 4}
            error = calls.answers[3]
            assert isinstance(error, rc.Overloaded)
            assert str(error).startswith("The mailbox of a/busy.failing is full (2 messages, 0 bytes).")
            busy.gate.set()
        assert busy.started == [0, 1, 2]
        assert w.letters == []


async def test_drop_oldest_displaces_the_oldest_that_waits(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.dropping, *range(6))
            assert set(calls.answers) == {1, 2, 3}
            assert all(isinstance(error, rc.Superseded) for error in calls.answers.values())
            assert "a/busy.dropping: this call was displaced by a newer one" in str(calls.answers[1])
            busy.gate.set()
        assert busy.started == [0, 4, 5]


async def test_latest_keeps_only_the_newest(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.latest, 0)
            await calls.make(client.busy.latest, 1, 2, 3)
            assert {number: type(error) for number, error in calls.answers.items()} == {
                1: rc.Superseded, 2: rc.Superseded,
            }  # fmt: skip
            busy.gate.set()
        assert busy.started == [0, 3]


async def test_a_displaced_call_that_nobody_waits_for_is_no_dead_letter(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.latest, 0, 1)
            calls.scopes[1].cancel()
            await settle()
            await calls.make(client.busy.latest, 2)
            busy.gate.set()
        assert busy.started == [0, 2]
        assert w.letters == []


# ------------------------------------------------------------------------------------------------- bytes


async def test_a_mailbox_is_bounded_in_bytes(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        values = [bytes([number]) * 400 for number in range(6)]
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.bytes_wait, *values)
            dispatcher = w.instance("a/busy").dispatchers["bytes_wait"]
            assert (len(dispatcher.mailbox), len(dispatcher.parked)) == (2, 3)
            assert 800 <= dispatcher.mailbox_bytes <= 1000
            busy.gate.set()
        assert busy.started == values
        assert dispatcher.mailbox_bytes == 0


async def test_a_message_above_the_limit_is_taken_alone(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        values = [b"x" * 10, b"x" * 5000, b"x" * 20, b"x" * 6000]
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.bytes_wait, *values)
            assert len(w.instance("a/busy").dispatchers["bytes_wait"].mailbox) == 1
            busy.gate.set()
        assert busy.started == values


async def test_bytes_count_for_the_other_policies(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        values = [bytes([number]) * 400 for number in range(4)]
        async with anyio.create_task_group() as group:
            failing, dropping = Calls(group, settle), Calls(group, settle)
            await failing.make(client.busy.bytes_fail, *values)
            await dropping.make(client.busy.bytes_drop, *values)
            assert list(failing.answers) == [values[3]]
            assert isinstance(failing.answers[values[3]], rc.Overloaded)
            assert list(dropping.answers) == [values[1]]
            assert isinstance(dropping.answers[values[1]], rc.Superseded)
            busy.gate.set()


async def test_a_large_parked_message_that_is_given_up_makes_way(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        large, small = b"x" * 900, [b"a" * 10, b"b" * 10]
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.bytes_wait, b"first", b"y" * 500, large, *small)
            dispatcher = w.instance("a/busy").dispatchers["bytes_wait"]
            assert (len(dispatcher.mailbox), len(dispatcher.parked)) == (1, 3)
            calls.scopes[large].cancel()
            await settle()
            assert (len(dispatcher.mailbox), len(dispatcher.parked)) == (3, 0)
            busy.gate.set()
        assert busy.started == [b"first", b"y" * 500, *small]


async def test_bytes_of_what_was_cancelled_are_given_back(world, settle) -> None:
    async with world() as w:
        busy, client = await opened(w)
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.bytes_wait, *(bytes([number]) * 300 for number in range(4)))
            dispatcher = w.instance("a/busy").dispatchers["bytes_wait"]
            for scope in list(calls.scopes.values())[1:]:
                scope.cancel()
            await settle()
            assert (len(dispatcher.mailbox), dispatcher.mailbox_bytes) == (0, 0)
            busy.gate.set()


# ------------------------------------------------------------------------------------------------- settings


async def test_a_node_may_set_the_default_of_mailboxes(world, settle) -> None:
    async with world(options={"mailbox": 4, "mailbox_bytes": 10}) as w:
        await opened(w)
        dispatchers = w.instance("a/busy").dispatchers
        assert dispatchers["serial"].options.mailbox == 4
        assert dispatchers["serial"].options.mailbox_bytes == 10
        assert dispatchers["small"].options.mailbox == 2
        assert dispatchers["bytes_wait"].options.mailbox_bytes == 1000


@pytest.mark.parametrize(
    "options", [{"concurrent": 0}, {"mailbox": 0}, {"mailbox_bytes": 0}, {"overflow": "drop"}, {"concurrent": 10**6}]
)
def test_limits_that_make_no_sense_are_refused(options) -> None:
    with pytest.raises(rc.DeclarationError, match="nonsense"):

        @rc.service(**options)
        async def nonsense(self) -> None: ...


async def test_many_workers_leave_when_the_rush_is_over(world, settle) -> None:
    async with world(checked=False) as w:
        busy, client = await opened(w)
        async with anyio.create_task_group() as group:
            await Calls(group, settle).make(client.busy.all, *range(200))
            dispatcher = w.instance("a/busy").dispatchers["all"]
            assert len(dispatcher.workers) == 200
            busy.gate.set()
        await settle()
        assert len(dispatcher.workers) <= 16
        async with anyio.create_task_group() as group:
            calls = Calls(group, settle)
            await calls.make(client.busy.all, *range(50))
        assert len(calls.answers) == 50
