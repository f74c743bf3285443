"""A node that is lost and comes back: nothing of its old life reaches the new one."""

from __future__ import annotations

import asyncio
from typing import Any

import rolecall as rc
from rolecall.wire import frames as f
from rolecall.wire.arguments import ArgsCodec


class Server(rc.Role):
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.seen: list[int] = []

    @rc.service(mailbox=1)
    async def slow(self, number: int) -> int:
        self.seen.append(number)
        await self.gate.wait()
        return number


class Wire:
    """A link to a peer that is only what the test makes of it."""

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.on_frame: Any = None

    def send(self, frame: Any, segments: Any = (), *, compress: bool = False) -> None:
        self.sent.append(frame)

    def call(self, id_: int, order: int) -> None:
        """Have the peer call."""
        codec = ArgsCodec("slow", [("number", int, False)])
        segments = [memoryview(bytes(segment)) for segment in codec.encode((order,), {})]
        self.on_frame(f.Call(id_, "a/server", "slow", "x/peer", order, None, [], "call", 0), segments)


def join(c: Any) -> Wire:
    """Give node `a` a link to a new life of node `x`."""
    wire = Wire()
    network = c.nodes["a"].network
    network.join("x", wire)
    network.bind(rc.RoleId("x/peer"), "x")
    return wire


async def test_answers_for_an_old_life_do_not_go_to_the_new_one(cluster, until) -> None:
    async with cluster("a", memory=0) as c:
        server = await c.role("a/server", Server)
        old = join(c)
        for number in range(4):
            old.call(number + 1, number)
        await until(lambda: server.seen == [0])
        c.nodes["a"].network.leave("x", "it is gone")
        new = join(c)
        server.gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert new.sent == []
        new.call(1, 0)
        await until(lambda: new.sent)
        assert new.sent == [f.Reply(1)]


async def test_a_sender_that_begins_anew_is_heard(cluster, until) -> None:
    async with cluster("a", memory=0) as c:
        server = await c.role("a/server", Server)
        server.gate.set()
        wire = join(c)
        for life in range(3):
            for number in range(3):
                wire.call(10 * life + number, number)
                await until(lambda life=life, number=number: f.Reply(10 * life + number) in wire.sent)
        assert server.seen == [0, 1, 2] * 3


async def test_few_of_many_that_were_refused_come_again_at_once(cluster, until) -> None:
    async with cluster("a", "b", memory=1, server="a/server") as c, asyncio.timeout(20):
        server = await c.role("a/server", Server)
        client = await c.role("b/client", Client)
        calls = [asyncio.ensure_future(client.server.slow(number)) for number in range(200)]
        await until(lambda: server.seen)
        server.gate.set()
        assert await asyncio.gather(*calls) == list(range(200))
        assert sum(wire.sent_frames[f.Call] for wire in c.wires.values()) < 5 * 200


class Client(rc.Role):
    server: Server = rc.one()
