"""Links that are slowed down on purpose, in virtual time and over real connections."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

from rolecall.sim.courier import Courier
from rolecall.sim.loop import VirtualLoop
from rolecall.sim.network import Network, Path
from rolecall.sim.seam import Seam, address_of
from rolecall.sim.simulate import simulate
from rolecall.wire.exchange import Exchange
from rolecall.wire.frames import Cancel, Reply
from rolecall.wire.link import Link
from rolecall.wire.pacing import HELD_BYTES
from rolecall.wire.peers import Peer


class Two:
    """Two nodes whose connection takes no time; `a` slows down what it sends."""

    def __init__(self, pace: Callable[[int, float], float]) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.loop, self.heard = loop, list[tuple[float, Any]]()
        self.courier = Courier(Network(), loop)
        seam = Seam(self.courier)
        self.lost: list[str] = []
        self.a, self.b = (
            Exchange(Peer(name, 1), on_link=self.linked, on_lost=self.ended, limits=Seam.limits()) for name in "ab"
        )
        self.a.pace_by(lambda peer: pace)
        for exchange in (self.a, self.b):
            seam.open(exchange)

    def linked(self, link: Link) -> None:
        link.on_frame = self.hear

    def hear(self, frame: Any, payload: Sequence[memoryview]) -> None:
        self.heard.append((self.loop.now_s(), frame.id))

    def ended(self, peer: Peer, reason: str) -> None:
        self.lost.append(reason)


def with_two(pace: Callable[[int, float], float], test: Callable[[Two, Link], Awaitable[None]]) -> None:
    async def main() -> None:
        two = Two(pace)
        async with AsyncExitStack() as stack:
            for exchange in (two.a, two.b):
                await stack.enter_async_context(exchange)
            link = await two.a.dial(address_of("b"), "b")
            await test(two, link)

    simulate(main)


def test_what_is_sent_arrives_when_it_should() -> None:
    async def test(two: Two, link: Link) -> None:
        link.send(Reply(1))
        two.b.links["a"].send(Reply(2))
        await asyncio.sleep(0.1)
        link.send(Reply(3))
        await asyncio.sleep(1)
        assert [number for _, number in two.heard] == [2, 1, 3]
        assert [round(at_s, 6) for at_s, _ in two.heard] == [0.0, 0.3, 0.4]  # the other direction is as it was
        assert not two.lost

    with_two(lambda size, now_s: now_s + 0.3, test)


def test_what_is_urgent_overtakes_what_has_not_been_taken_in() -> None:
    pair = Network(default=Path(bandwidth_bps=8e6)).pair("a", "b")  # a megabyte a second

    async def test(two: Two, link: Link) -> None:
        link.send(Reply(1), [bytes(4 * HELD_BYTES)])
        await asyncio.sleep(0.2)
        link.send(Cancel(2))
        await asyncio.sleep(10)
        (urgent_s, first), (large_s, second) = two.heard
        assert (first, second) == (2, 1)
        assert urgent_s < 2.0
        assert large_s > 4.0
        assert not two.lost

    with_two(lambda size, now_s: pair.deliver_at(size, now_s) or 0.0, test)


def test_a_connection_that_breaks_loses_nothing() -> None:
    async def test(two: Two, link: Link) -> None:
        for number in range(5):
            link.send(Reply(number))
            await asyncio.sleep(0.1)
        two.courier.cut("a", "b")
        two.courier.heal()
        await asyncio.sleep(2)
        assert [number for _, number in two.heard] == [0, 1, 2, 3, 4]
        assert link.connection == 1 and link.session.idle
        assert not two.lost

    with_two(lambda size, now_s: now_s + 0.3, test)


def test_a_closed_link_says_so_at_once() -> None:
    async def test(two: Two, link: Link) -> None:
        link.send(Reply(1))
        await asyncio.sleep(0.1)
        link.close("enough")
        await asyncio.sleep(0.1)
        assert two.lost == ["it has ended the link: enough"]
        assert [number for _, number in two.heard] == [1]

    with_two(lambda size, now_s: now_s + 0.3, test)


async def test_a_real_connection_is_slowed_down_too(linked: Any) -> None:
    async with linked() as net:
        a, b = await net.node("a"), await net.node("b", listen=False)
        for node in (a, b):
            node.exchange.pace_by(lambda peer: lambda size, now_s: now_s + 0.03)
        link = await b.exchange.dial(a.address)
        await net.until(lambda: a.exchange.links)
        assert link.peer.capabilities == ()  # no memory is shared, which would be as fast as ever
        began_s = asyncio.get_running_loop().time()
        link.send(Reply(1))
        await link.acknowledged()
        assert asyncio.get_running_loop().time() - began_s >= 0.06
