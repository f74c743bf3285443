"""A node that is gone, as in a crash: who waited for its roles learns so, and whether the call took effect."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import rolecall as rc


class Server(rc.Role):
    done = rc.Topic(int)
    box = rc.Inbox(int, capacity=1)

    def __init__(self) -> None:
        self.events: list[Any] = []

    async def teardown(self) -> None:
        self.events.append("teardown")

    @rc.service
    async def wait(self, number: int) -> None:
        self.events.append(("start", number))
        try:
            await anyio.sleep_forever()
        finally:
            self.events.append(("end", number))

    @rc.service
    async def echo(self, number: int) -> int:
        return number

    @rc.task
    async def work(self) -> None:
        await anyio.sleep_forever()

    @rc.stream
    async def items(self) -> AsyncIterator[int]:
        yield 1
        await anyio.sleep_forever()


class Client(rc.Role):
    server: Server = rc.one()
    servers: rc.Group[Server] = rc.many()

    def __init__(self) -> None:
        self.left: list[rc.RoleId] = []

    @servers.on_leave
    async def on_leave(self, role: rc.RoleId) -> None:
        self.left.append(role)

    @rc.service
    async def relay(self) -> None:
        await self.server.wait(0)


class Far(rc.Role):
    client: Client = rc.one()


def two(world: Any, **options: Any) -> Any:
    return world("a", "b", server="b/server", servers="*/server*", client="a/client", **options)


async def opened(w: Any) -> tuple[Server, Client]:
    return await w.role("b/server", Server), await w.role("a/client", Client)


@pytest.mark.every_loop
@pytest.mark.parametrize("checked", [True, False])
async def test_callers_learn_whether_their_call_may_have_taken_effect(world, settle, checked) -> None:
    async with two(world, checked=checked, options={"mailbox": 1}) as w:
        server, client = await opened(w)
        effects: dict[int, Any] = {}

        async def call(number: int) -> None:
            try:
                await client.server.wait(number)
            except rc.NodeLost as error:
                effects[number] = (error.role, error.effect)

        async with anyio.create_task_group() as calls:
            for number in range(3):
                calls.start_soon(call, number)
            await settle()
            w.nodes["b"].kill()
        assert effects == {0: ("b/server", "unknown"), 1: ("b/server", "none"), 2: ("b/server", "none")}
        await settle()
        assert server.events == [("start", 0), ("end", 0)]  # no teardown
        assert w.letters == []
        assert w.statuses("b/server")[-1] == "failed"


async def test_calls_after_the_loss_have_no_effect(world) -> None:
    async with two(world) as w:
        _, client = await opened(w)
        assert await client.server.echo(1) == 1
        w.nodes["b"].kill()
        with pytest.raises(rc.NodeLost, match=r"b/server was lost: node b is gone \(effect of the call: none\)"):
            await client.server.echo(2)


async def test_an_endpoint_that_was_kept_says_that_its_role_is_lost(world) -> None:
    async with two(world) as w:
        _, client = await opened(w)
        echo = client.server.echo
        assert await echo(1) == 1
        w.nodes["b"].kill()
        with pytest.raises(rc.NodeLost, match=r"b/server was lost: node b is gone \(effect of the call: none\)"):
            await echo(2)


async def test_tasks_streams_and_inboxes_learn_of_it_too(world, settle) -> None:
    async with two(world) as w:
        _, client = await opened(w)
        handle = await client.server.work.start()
        items = client.server.items()
        assert await anext(items) == 1
        box = client.server.box
        await box.put(1)
        errors = []

        async def put() -> None:
            try:
                await box.put(2)
            except rc.NodeLost as error:
                errors.append(error.effect)

        async with anyio.create_task_group() as puts:
            puts.start_soon(put)
            await settle()
            w.nodes["b"].kill()
        assert errors == ["none"]
        with pytest.raises(rc.NodeLost):
            await handle
        with pytest.raises(rc.NodeLost):
            await anext(items)
        with pytest.raises(rc.NodeLost):
            await box.put(3)
        assert await handle.cancel() is rc.Outcome.UNKNOWN


async def test_those_who_knew_the_roles_are_told(world, settle) -> None:
    async with two(world) as w:
        _, client = await opened(w)
        await w.role("b/server2", Server)
        await settle()
        w.nodes["b"].kill()
        await settle()
        assert sorted(client.left) == ["b/server", "b/server2"]
        assert len(client.servers) == 0


async def test_what_the_roles_of_the_node_had_called_is_cancelled(world, settle) -> None:
    async with two(world) as w:
        server, _ = await opened(w)
        far = await w.role("a/far", Far)

        async def call() -> None:
            with pytest.raises(rc.NodeLost):
                await far.client.relay()

        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            await settle()
            w.nodes["a"].kill()
        await settle()
        assert server.events == [("start", 0), ("end", 0)]


async def test_the_other_node_goes_on(world) -> None:
    async with two(world) as w:
        await opened(w)
        w.nodes["a"].kill()
        await w.role("b/client", Client)
        client = w.instance("b/client").role
        assert await client.server.echo(3) == 3
