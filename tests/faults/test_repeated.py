"""Calls of idempotent channels that are lost with their node, and made again when their role is there again."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rolecall as rc
from rolecall.runtime import remote
from rolecall.runtime.instance import Hosting
from rolecall.wire import frames as f


class Server(rc.Role):
    lives = 0
    begun: list[tuple[int, str]] = []

    def __init__(self) -> None:
        Server.lives += 1
        self.life = Server.lives
        self.gate = asyncio.Event()

    async def _work(self, name: str) -> str:
        Server.begun.append((self.life, name))
        await self.gate.wait()
        return f"{name} in life {self.life}"

    @rc.service(concurrent=True, idempotent=True)
    async def safe(self, name: str) -> str:
        return await self._work(name)

    @rc.service(mailbox=1, idempotent=True)
    async def narrow(self, name: str) -> str:
        return await self._work(name)

    @rc.service(concurrent=True)
    async def once(self, name: str) -> str:
        return await self._work(name)

    @rc.task(concurrent=True, idempotent=True, progress=str)
    async def task(self, name: str) -> str:
        rc.progress(f"began in life {self.life}")
        return await self._work(name)


class Client(rc.Role):
    server: Server = rc.one()


@pytest.fixture(autouse=True)
def _first_life() -> None:
    Server.lives, Server.begun = 0, []


class World:
    """A client on node `b`, and a server on node `a` that dies and comes back."""

    def __init__(self, c: Any) -> None:
        self.c = c

    async def open(self) -> World:
        self.server = await self.c.role("a/server", Server)
        self.client = await self.c.role("b/client", Client)
        return self

    async def die(self) -> None:
        self.c.cut("a", "b", "node a is gone")
        await self.c.instance("a/server").stop()

    async def come_back(self) -> None:
        instance = self.c.nodes["a"].host(Hosting(id=rc.RoleId("a/server"), role_class=Server))
        await instance.start()
        self.server = instance.role
        self.c.mend("a", "b")
        self.c.nodes["a"].network.bind(rc.RoleId("b/client"), "b")
        self.c.nodes["b"].network.bind(rc.RoleId("a/server"), "a")


async def test_a_call_is_made_again_under_the_same_id(cluster, until) -> None:
    async with cluster("a", "b", memory=1, server="a/server") as c, asyncio.timeout(10):
        w = await World(c).open()
        call = asyncio.ensure_future(w.client.server.safe("x"))
        once = asyncio.ensure_future(w.client.server.once("y"))
        await until(lambda: len(Server.begun) == 2)
        await w.die()
        with pytest.raises(rc.NodeLost, match="effect of the call: unknown"):
            await once
        with pytest.raises(rc.NodeLost, match="effect of the call: none"):
            await w.client.server.safe("while it is gone")
        assert not call.done()
        await w.come_back()
        await until(lambda: len(Server.begun) == 3)
        w.server.gate.set()
        assert await call == "x in life 2"
        assert Server.begun == [(1, "x"), (1, "y"), (2, "x")]
        calls = [frame for frame in c.wires["b", "a"].sent if isinstance(frame, f.Call) and frame.channel == "safe"]
        assert len(calls) == 2 and len({frame.id for frame in calls}) == 1


async def test_so_are_those_that_had_not_been_sent(cluster, until) -> None:
    async with cluster("a", "b", memory=2, server="a/server") as c, asyncio.timeout(10):
        w = await World(c).open()
        calls = [asyncio.ensure_future(w.client.server.narrow(str(number))) for number in range(8)]
        await until(lambda: Server.begun)
        await w.die()
        await w.come_back()
        w.server.gate.set()
        assert await asyncio.gather(*calls) == [f"{number} in life 2" for number in range(8)]


async def test_a_task_is_started_again(cluster, until) -> None:
    async with cluster("a", "b", memory=3, server="a/server") as c, asyncio.timeout(10):
        w = await World(c).open()
        handle = await w.client.server.task.start("t")
        await until(lambda: Server.begun)
        await w.die()
        await w.come_back()
        w.server.gate.set()
        assert await handle.result() == "t in life 2"
        assert [report async for report in handle] == ["began in life 1", "began in life 2"]


async def test_not_for_ever(cluster, until) -> None:
    async with cluster("a", "b", memory=4, server="a/server") as c, asyncio.timeout(10):
        w = await World(c).open()
        call = asyncio.ensure_future(w.client.server.safe("x"))
        for life in range(1, remote.REPEATS + 2):
            await until(lambda life=life: len(Server.begun) == life)
            assert not call.done()
            await w.die()
            if life <= remote.REPEATS:
                await w.come_back()
        with pytest.raises(rc.NodeLost, match="effect of the call: unknown"):
            await call


async def test_nor_for_long(cluster, until, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "REPEAT_WITHIN_S", 0.02)
    async with cluster("a", "b", memory=5, server="a/server") as c, asyncio.timeout(10):
        w = await World(c).open()
        call = asyncio.ensure_future(w.client.server.safe("x"))
        await until(lambda: Server.begun)
        await w.die()
        with pytest.raises(rc.NodeLost, match=r"did not come back within 0.02 s.*effect of the call: unknown"):
            await call
        assert c.nodes["b"].network._bound_wanted == {}


async def test_who_has_given_up_is_not_repeated(cluster, until) -> None:
    async with cluster("a", "b", memory=6, server="a/server") as c, asyncio.timeout(10):
        w = await World(c).open()
        calls = [asyncio.ensure_future(w.client.server.safe(name)) for name in "xyz"]
        await until(lambda: len(Server.begun) == 3)
        await w.die()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await calls[2]
        calls[0].cancel()
        await asyncio.wait([calls[0]])
        await w.come_back()
        w.server.gate.set()
        assert await calls[1] == "y in life 2"
        assert Server.begun[3:] == [(2, "y")]
