"""A link that has no room: senders wait, results that find none are errors, and the link lives on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

import rolecall as rc
from rolecall.wire import frames as f
from rolecall.wire.exchange import ExchangeLimits
from rolecall.wire.limits import LinkOverflow
from rolecall.wire.session_limits import SessionLimits

NARROW = ExchangeLimits(session=SessionLimits(outbox_bytes=300_000, bulk_bytes=50_000, piece_bytes=20_000))
LARGE = 100_000


class Store(rc.Role):
    box = rc.Inbox(bytes)
    news = rc.Topic(bytes)

    def __init__(self) -> None:
        self.seen: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @rc.service(concurrent=True)
    async def make(self, size: int) -> bytes:
        await self.gate.wait()
        return bytes(size)

    @rc.service
    async def take(self, number: int, body: bytes) -> int:
        self.seen.append(number)
        return number

    @rc.service(mailbox=1)
    async def narrow(self, number: int, body: bytes) -> int:
        await self.gate.wait()
        self.seen.append(number)
        return number

    @rc.task(progress=bytes)
    async def work(self, count: int) -> int:
        for _ in range(count):
            rc.progress(bytes(LARGE))
        return count

    @rc.stream
    async def parts(self, count: int) -> AsyncIterator[bytes]:
        for number in range(count):
            yield bytes([number]) * LARGE


class Client(rc.Role):
    store: Store = rc.one()

    def __init__(self) -> None:
        self.heard: list[int] = []

    async def listen(self, count: int) -> None:
        async with self.store.news.subscribe() as events:
            async for _, body in events:
                self.heard.append(body[0])
                if len(self.heard) == count:
                    return


async def opened(c: Any) -> tuple[Store, Client]:
    return await c.role("a/store", Store), await c.role("b/client", Client)


async def test_calls_wait_until_the_link_has_room(cluster) -> None:
    async with cluster("a", "b", limits=NARROW, store="a/store") as c, asyncio.timeout(10):
        store, client = await opened(c)
        calls = (client.store.take(number, bytes(LARGE)) for number in range(40))
        assert await asyncio.gather(*calls) == list(range(40))
        assert store.seen == list(range(40))
        assert not c.lost


async def test_calls_wait_for_a_link_that_is_not_there_yet(cluster) -> None:
    async with cluster("a", "b", limits=NARROW, linked=False, store="a/store") as c, asyncio.timeout(10):
        store, client = await opened(c)
        calls = (client.store.take(number, bytes(LARGE)) for number in range(40))
        assert await asyncio.gather(*calls) == list(range(40))
        assert store.seen == list(range(40))


async def test_what_was_refused_waits_for_the_mailbox_and_the_link(cluster, until) -> None:
    async with cluster("a", "b", limits=NARROW, store="a/store") as c, asyncio.timeout(10):
        store, client = await opened(c)
        store.gate.clear()
        calls = [asyncio.ensure_future(client.store.narrow(number, bytes(LARGE))) for number in range(12)]
        await asyncio.sleep(0)
        channel = next(iter(c.nodes["b"].directory.remote(rc.RoleId("a/store")).channels.values()))
        await until(lambda: channel._lines[client.id].blocked)
        fill = [asyncio.ensure_future(client.store.take(100 + n, bytes(LARGE))) for n in range(12)]
        store.gate.set()
        assert await asyncio.gather(*calls) == list(range(12))
        assert await asyncio.gather(*fill) == list(range(100, 112))
        assert [number for number in store.seen if number < 100] == list(range(12))
        assert not c.lost


async def test_a_result_that_finds_no_room_is_an_error_at_its_caller(cluster, until) -> None:
    async with cluster("a", "b", limits=NARROW, store="a/store") as c, asyncio.timeout(10):
        store, client = await opened(c)
        store.gate.clear()
        calls = [asyncio.ensure_future(client.store.make(LARGE)) for _ in range(30)]
        await until(lambda: len(c.instance("a/store").dispatchers["make"].running) == 30)
        store.gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        errors = [result for result in results if not isinstance(result, bytes)]
        assert 6 <= len(results) - len(errors) < 30
        assert all(isinstance(error, LinkOverflow) and "link to b" in str(error) for error in errors), errors
        assert len(await client.store.make(LARGE)) == LARGE
        assert not c.lost


async def test_the_writer_of_a_stream_waits(cluster) -> None:
    async with cluster("a", "b", limits=NARROW, store="a/store") as c, asyncio.timeout(10):
        _, client = await opened(c)
        assert [part[0] async for part in client.store.parts(40)] == list(range(40))
        assert not c.lost


async def test_an_emitter_waits(cluster) -> None:
    async with cluster("a", "b", limits=NARROW, store="a/store") as c, asyncio.timeout(10):
        store, client = await opened(c)
        listening = asyncio.ensure_future(client.listen(40))
        await asyncio.sleep(0)
        await c.nodes["b"].network.subscribed()
        for number in range(40):
            await store.news.emit(bytes([number]) * LARGE)
        await listening
        assert client.heard == list(range(40))
        assert not c.lost


async def test_messages_to_an_inbox_wait(cluster) -> None:
    async with cluster("a", "b", limits=NARROW, store="a/store") as c, asyncio.timeout(10):
        store, client = await opened(c)
        await asyncio.gather(*(client.store.box.put(bytes([number]) * LARGE) for number in range(40)))
        assert [body[0] for _, body in store.box.drain()] == list(range(40))
        assert not c.lost


async def test_progress_that_finds_no_room_is_dropped(cluster) -> None:
    async with cluster("a", "b", limits=NARROW, store="a/store") as c, asyncio.timeout(10):
        _, client = await opened(c)
        assert await client.store.work(40) == 40
        assert not c.lost


async def test_a_call_that_waits_for_room_can_be_given_up(cluster) -> None:
    async with cluster("a", "b", limits=NARROW, store="a/store") as c, asyncio.timeout(10):
        store, client = await opened(c)
        calls = [asyncio.ensure_future(client.store.take(number, bytes(LARGE))) for number in range(10)]
        await asyncio.sleep(0)
        for number in (5, 9):
            calls[number].cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        assert await client.store.take(10, b"") == 10
        assert store.seen == [0, 1, 2, 3, 4, 6, 7, 8, 10]


class Wall:
    """A link to a peer that takes nothing."""

    def __init__(self) -> None:
        self.on_frame: Any = None
        self.lost: list[str] = []
        self.wanted: list[Any] = []

    def send(self, frame: Any, segments: Any = (), *, compress: bool = False) -> None:
        raise LinkOverflow("x", "frames", 10, 10)

    def when_room(self, go_on: Any) -> None:
        self.wanted.append(go_on)

    def lose(self, reason: str) -> None:
        self.lost.append(reason)


async def test_a_peer_that_takes_not_even_answers_is_lost(cluster) -> None:
    async with cluster("a", memory=0) as c:
        network, wall = c.nodes["a"].network, Wall()
        network.join("x", wall)
        wall.on_frame(f.Subscribe(1, "a/nobody", "news", "x/peer", [], 1, "wait"), [])
        assert wall.lost == []
        await asyncio.sleep(0)
        [reason] = wall.lost
        assert reason.startswith("it takes nothing any more: The link to x holds 10 frames")
        with pytest.raises(LinkOverflow):
            network.send("x", f.Put(1, "x/peer", "box", "a/role", 0))
