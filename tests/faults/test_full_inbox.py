"""An inbox that is full, with senders on other nodes: bounds, order, fairness, and who has gone."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

import rolecall as rc


class Item(msgspec.Struct, frozen=True):
    number: int
    kind: str = ""
    body: bytes = b""


class Taker(rc.Role):
    box = rc.Inbox(Item, key=lambda item: item.kind, capacity=2)
    heavy = rc.Inbox(Item, capacity_bytes=1_000)

    async def numbers(self, count: int) -> list[int]:
        return [(await self.box.take()).number for _ in range(count)]


class Sender(rc.Role):
    taker: Taker = rc.one()

    def flood(self, count: int, kind: str = "") -> list[asyncio.Future[None]]:
        """Put many messages at once."""
        return [asyncio.ensure_future(self.taker.box.put(Item(number, kind))) for number in range(count)]


@pytest.fixture(params=[None, 0, 1, 2], ids=lambda seed: "loopback" if seed is None else f"memory{seed}")
def seed(request):
    """How the nodes are linked."""
    return request.param


async def opened(c: Any) -> tuple[Taker, list[Sender]]:
    return await c.role("a/taker", Taker), [await c.role(f"{node}/sender", Sender) for node in "abc"]


def held(c: Any, name: str = "box") -> int:
    """How many messages node `a` holds in the inbox, those that wait for room included."""
    taker = c.instance("a/taker")
    buffer = taker.inbox(taker.declared.inboxes[name]).buffer
    return len(buffer) + len(buffer._parked)


async def settle() -> None:
    for _ in range(300):
        await asyncio.sleep(0)


async def test_the_receiver_holds_no_more_than_its_capacity(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, taker="a/taker") as c, asyncio.timeout(10):
        taker, (_, b, _) = await opened(c)
        puts = b.flood(200)
        await until(lambda: held(c) == 2)
        await settle()
        assert held(c) == 2
        assert await taker.numbers(200) == list(range(200))
        await asyncio.gather(*puts)


async def test_it_holds_no_more_bytes_than_allowed(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, taker="a/taker") as c, asyncio.timeout(10):
        taker, (_, b, d) = await opened(c)
        puts = [
            asyncio.ensure_future(sender.taker.heavy.put(Item(number, body=bytes(size))))
            for sender in (b, d)
            for number, size in enumerate((600, 300, 2_000, 10, 900))
        ]
        await until(lambda: held(c, "heavy"))
        await settle()
        assert held(c, "heavy") <= 2
        taken = [await taker.heavy.take() for _ in range(10)]
        await asyncio.gather(*puts)
        assert sorted(item.number for item in taken) == sorted([0, 1, 2, 3, 4] * 2)


async def test_senders_here_and_elsewhere_take_turns(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, taker="a/taker") as c, asyncio.timeout(10):
        taker, senders = await opened(c)
        puts = [put for sender in senders for put in sender.flood(30)]
        await until(lambda: held(c) >= 2)
        await settle()
        order: list[rc.RoleId] = []
        while len(order) < 90:
            await asyncio.sleep(0)
            order += [source for source, _ in taker.box.drain()] if len(order) < 2 else []
            if len(order) >= 2:
                buffer = c.instance("a/taker").inbox(Taker.box.inbox).buffer
                order.append((await buffer.take())[0])
        await asyncio.gather(*puts)
        assert {order.count(sender.id) for sender in senders} == {30}
        assert len(set(order[32:45])) > 1  # nobody has to wait until the others are through


async def test_what_is_wanted_comes_though_the_inbox_is_full_of_others(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, taker="a/taker") as c, asyncio.timeout(10):
        taker, (_, b, d) = await opened(c)
        puts = b.flood(20, "many")
        await until(lambda: held(c) == 2)
        rare = asyncio.ensure_future(d.taker.box.put(Item(7, "rare")))
        await settle()
        assert not rare.done()
        assert (await taker.box.take("rare")).number == 7
        await rare
        assert (await taker.box.take("many", source=rc.RoleId("b/sender"))).number == 0
        assert await taker.numbers(19) == list(range(1, 20))
        await asyncio.gather(*puts)


async def test_who_leaves_the_wait_takes_its_message_back(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, taker="a/taker") as c, asyncio.timeout(10):
        taker, (_, b, _) = await opened(c)
        puts = b.flood(10)
        await until(lambda: held(c) == 2)
        await settle()
        for number in (2, 5, 9):
            puts[number].cancel()
        await asyncio.sleep(0)
        assert await taker.numbers(7) == [0, 1, 3, 4, 6, 7, 8]
        await asyncio.gather(*puts, return_exceptions=True)
        await b.taker.box.put(Item(10))
        assert await taker.numbers(1) == [10]


async def test_what_a_lost_node_wanted_to_put_never_comes(cluster, until) -> None:
    async with cluster("a", "b", "c", memory=3, taker="a/taker") as c, asyncio.timeout(10):
        taker, (near, b, d) = await opened(c)
        lost = b.flood(20, "lost")
        await until(lambda: held(c) == 2)
        puts = d.flood(5, "far") + near.flood(5, "near")
        await settle()
        c.cut("a", "b")
        results = await asyncio.gather(*lost, return_exceptions=True)
        errors = [error for error in results if error is not None]
        assert {type(error) for error in errors} == {rc.NodeLost}
        assert len(errors) >= 18
        taken = [await taker.box.take() for _ in range(12)]
        await asyncio.gather(*puts)
        assert [item.kind for item in taken].count("lost") == 2
        assert held(c) == 0
        await d.taker.box.put(Item(1))
        assert held(c) == 1


async def test_the_end_of_the_role_ends_the_wait(cluster, seed, until) -> None:
    async with cluster("a", "b", "c", memory=seed, taker="a/taker") as c, asyncio.timeout(10):
        _, (_, b, _) = await opened(c)
        puts = b.flood(5)
        await until(lambda: held(c) == 2)
        await settle()
        await c.instance("a/taker").stop()
        results = await asyncio.gather(*puts, return_exceptions=True)
        assert [type(error) for error in results[2:]] == [rc.RoleLost] * 3


async def test_effects_of_messages_to_a_lost_node(cluster, until) -> None:
    async with cluster("a", "b", "c", memory=3, taker="a/taker") as c, asyncio.timeout(10):
        _, (_, b, _) = await opened(c)
        puts = b.flood(5)
        await until(lambda: held(c) == 2)
        await settle()
        puts.append(asyncio.ensure_future(b.taker.heavy.put(Item(1))))
        await asyncio.sleep(0)
        c.cut("a", "b")
        results = await asyncio.gather(*puts, return_exceptions=True)
        assert [getattr(error, "effect", None) for error in results] == [None, None, "none", "none", "none", "unknown"]
