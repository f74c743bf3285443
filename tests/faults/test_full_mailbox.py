"""A mailbox that is full, with callers on other nodes: order, fairness, and the rest of the link."""

from __future__ import annotations

import asyncio
import random

import anyio
import pytest

import rolecall as rc

CALLERS = 5


class Narrow(rc.Role):
    """Has a channel with a small mailbox, one bounded in bytes, and an open one."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.stopped = 0

    @rc.service(mailbox=2)
    async def slow(self, number: int) -> int:
        self.seen.append((rc.caller(), number))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        return number

    @rc.service(mailbox_bytes=2_000)
    async def heavy(self, number: int, body: bytes) -> int:
        self.seen.append((rc.caller(), number))
        await self.gate.wait()
        return number

    @rc.service
    async def echo(self, number: int) -> int:
        return number

    def of(self, caller: str) -> list[int]:
        """The numbers that a caller's messages had, in the order they came."""
        return [number for source, number in self.seen if source == caller]


class Caller(rc.Role):
    narrow: Narrow = rc.one()

    async def flood(self, count: int) -> list[int]:
        """Call many times at once."""
        return await asyncio.gather(*(self.narrow.slow(number) for number in range(count)))

    async def flood_heavy(self, sizes: list[int]) -> list[int]:
        calls = (self.narrow.heavy(number, bytes(size)) for number, size in enumerate(sizes))
        return await asyncio.gather(*calls)


@pytest.fixture(params=[None, 0, 1, 2, 3], ids=lambda seed: "loopback" if seed is None else f"memory{seed}")
def seed(request):
    """How the nodes are linked."""
    return request.param


async def narrow_and_callers(c, count: int = CALLERS):
    narrow = await c.role("a/narrow", Narrow)
    return narrow, [await c.role(f"{'bc'[n % 2]}/caller{n}", Caller) for n in range(count)]


async def test_each_callers_order_is_kept_and_nobody_starves(cluster, seed) -> None:
    async with cluster("a", "b", "c", memory=seed, narrow="a/narrow") as c:
        narrow, callers = await narrow_and_callers(c)
        async with asyncio.timeout(10):
            answers = await asyncio.gather(*(caller.flood(40) for caller in callers))
        assert answers == [list(range(40))] * CALLERS
        for caller in callers:
            assert narrow.of(caller.id) == list(range(40))


async def test_a_mailbox_bounded_in_bytes_lets_everybody_in_at_last(cluster, seed) -> None:
    generator = random.Random(seed)
    plans = [[generator.choice((10, 600, 1_900, 4_000)) for _ in range(20)] for _ in range(CALLERS)]
    async with cluster("a", "b", "c", memory=seed, narrow="a/narrow") as c:
        narrow, callers = await narrow_and_callers(c)
        async with asyncio.timeout(10):
            work = (caller.flood_heavy(plan) for caller, plan in zip(callers, plans, strict=True))
            await asyncio.gather(*work)
        for caller in callers:
            assert narrow.of(caller.id) == list(range(20))


async def test_one_large_message_that_leaves_makes_room_for_many(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, narrow="a/narrow") as c:
        narrow, callers = await narrow_and_callers(c)
        narrow.gate.clear()
        first = [asyncio.ensure_future(callers[0].narrow.heavy(n, bytes(1_990))) for n in range(2)]
        await until(lambda: len(narrow.seen) == 1 and len(c.instance("a/narrow").dispatchers["heavy"].mailbox) == 1)
        others = [asyncio.ensure_future(caller.narrow.heavy(9, bytes(10))) for caller in callers[1:]]
        await callers[0].narrow.echo(1)
        narrow.gate.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*first, *others)


async def test_other_channels_of_the_link_are_not_held_up(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, narrow="a/narrow") as c:
        narrow, callers = await narrow_and_callers(c)
        narrow.gate.clear()
        floods = [asyncio.ensure_future(caller.flood(30)) for caller in callers]
        await until(lambda: narrow.seen)
        for number in range(50):
            assert await callers[number % CALLERS].narrow.echo(number) == number
        assert len(narrow.seen) == 1
        narrow.gate.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*floods)


