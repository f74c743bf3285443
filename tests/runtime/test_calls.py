"""A call through a relationship: its arguments, its answer, its order, its deadline."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

import rolecall as rc


class Server(rc.Role):
    """Answers in several ways."""

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.gate = anyio.Event()

    @rc.service
    async def echo(self, value: int, times: int = 1) -> int:
        """Answer with a product."""
        return value * times

    @rc.service
    async def caller(self) -> rc.RoleId:
        return rc.caller()

    @rc.service
    async def keywords(self, *, value: float) -> float:
        return value

    @rc.service
    async def note(self, number: int) -> None:
        self.seen.append((rc.caller().name, number))
        await self.gate.wait()

    @rc.service(concurrent=3)
    async def beside(self, number: int) -> None:
        self.seen.append(number)
        await self.gate.wait()

    @rc.service(concurrent=True)
    async def deadline(self) -> float:
        return anyio.current_effective_deadline()


class Client(rc.Role):
    server: Server = rc.one()
    servers: rc.Group[Server] = rc.many()

    @rc.service
    async def deadline_inside(self) -> float:
        return await self.server.deadline()


@pytest.mark.every_loop
@pytest.mark.parametrize("checked", [True, False])
@pytest.mark.parametrize("home", ["a", "b"])
async def test_a_call_reads_like_a_method(world, home, checked) -> None:
    async with world("a", "b", server=f"{home}/server", checked=checked) as w:
        await w.role(f"{home}/server", Server)
        client = await w.role("a/client", Client)
        assert await client.server.echo(3) == 3
        assert await client.server.echo(3, times=2) == 6
        assert await client.server.keywords(value=2) == 2
        assert await client.server.caller() == "a/client"
        assert await Server.echo(client.server)(4) == 4


async def test_inside_the_role_a_channel_is_the_plain_coroutine(world) -> None:
    async with world() as w:
        server = await w.role("a/server", Server)
        assert await server.echo(5) == 5
        with pytest.raises(rc.LifecycleError, match=r"rc\.caller\(\) was used outside a handler"):
            await server.caller()


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, "missing a required argument: 'value'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"time": 2}, "got an unexpected keyword argument 'time'"),
        (("x",), {}, "argument 'value' is str, not int"),
        ((1,), {"times": "x"}, "argument 'times' is str, not int"),
    ],
)
async def test_wrong_arguments_are_found_before_they_are_sent(world, args, kwargs, problem) -> None:
    async with world() as w:
        await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        with pytest.raises(rc.WrongArgument) as raised:
            await client.server.echo(*args, **kwargs)
        assert str(raised.value) == (f"Server.echo: {problem}. Its signature is (value: int, times: int = ...) -> int.")


async def test_what_is_no_channel_is_named_with_the_nearest(world) -> None:
    async with world() as w:
        await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        with pytest.raises(rc.NotAChannel, match=r"'ehco' is not a channel of a/server .* Did you mean 'echo'\?"):
            client.server.ehco(1)
        with pytest.raises(rc.NotAChannel, match="'seen' is not a channel"):
            client.server.seen  # noqa: B018
        with pytest.raises(rc.NotAChannel, match="'gate' is not a channel"):
            client.server.gate = 1
        assert client.server.id == "a/server"
        assert repr(client.server) == "<a/server (Server)>"


@pytest.mark.every_loop
@pytest.mark.parametrize("checked", [True, False])
async def test_handlers_start_in_the_order_of_the_calls(world, settle, checked) -> None:
    """Two callers, more messages than the mailbox holds: each caller's arrive in its order."""
    async with world("a", "b", server="b/server", checked=checked, options={"mailbox": 3}) as w:
        server = await w.role("b/server", Server)
        clients = [await w.role("a/one", Client), await w.role("b/two", Client)]
        server.gate.set()
        async with anyio.create_task_group() as calls:
            for number in range(40):
                for client in clients:
                    calls.start_soon(client.server.note, number)
                if number % 7 == 0:
                    await settle(2)
        for name in ("one", "two"):
            assert [number for who, number in server.seen if who == name] == list(range(40))


async def test_a_cancelled_call_leaves_the_order_of_the_others(world, settle) -> None:
    async with world(options={"mailbox": 2}) as w:
        server = await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        scopes = [anyio.CancelScope() for _ in range(8)]

        async def call(number: int) -> None:
            with scopes[number]:
                await client.server.note(number)

        async with anyio.create_task_group() as calls:
            for number in range(8):
                calls.start_soon(call, number)
            await settle()
            for number in (1, 3, 4, 6):  # of those that wait and of those that are parked
                scopes[number].cancel()
            await settle()
            server.gate.set()
        assert [number for _, number in server.seen] == [0, 2, 5, 7]


async def test_concurrent_handlers_start_in_order_too(world, settle) -> None:
    async with world() as w:
        server = await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        async with anyio.create_task_group() as calls:
            for number in range(7):
                calls.start_soon(client.server.beside, number)
            await settle()
            assert server.seen == [0, 1, 2]
            server.gate.set()
        assert server.seen == list(range(7))


# ------------------------------------------------------------------------------------------------- deadlines


