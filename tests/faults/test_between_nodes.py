"""What roles on different nodes may do to one another: cycles, streams, topics, inboxes, groups and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

import rolecall as rc


class Turn(rc.Role):
    """Goes on to the nodes that are named, one after another."""

    to_a: Turn = rc.one()
    to_b: Turn = rc.one()
    to_c: Turn = rc.one()

    @rc.service(mailbox=1)
    async def go(self, path: str) -> int:
        return 1 + await getattr(self, f"to_{path[0]}").go(path[1:]) if path else 0

    @rc.service(concurrent=True)
    async def begin(self, path: str) -> int:
        return await getattr(self, f"to_{path[0]}").go(path[1:])


RING = {"to_a": "a/turn", "to_b": "b/turn", "to_c": "c/turn"}


class Source(rc.Role):
    news = rc.Topic(int)
    box = rc.Inbox(int, capacity=2)

    def __init__(self) -> None:
        self.written = self.ended = 0
        self.gate = asyncio.Event()

    @rc.stream(concurrent=4)
    async def numbers(self, count: int) -> AsyncIterator[int]:
        try:
            for number in range(count):
                self.written += 1
                yield number
        finally:
            self.ended += 1

    @rc.service(concurrent=True)
    async def wait(self) -> str:
        await self.gate.wait()
        return self.id

    @rc.service
    async def broken(self) -> None:
        raise KeyError("no such thing")


class Member(rc.Role):
    source: Source = rc.one()
    sources: rc.Group[Source] = rc.many()

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.taken: list[int] = []

    async def take(self, count: int, **options: Any) -> None:
        """Subscribe, and take so many events once the gate is open."""
        async with self.source.news.subscribe(**options) as events:
            await self.gate.wait()
            async for _, number in events:
                self.taken.append(number)
                if len(self.taken) >= count:
                    return


@pytest.fixture(params=[None, 0, 1, 2], ids=lambda seed: "loopback" if seed is None else f"memory{seed}")
def seed(request):
    """How the nodes are linked."""
    return request.param


@pytest.mark.parametrize("path", ["abca", "abb", "acbac"])
async def test_a_cycle_across_nodes_is_an_error(cluster, seed, path) -> None:
    async with cluster("a", "b", "c", memory=seed, **RING) as c, asyncio.timeout(10):
        turns = {node: await c.role(f"{node}/turn", Turn) for node in "abc"}
        with pytest.raises(rc.CallCycle):
            await turns["c"].to_a.begin(path)
        assert await turns["c"].to_a.begin("abc") == 2


async def test_a_cycle_is_an_error_where_the_mailbox_is_full(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, **RING) as c, asyncio.timeout(10):
        turns = {node: await c.role(f"{node}/turn", Turn) for node in "abc"}
        begun = [asyncio.ensure_future(turns["c"].to_a.begin("abca")) for _ in range(6)]
        begun += [asyncio.ensure_future(turns["b"].to_a.begin("a")) for _ in range(6)]
        results = await asyncio.gather(*begun, return_exceptions=True)
        assert all(isinstance(result, rc.CallCycle) for result in results[:6]), results
        assert results[6:] == [0] * 6


async def test_a_stream_waits_for_its_reader_and_ends_when_it_leaves(cluster, seed, until) -> None:
    async with cluster("a", "b", memory=seed, source="a/source") as c, asyncio.timeout(10):
        source, member = await c.role("a/source", Source), await c.role("b/member", Member)
        read = 0
        async with aclosing(member.source.numbers(1_000)) as numbers:
            async for number in numbers:
                assert number == read
                read += 1
                assert source.written <= read + 32
                if read == 100:
                    break
        await until(lambda: source.ended)
        assert source.written < 150
        assert [number async for number in member.source.numbers(100)] == list(range(100))


@pytest.mark.parametrize("overflow", ["wait", "drop_oldest", "latest"])
async def test_events_to_a_slow_member(cluster, seed, until, overflow) -> None:
    async with cluster("a", "b", memory=seed, source="a/source") as c, asyncio.timeout(10):
        source, member = await c.role("a/source", Source), await c.role("b/member", Member)
        wanted = 200 if overflow == "wait" else 10_000
        taking = asyncio.ensure_future(member.take(wanted, overflow=overflow, capacity=4))
        await asyncio.sleep(0)
        await c.nodes["b"].network.subscribed()

        async def emit() -> None:
            for number in range(200):
                await source.news.emit(number)

        emitting = asyncio.ensure_future(emit())
        if overflow != "wait":
            await emitting
        member.gate.set()
        await until(lambda: member.taken and member.taken[-1] == 199)
        assert member.taken == sorted(set(member.taken))
        assert len(member.taken) == 200 if overflow == "wait" else len(member.taken) < 60
        await emitting
        taking.cancel()
        await asyncio.wait([taking])


async def test_members_come_and_go_while_events_are_emitted(cluster, seed) -> None:
    async with cluster("a", "b", "c", memory=seed, source="a/source") as c, asyncio.timeout(20):
        source = await c.role("a/source", Source)
        members = [await c.role(f"{'bc'[n % 2]}/member{n}", Member) for n in range(4)]
        for member in members:
            member.gate.set()

        async def come_and_go(member: Member) -> None:
            for _ in range(5):
                member.taken.clear()
                await member.take(20, capacity=2)
                first = member.taken[0]
                assert member.taken == list(range(first, first + 20))

        async def emit() -> None:
            for number in range(100_000):
                await source.news.emit(number)
                await asyncio.sleep(0)

        emitting = asyncio.ensure_future(emit())
        await asyncio.gather(*map(come_and_go, members))
        emitting.cancel()
        await asyncio.wait([emitting])
        assert c.letters == []


async def test_a_full_inbox_makes_its_senders_wait_in_order(cluster, seed) -> None:
    async with cluster("a", "b", memory=seed, source="a/source") as c, asyncio.timeout(10):
        source, member = await c.role("a/source", Source), await c.role("b/member", Member)
        puts = [asyncio.ensure_future(member.source.box.put(number)) for number in range(50)]
        assert [await source.box.take() for _ in range(50)] == list(range(50))
        await asyncio.gather(*puts)


async def test_a_quorum_while_a_node_dies(cluster) -> None:
    async with cluster("a", "b", "c", memory=5, sources="*/source") as c, asyncio.timeout(10):
        sources = [await c.role(f"{node}/source", Source) for node in "abc"]
        member = await c.role("c/member", Member)
        sources[0].gate.set()
        asking = asyncio.ensure_future(member.sources.within(quorum=2).call(Source.wait))
        await member.sources.within(quorum=1).call(Source.wait)
        c.cut("b", "c")
        sources[2].gate.set()
        replies = await asking
        assert set(replies) == {"a/source", "c/source"}


async def test_an_error_comes_with_the_traceback_of_its_node(cluster, seed) -> None:
    async with cluster("a", "b", memory=seed, source="a/source") as c, asyncio.timeout(10):
        await c.role("a/source", Source)
        member = await c.role("b/member", Member)
        with pytest.raises(KeyError, match="no such thing") as raised:
            await member.source.broken()
        assert any("test_between_nodes.py" in note and "in broken" in note for note in raised.value.__notes__)
