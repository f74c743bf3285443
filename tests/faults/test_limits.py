"""What is too large or cannot travel is an error for the one message, and the others go on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

import rolecall as rc
from rolecall.wire.exchange import ExchangeLimits
from rolecall.wire.limits import LimitExceeded, Limits
from rolecall.wire.session_limits import SessionLimits

SMALL = ExchangeLimits(session=SessionLimits(wire=Limits(message_bytes=300_000)))
FITS, TOO_LARGE = 1_000, 400_000


class Store(rc.Role):
    box = rc.Inbox(bytes)
    news = rc.Topic(bytes)

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @rc.service
    async def put(self, body: bytes) -> int:
        await self.gate.wait()
        self.sizes.append(len(body))
        return len(body)

    @rc.service(mailbox=1)
    async def narrow(self, body: bytes) -> int:
        await self.gate.wait()
        self.sizes.append(len(body))
        return len(body)

    @rc.service
    async def make(self, size: int) -> bytes:
        return bytes(size)

    @rc.stream
    async def parts(self, sizes: list[int]) -> AsyncIterator[bytes]:
        for size in sizes:
            yield bytes(size)


class Client(rc.Role):
    store: Store = rc.one()

    def __init__(self) -> None:
        self.heard: list[int] = []

    @store.on(Store.news)
    async def on_news(self, source: rc.RoleId, body: bytes) -> None:
        self.heard.append(len(body))


@asynccontextmanager
async def paired(cluster):
    """Open a store and a client on two nodes."""
    async with cluster("a", "b", limits=SMALL, store="a/store") as c, asyncio.timeout(10):
        yield c, await c.role("a/store", Store), await c.role("b/client", Client)


async def test_an_argument_that_is_too_large(cluster) -> None:
    async with paired(cluster) as (_, store, client):
        for _ in range(3):
            with pytest.raises(LimitExceeded):
                await client.store.put(bytes(TOO_LARGE))
            assert await client.store.put(bytes(FITS)) == FITS
        assert store.sizes == [FITS] * 3


async def test_one_that_was_kept_for_a_full_mailbox(cluster, until) -> None:
    async with paired(cluster) as (c, store, client):
        store.gate.clear()
        sizes = [1, 2, 3, 4, TOO_LARGE, 5, TOO_LARGE, 6]
        calls = [asyncio.ensure_future(client.store.narrow(bytes(size))) for size in sizes[:4]]
        await asyncio.sleep(0)
        channel = next(iter(c.nodes["b"].directory.remote(rc.RoleId("a/store")).channels.values()))
        await until(lambda: channel._lines[client.id].blocked)
        calls += [asyncio.ensure_future(client.store.narrow(bytes(size))) for size in sizes[4:]]
        await asyncio.sleep(0)
        store.gate.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [r if isinstance(r, int) else type(r) for r in results] == [
            size if size < TOO_LARGE else LimitExceeded for size in sizes
        ]
        assert store.sizes == [1, 2, 3, 4, 5, 6]
        assert not c.lost


async def test_a_result_that_is_too_large(cluster) -> None:
    async with paired(cluster) as (_, _, client):
        for _ in range(3):
            with pytest.raises(rc.RolecallError, match="message_bytes"):
                await client.store.make(TOO_LARGE)
            assert len(await client.store.make(FITS)) == FITS


async def test_an_item_that_is_too_large(cluster) -> None:
    async with paired(cluster) as (_, _, client):
        seen = []
        with pytest.raises(rc.RolecallError, match="message_bytes"):
            async for part in client.store.parts([FITS, TOO_LARGE, FITS]):
                seen.append(len(part))  # noqa: PERF401 - the loop raises
        assert seen == [FITS]
        assert [len(part) async for part in client.store.parts([FITS, 2])] == [FITS, 2]


async def test_a_message_to_an_inbox_that_is_too_large(cluster) -> None:
    async with paired(cluster) as (_, store, client):
        with pytest.raises(LimitExceeded):
            await client.store.box.put(bytes(TOO_LARGE))
        await client.store.box.put(bytes(FITS))
        assert len(await store.box.take()) == FITS


async def test_an_event_that_is_too_large(cluster, until) -> None:
    async with paired(cluster) as (c, store, client):
        await c.nodes["b"].network.subscribed()
        await store.news.emit(bytes(FITS))
        with pytest.raises(LimitExceeded):
            await store.news.emit(bytes(TOO_LARGE))
        await store.news.emit(bytes(2))
        await until(lambda: len(client.heard) == 2)
        assert client.heard == [FITS, 2]
        assert not c.lost
