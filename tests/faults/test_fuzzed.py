"""A live node hears well-formed nonsense and damaged chunks: it goes on, says why it hangs up, and grows no further."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest

import rolecall as rc
from rolecall.wire import encode
from rolecall.wire import frames as f
from rolecall.wire.exchange import Exchange, ExchangeLimits
from rolecall.wire.grpc_client import connect
from rolecall.wire.handshake import Dialling
from rolecall.wire.link import Link
from rolecall.wire.peers import Peer, new_incarnation

SECRET = b"a secret of one run"
GROWTH_BYTES = 64 << 20
FRAMES_EACH = 100
AT_ONCE = 50


class Target(rc.Role):
    news = rc.Topic(int)
    box = rc.Inbox(int, capacity=4)

    @rc.service(mailbox=2)
    async def add(self, numbers: list[int], more: int = 0) -> int:
        return sum(numbers) + more

    @rc.service(concurrent=3, mailbox=3)
    async def never(self) -> None:
        await asyncio.Event().wait()

    @rc.task(progress=str)
    async def work(self, text: str) -> str:
        rc.progress(text)
        return text

    @rc.stream(concurrent=4, mailbox=4)
    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(min(count, 100)):
            yield number


class Friend(rc.Role):
    target: Target = rc.one()


class Nonsense:
    """Frames and payloads that some node might send, and some that none would."""

    def __init__(self, seed: int, me: str) -> None:
        self.chance = random.Random(seed)
        self.me = me
        one_of = self.chance.choice
        names = ["add", "never", "work", "numbers", "news", "box", "setup", "_host", "", "add" * 100, "\u2603"]
        roles = ["a/target"] * 6 + ["a/node", "a/nobody", "x", "", me]
        self.makers = [
            lambda: f.Call(self.id(), one_of(roles), one_of(names), self.who(), self.order(),
                           one_of([None, -1.0, 1e18]), one_of([[], ["a:1:2 a/target.add"], ["x"] * 50]),
                           one_of(["call", "start", "stream"]), one_of([0, 1, 16, 2**31 - 1])),
            lambda: f.Put(self.id(), one_of(roles), one_of(names), self.who(), self.order()),
            lambda: f.Subscribe(self.id(), one_of(roles), one_of(names), self.who(),
                                one_of([[], [("x__lt", 1)], [("number", [[1]])], [("", None)]]),
                                one_of([0, 1, 2**31 - 1]), one_of(["wait", "drop_oldest", "latest"])),
            lambda: f.Ready(one_of(roles), one_of(names), self.who()),
            lambda: f.Credit(self.id(), one_of([0, 1, 2**31 - 1])),
            lambda: f.EventCredit(self.id(), one_of([0, 1, 2**31 - 1])),
            lambda: f.Failed(self.id(), f.WireError("builtins:KeyError", "x", {"a": [1]}, "", "x")),
            *(lambda kind=kind: kind(self.id()) for kind in (
                f.Reply, f.Cancel, f.Cancelled, f.Full, f.Admitted, f.Progress, f.Item, f.Ended, f.Subscribed,
                f.Unsubscribe, f.Event)),
        ]  # fmt: skip

    def id(self) -> int:
        return self.chance.choice([self.chance.randrange(20), 2**63 - 1])

    def order(self) -> int:
        return self.chance.choice([0, 0, 1, 2, 3, 2**63 - 1])

    def who(self) -> str:
        return self.chance.choice([self.me] * 5 + ["a/target", "b/friend", "nobody/x"])

    def frame(self) -> tuple[Any, list[Any]]:
        payload = self.chance.choice([[], encode(1), encode(([1, 2],)), encode(([1], {"more": 2})), encode("text")])
        if self.chance.random() < 0.3:
            payload = [self.chance.randbytes(self.chance.randrange(60)) for _ in range(self.chance.randrange(4))]
        return self.chance.choice(self.makers)(), list(payload)

    def damaged(self, data: bytes) -> bytes:
        changed = bytearray(data)
        for _ in range(self.chance.randint(1, 6)):
            at = self.chance.randrange(len(changed) + 1)
            changed[at : at + self.chance.randint(0, 3)] = self.chance.randbytes(self.chance.randint(0, 3))
        return bytes(changed)


async def rave(c: Any, address: str, seed: int) -> int:
    """Be a node that talks nonsense, until it is hung up on; return how much was said."""
    name = f"x{seed}"
    nonsense = Nonsense(seed, f"{name}/peer")
    links: list[Link] = []
    c.nodes["a"].network.bind(rc.RoleId(nonsense.me), name)
    limits = ExchangeLimits(dial_attempts=1, resume_s=0.0)
    async with Exchange(
        Peer(name, new_incarnation()), secret=SECRET, limits=limits, on_link=links.append, on_lost=lambda *lost: None
    ) as exchange:
        link = await exchange.dial(address)
        link.on_frame = lambda frame, payload: None
        said = nonsense.chance.randrange(1, FRAMES_EACH)
        for _ in range(said):
            link.send(*nonsense.frame())
            if nonsense.chance.random() < 0.1:
                await asyncio.sleep(0)
        await link.acknowledged()
        link.send(f.Cancel(1), [b"x" * 50])
        chunk = [bytes(segment) for segment in link.session.next_chunk() or [b"\x92"]]
        while (pipe := link._pipe) is not None and pipe.closed is None:
            pipe.write([nonsense.damaged(segment) for segment in chunk])
            said += 1
            await asyncio.sleep(0)
    return said


@pytest.mark.timeout(120)
async def test_frames(cluster, count, until, caplog: pytest.LogCaptureFixture) -> None:
    frames, said, seed = count(4_000, 100_000), 0, 0
    process = psutil.Process()
    async with cluster("a", "b", target="a/target") as c:
        caplog.set_level(logging.ERROR)
        await c.role("a/target", Target)
        friend = await c.role("b/friend", Friend)
        address = c.links["a"].exchange.me.address
        before = 0
        while said < frames:
            said += await rave(c, address, seed)
            seed += 1
            name = f"x{seed - 1}"
            await until(lambda name=name: any(peer == name for _, peer, _ in c.lost))
            assert await friend.target.add([1, 2], 3) == 6
            if said > frames // 4 and not before:
                gc.collect()
                before = process.memory_info().rss
        gc.collect()
        assert process.memory_info().rss - before < GROWTH_BYTES
        assert len(c.lost) == seed and all(why for _, _, why in c.lost)
        network = c.nodes["a"].network
        assert set(network._links) == set(network._inbound) == {"b"}
        assert not c.instance("a/target").running
        buffer = c.instance("a/target").inbox(Target.box.inbox).buffer
        assert len(buffer) <= 4 and not buffer._parked and not buffer._distant
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.timeout(120)
async def test_hellos(cluster, count, until, caplog: pytest.LogCaptureFixture) -> None:
    hellos = count(500, 20_000)
    caplog.set_level(logging.INFO, logger="rolecall.wire")
    process, before = psutil.Process(), None
    async with cluster("a", "b", target="a/target", limits=ExchangeLimits(handshake_s=0.2)) as c:
        await c.role("a/target", Target)
        friend = await c.role("b/friend", Friend)
        host, _, port = c.links["a"].exchange.me.address.rpartition(":")

        async def greet(seed: int) -> None:
            nonsense = Nonsense(seed, "x/peer")
            pipe = await connect(host, int(port), None)
            hello = [bytes(part) for part in Dialling(Peer(f"x{seed}", seed), SECRET, "").hello()]
            pipe.write([nonsense.damaged(hello[0])])
            pipe.write(nonsense.frame()[1])
            await pipe.wait_closed()
            await pipe.wait_gone()

        for first in range(0, hellos, AT_ONCE):
            caplog.clear()
            await asyncio.gather(*(greet(first + number) for number in range(AT_ONCE)))
            reasons = [record.getMessage() for record in caplog.records if "127.0.0.1:" in record.getMessage()]
            assert len(reasons) >= AT_ONCE and all(reason.count(": ") >= 1 for reason in reasons)
            kept = [argument for record in caplog.records for argument in record.args or ()]
            assert all(isinstance(argument, str | int | float) for argument in kept)  # and no error with its connection
            if before is None and first >= hellos // 4:
                gc.collect()
                before = process.memory_info().rss, process.num_fds()
        gc.collect()
        assert before is not None and process.memory_info().rss - before[0] < GROWTH_BYTES
        await until(lambda: process.num_fds() <= before[1])
        assert set(c.links["a"].exchange.links) == {"b"}
        assert await friend.target.add([1, 2], 3) == 6