async def test_callers_that_give_up_make_way_for_others(cluster, seed, until) -> None:
    generator = random.Random(seed)
    async with cluster("a", "b", "c", memory=seed, narrow="a/narrow") as c:
        narrow, callers = await narrow_and_callers(c)
        narrow.gate.clear()
        calls = {(caller.id, n): asyncio.ensure_future(caller.narrow.slow(n)) for n in range(12) for caller in callers}
        await until(lambda: narrow.seen)
        given_up = set(generator.sample(sorted(calls), 40))
        for key in given_up:
            calls[key].cancel()
            await callers[0].narrow.echo(0)
        narrow.gate.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*calls.values(), return_exceptions=True)
        for caller in callers:
            seen = narrow.of(caller.id)
            assert seen == sorted(set(seen))
            assert {n for n in range(12) if (caller.id, n) not in given_up} <= set(seen)
        assert all(calls[key].cancelled() == (key in given_up) for key in calls)


async def test_all_of_one_node_give_up_while_they_are_told_of_room(cluster, until) -> None:
    async with cluster("a", "b", "c", memory=7, narrow="a/narrow") as c:
        narrow, callers = await narrow_and_callers(c, 4)
        narrow.gate.clear()
        full = [asyncio.ensure_future(callers[0].narrow.slow(n)) for n in range(3)]
        await until(lambda: len(c.instance("a/narrow").dispatchers["slow"].mailbox) == 2)
        early = [asyncio.ensure_future(callers[2].narrow.slow(n)) for n in range(3)]
        await callers[2].narrow.echo(0)
        late = [asyncio.ensure_future(callers[n].narrow.slow(5)) for n in (1, 3)]
        await callers[1].narrow.echo(0)
        await callers[3].narrow.echo(0)
        narrow.gate.set()
        for call in early:
            call.cancel()
        async with asyncio.timeout(10):
            await asyncio.gather(*full, *late)


async def test_a_node_that_dies_makes_way_for_others(cluster, until) -> None:
    async with cluster("a", "b", "c", memory=3, narrow="a/narrow") as c:
        narrow, callers = await narrow_and_callers(c, 4)
        narrow.gate.clear()
        full = [asyncio.ensure_future(callers[1].narrow.slow(n)) for n in range(3)]
        await until(lambda: len(c.instance("a/narrow").dispatchers["slow"].mailbox) == 2)
        dead = [asyncio.ensure_future(callers[0].narrow.slow(n)) for n in range(6)]
        dead += [asyncio.ensure_future(callers[2].narrow.slow(n)) for n in range(6)]
        await callers[2].narrow.echo(0)
        late = [asyncio.ensure_future(callers[n].narrow.slow(5)) for n in (1, 3)]
        await callers[3].narrow.echo(0)
        c.cut("a", "b")
        narrow.gate.set()
        async with asyncio.timeout(10):
            assert all(isinstance(e, rc.NodeLost) for e in await asyncio.gather(*dead, return_exceptions=True))
            await asyncio.gather(*full, *late)


async def test_deadlines_pass_over_messages_that_wait_for_room(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, narrow="a/narrow") as c:
        narrow, callers = await narrow_and_callers(c)
        narrow.gate.clear()
        first = asyncio.ensure_future(callers[0].narrow.slow(0))
        await until(lambda: narrow.seen)

        async def late(caller: Caller, number: int) -> None:
            with rc.deadline(0.05):
                await caller.narrow.slow(number)

        calls = (late(caller, n) for n in range(1, 6) for caller in callers)
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, rc.DeadlineExceeded)
        narrow.gate.set()
        assert await first == 0
        async with asyncio.timeout(10):
            assert await asyncio.gather(*(caller.flood(5) for caller in callers)) == [list(range(5))] * CALLERS


async def test_cancelling_a_call_reaches_the_handler(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, narrow="a/narrow") as c:
        narrow, callers = await narrow_and_callers(c)
        narrow.gate.clear()
        call = asyncio.ensure_future(callers[0].narrow.slow(0))
        await until(lambda: narrow.seen)
        call.cancel()
        with anyio.fail_after(5):
            await asyncio.gather(call, return_exceptions=True)
        assert call.cancelled()
        assert narrow.stopped == 1
        assert c.lines == []


async def test_a_call_that_is_cancelled_at_once_never_runs_on(cluster, seed) -> None:
    async with cluster("a", "b", "c", memory=seed, narrow="a/narrow") as c:
        narrow, callers = await narrow_and_callers(c)
        narrow.gate.clear()
        call = asyncio.ensure_future(callers[0].narrow.slow(0))
        await asyncio.sleep(0)
        call.cancel()
        with anyio.fail_after(5):
            await asyncio.gather(call, return_exceptions=True)
            narrow.gate.set()
            assert await callers[0].narrow.slow(1) == 1
        assert c.lines == []
