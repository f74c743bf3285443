"""The fast seam: links between simulated nodes, and what cuts, crashes and restarts do to them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rolecall.core.place import context_of
from rolecall.sim.courier import Courier
from rolecall.sim.loop import VirtualLoop
from rolecall.sim.network import Access, Network, Path
from rolecall.sim.seam import Seam, address_of
from rolecall.sim.simulate import simulate
from rolecall.wire.exchange import Exchange
from rolecall.wire.frames import Cancel, Reply
from rolecall.wire.limits import Limits
from rolecall.wire.link import Link
from rolecall.wire.peers import LinkRefused, Peer, Unreachable
from rolecall.wire.session_limits import SessionLimits


class SimulatedNode:
    """An exchange, and what it has heard."""

    def __init__(self, name: str, life: int, limits: SessionLimits | None = None) -> None:
        self.name, self.heard, self.lost = name, list[tuple[float, Any, bytes]](), list[tuple[float, str, str]]()
        self.links: list[Link] = []
        bounds = Seam.limits()
        if limits is not None:
            bounds = type(bounds)(session=limits, shared_memory=None)
        self.exchange = Exchange(Peer(name, life), on_link=self.linked, on_lost=self.missed, limits=bounds)

    def linked(self, link: Link) -> None:
        self.links.append(link)
        link.on_frame = self.hear

    def hear(self, frame: Any, payload: Sequence[memoryview]) -> None:
        self.heard.append((now(), frame, b"".join(payload)))

    def missed(self, peer: Peer, reason: str) -> None:
        self.lost.append((now(), peer.name, reason))

    @property
    def numbers(self) -> list[int]:
        return [frame.id for _, frame, _ in self.heard]


class World:
    """Nodes on a network where every message takes 10 ms, unless told otherwise."""

    def __init__(self, path: Path | None = None, seed: int = 0) -> None:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        self.network = Network(seed, path or Path(latency_s=0.01))
        self.courier = Courier(self.network, loop)
        self.seam, self.stack = Seam(self.courier), AsyncExitStack()

    async def __aenter__(self) -> World:
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self.stack.aclose()

    async def node(self, name: str, life: int = 1, limits: SessionLimits | None = None) -> SimulatedNode:
        made = SimulatedNode(name, life, limits)
        self.seam.open(made.exchange)
        await self.act(name, self.stack.enter_async_context, made.exchange)
        return made

    async def act(self, name: str, function: Callable[..., Awaitable[Any]], *args: Any) -> Any:
        """Do something as a node."""

        async def run() -> Any:
            return await function(*args)

        return await asyncio.create_task(run(), context=context_of(name))

    async def link(self, a: SimulatedNode, b: SimulatedNode) -> Link:
        link: Link = await self.act(a.name, a.exchange.dial, address_of(b.name), b.name)
        await asyncio.sleep(1)
        return link


def now() -> float:
    return asyncio.get_running_loop().time()


def in_world(test: Callable[[World], Awaitable[None]], *, seed: int = 0, path: Path | None = None) -> None:
    async def main() -> None:
        async with World(path, seed) as world:
            await test(world)

    simulate(main, seed=seed)


def test_both_sides_of_a_link_send() -> None:
    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        link = await world.link(a, b)
        began_s = now()
        link.send(Reply(1), [b"there", memoryview(b"!")])
        b.links[0].send(Reply(2))
        await asyncio.sleep(1)
        assert b.heard == [(began_s + 0.01, Reply(1), b"there!")]
        assert a.heard == [(began_s + 0.01, Reply(2), b"")]
        assert link.peer.name == "b" and b.links[0].peer.name == "a"
        assert link.round_trip_s == pytest.approx(0.02)

    in_world(test)


def test_what_changes_after_it_was_sent_has_been_sent_as_it_was() -> None:
    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        link, buffer = await world.link(a, b), bytearray(b"before")
        link.send(Reply(1), [memoryview(buffer)])
        await asyncio.sleep(1)
        buffer[:] = b"after!"
        assert b.heard[0][2] == b"before"

    in_world(test)


def test_a_link_takes_two_round_trips_and_one_for_the_connection() -> None:
    async def test(world: World) -> None:
        a, _ = await world.node("a"), await world.node("b")
        began_s = now()
        await a.exchange.dial(address_of("b"), "b")
        assert now() - began_s == pytest.approx(0.06)

    in_world(test)


def test_a_broken_link_goes_on_with_what_had_not_arrived() -> None:
    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        link = await world.link(a, b)
        link.send(Reply(1))
        b.links[0].send(Reply(2))
        await asyncio.sleep(0.005)
        world.courier.cut("a", "b")
        await asyncio.sleep(0.5)
        assert not link.connected and not link.lost
        assert a.heard == b.heard == []
        world.courier.heal()
        await asyncio.sleep(1)
        assert link.connected and link.connection > 0
        assert (a.numbers, b.numbers) == ([2], [1])
        assert len(a.links) == len(b.links) == 1

    in_world(test)


def test_a_short_silence_is_only_a_delay() -> None:
    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        link = await world.link(a, b)
        world.courier.cut("a", "b", how="silence")
        link.send(Reply(1))
        await asyncio.sleep(1)
        assert b.heard == []
        world.courier.heal()
        await asyncio.sleep(1)
        assert b.numbers == [1] and link.connection == 0

    in_world(test)


@pytest.mark.parametrize("how", ["reset", "silence"])
def test_a_long_cut_ends_the_link_for_both_and_for_good(how: Any) -> None:
    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        await world.link(a, b)
        began_s = now()
        world.courier.cut("a", "b", how=how)
        await asyncio.sleep(5)
        for node, other in ((a, "b"), (b, "a")):
            assert [name for _, name, _ in node.lost] == [other]
            assert node.lost[0][0] - began_s < 3.0
        world.courier.heal()
        with pytest.raises(LinkRefused, match="has given up"):
            await world.act("a", a.exchange.dial, address_of("b"), "b")

    in_world(test)


def test_a_cut_in_one_direction_is_noticed_by_both() -> None:
    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        await world.link(a, b)
        world.courier.cut("a", "b", both=False, how="silence")
        await asyncio.sleep(10)
        assert len(a.lost) == len(b.lost) == 1

    in_world(test)


@pytest.mark.parametrize(("how", "within_s"), [("silence", 3.0), ("reset", 1.0)])
def test_a_crash_is_found_out(how: Any, within_s: float) -> None:
    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        await world.link(a, b)
        began_s = now()
        world.seam.crash("b", how)
        await asyncio.sleep(10)
        assert [name for _, name, _ in a.lost] == ["b"]
        assert a.lost[0][0] - began_s < within_s
        assert b.lost == []

    in_world(test)


def test_a_node_comes_back_as_another_life() -> None:
    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        link = await world.link(a, b)
        world.seam.crash("b")
        link.send(Reply(1))
        again = await world.node("b", 2)
        await world.link(again, a)
        assert [reason for _, _, reason in a.lost] == ["it has been restarted"]
        a.links[-1].send(Reply(2))
        await asyncio.sleep(1)
        assert (b.numbers, again.numbers) == ([], [2])

    in_world(test)


def test_nobody_listens() -> None:
    async def test(world: World) -> None:
        a = await world.node("a")
        with pytest.raises(Unreachable, match=r"b:1: no node could be reached, tried 8 times \(connection refused\)"):
            await a.exchange.dial(address_of("b"), "b")
        b = await world.node("b")
        world.seam.crash("b")
        with pytest.raises(Unreachable, match=r"no answer within 5 s"):
            await a.exchange.dial(address_of("b"), "b")
        assert b.links == []

    in_world(test)


@pytest.mark.parametrize("seed", range(20))
def test_two_that_dial_each_other_have_one_link(seed: int) -> None:
    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        links = await asyncio.gather(
            world.act("a", a.exchange.dial, address_of("b"), "b"), world.act("b", b.exchange.dial, address_of("a"), "a")
        )
        assert len(a.exchange.links) == len(b.exchange.links) == 1
        assert set(links) == {a.exchange.links["b"], b.exchange.links["a"]}
        links[0].send(Reply(1))
        links[1].send(Reply(2))
        await asyncio.sleep(1)
        assert (a.numbers, b.numbers) == ([2], [1])
        assert not a.lost and not b.lost

    in_world(test, seed=seed, path=Path(latency_s=0.01, jitter_s=0.02))


def test_what_is_urgent_overtakes_what_is_large() -> None:
    async def test(world: World) -> None:
        world.network.attach("a", Access(up_bps=8e6))  # a megabyte a second
        a, b = await world.node("a"), await world.node("b")
        link = await world.link(a, b)
        began_s = now()
        link.send(Reply(1), [bytes(4_000_000)])
        await asyncio.sleep(0.1)
        link.send(Cancel(2))
        await asyncio.sleep(10)
        (urgent_s, _, _), (large_s, _, _) = b.heard
        assert b.numbers == [2, 1]
        assert urgent_s - began_s < 1.5
        assert large_s - began_s > 4.0

    in_world(test)


def test_who_sends_too_much_at_once_is_hung_up_on() -> None:
    async def test(world: World) -> None:
        a = await world.node("a")
        b = await world.node("b", limits=SessionLimits(wire=Limits(frame_bytes=100_000)))
        link = await world.link(a, b)
        link.send(Reply(1), [bytes(150_000)])
        await asyncio.sleep(1)
        assert b.heard == []
        assert "150," in b.lost[0][2] and "100,000 are allowed" in b.lost[0][2]
        assert link.lost

    in_world(test)


def test_a_closed_link_says_why() -> None:
    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        link = await world.link(a, b)
        link.close("enough")
        await asyncio.sleep(1)
        assert [reason for _, _, reason in b.lost] == ["it has ended the link: enough"]
        assert not world.courier.connections

    in_world(test)


Step = st.tuples(st.sampled_from(["a", "b", "reset", "one-way", "silence", "heal"]), st.floats(0, 0.15))


@settings(max_examples=60, deadline=None)
@given(st.lists(Step, max_size=40), st.integers(0, 1_000))
@example([("a", 0.0), *[("a", 0.125)] * 3, ("b", 0.0), *[("reset", 0.0)] * 4, *[("reset", 0.125)] * 2], 0)
def test_what_is_sent_arrives_once_and_in_order_whatever_is_cut(steps: list[tuple[str, float]], seed: int) -> None:
    """As long as no cut lasts until the link is given up; every step heals the cut before it."""

    async def test(world: World) -> None:
        a, b = await world.node("a"), await world.node("b")
        await world.link(a, b)
        ends, sent = {"a": a.links[0], "b": b.links[0]}, {"a": 0, "b": 0}
        for what, pause_s in steps:
            if what in ends:
                ends[what].send(Reply(sent[what]), [bytes(1_000 * (sent[what] % 3))])
                sent[what] += 1
            else:
                world.courier.heal()
                if what != "heal":
                    how: Any = "reset" if what == "reset" else "silence"
                    world.courier.cut("a", "b", both=what != "one-way", how=how)
            await asyncio.sleep(pause_s)
            if what not in ends:
                await asyncio.sleep(0.3)
                world.courier.heal()
                await asyncio.sleep(1)  # one cut right after another would be one that lasts
        await asyncio.sleep(2)
        assert a.numbers == list(range(sent["b"]))
        assert b.numbers == list(range(sent["a"]))
        assert not a.lost and not b.lost
        assert ends["a"].session.idle and ends["b"].session.idle

    in_world(test, seed=seed, path=Path(latency_s=0.01, jitter_s=0.01, bandwidth_bps=1e7, loss=0.01))