@pytest.mark.virtual_time
async def test_a_deadline_is_inherited_by_the_calls_of_the_handler(world) -> None:
    async with world("a", "b", server="b/server", client="a/client") as w:
        await w.role("b/server", Server)
        client = await w.role("a/client", Client)
        with anyio.fail_after(5) as scope:
            assert await client.server.deadline() == scope.deadline

        class Outer(rc.Role):
            client: Client = rc.one()

        outer = await w.role("a/outer", Outer)
        with anyio.fail_after(5) as scope:
            assert await outer.client.deadline_inside() == scope.deadline
        assert await outer.client.deadline_inside() == float("inf")


@pytest.mark.virtual_time
async def test_a_deadline_of_one_call_is_not_left_to_the_next(world) -> None:
    async with world() as w:
        await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        for seconds in (1, 5, 2):
            with anyio.fail_after(seconds) as scope:
                assert await client.server.deadline() == scope.deadline
            assert await client.server.deadline() == float("inf")


@pytest.mark.virtual_time
async def test_shielded_calls_inherit_no_deadline(world) -> None:
    async with world() as w:
        await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        with anyio.fail_after(1), anyio.CancelScope(shield=True):
            assert await client.server.deadline() == float("inf")


@pytest.mark.virtual_time
async def test_what_missed_a_deadline_while_it_ran_is_said(world) -> None:
    async with world() as w:
        await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        with pytest.raises(TimeoutError):
            with anyio.fail_after(3):
                await client.server.note(1)
        assert w.lines == [
            "warning a/server.note: was cancelled: the deadline of its caller a/client passed while it ran"
        ]


@pytest.mark.virtual_time
async def test_what_missed_a_deadline_while_it_waited_is_said(world, settle) -> None:
    async with world() as w:
        server = await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.server.note, 1)
            await settle()
            with anyio.move_on_after(2):
                await client.server.note(2)
            assert w.lines == [
                "warning a/server.note: was not handled: the deadline of its caller a/client passed while it waited"
            ]
            server.gate.set()
        assert server.seen == [("client", 1)]


@pytest.mark.virtual_time
async def test_a_call_that_is_given_up_without_a_deadline_is_not_worth_a_line(world, settle) -> None:
    async with world() as w:
        await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        async with anyio.create_task_group() as calls:
            calls.start_soon(client.server.note, 1)
            await settle()
            calls.cancel_scope.cancel()
        assert w.lines == []


@pytest.mark.virtual_time
async def test_a_deadline_that_its_caller_moved_later_is_an_error_of_the_call(world) -> None:
    async with world() as w:
        await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        with anyio.fail_after(1) as scope:
            asyncio.get_running_loop().call_later(0.5, setattr, scope, "deadline", 100.0)
            with pytest.raises(rc.DeadlineExceeded, match=r"a/server\.note did not answer before the deadline"):
                await client.server.note(1)
        assert await client.server.echo(1) == 1


async def test_a_call_whose_deadline_is_past_never_starts(world) -> None:
    async with world() as w:
        server = await w.role("a/server", Server)
        client = await w.role("a/client", Client)
        with anyio.move_on_after(-1) as scope:
            await client.server.note(1)
        assert scope.cancelled_caught
        assert server.seen == []


@pytest.mark.every_loop
async def test_deadlines_end_many_calls_on_real_loops(world) -> None:
    """The timers of both ends may fire in either order; the caller sees its own scope end, nothing else."""
    async with world("a", "b", server="b/server", servers="b/server*") as w:
        for name in ("server", "server2", "server3"):
            await w.role(f"b/{name}", Server)
        client = await w.role("a/client", Client)
        ends = []

        async def call(number: int) -> None:
            with anyio.move_on_after(0.001 * (1 + number % 5)) as scope:
                if number % 2:
                    await client.server.note(number)
                else:
                    await client.servers.call(Server.note, number)
            ends.append(scope.cancelled_caught)

        async with anyio.create_task_group() as calls:
            for number in range(50):
                calls.start_soon(call, number)
        assert ends == [True] * 50
        assert await client.server.echo(1) == 1


# ------------------------------------------------------------------------------------------------- who may call


class Guarded(rc.Role):
    @rc.service(allow="manager")
    async def secret(self) -> int:
        return 42

    @rc.task(allow="manager")
    async def work(self) -> int:
        return 42

    @rc.stream(allow="manager")
    async def items(self):
        yield 42


class Visitor(rc.Role):
    guarded: Guarded = rc.one()


@pytest.mark.parametrize("known", [True, False])
async def test_a_channel_is_open_only_to_the_relationship_it_allows(world, known) -> None:
    async with world(**({"manager": "a/boss"} if known else {})) as w:
        await w.role("a/guarded", Guarded)
        visitor = await w.role("a/visitor", Visitor)
        message = r"a/visitor may not call a/guarded\.\w+: it is open only to .* relationship 'manager'"
        with pytest.raises(rc.NotAllowed, match=message):
            await visitor.guarded.secret()
        with pytest.raises(rc.NotAllowed, match=message):
            await visitor.guarded.work.start()
        with pytest.raises(rc.NotAllowed, match=message):
            async for _ in visitor.guarded.items():
                pass
        if known:
            boss = await w.role("a/boss", Visitor)
            assert await boss.guarded.secret() == 42
            assert [item async for item in boss.guarded.items()] == [42]
