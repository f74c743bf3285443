"""Many small messages over one link: memory and descriptors stay as they are."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import AsyncIterator

import psutil
import pytest

import rolecall as rc

GROWTH_BYTES = 8 << 20
AT_ONCE = 50


class Echo(rc.Role):
    news = rc.Topic(int)
    box = rc.Inbox(int)

    @rc.service
    async def echo(self, number: int) -> int:
        return number

    @rc.service(concurrent=True)
    async def wait(self, number: int) -> None:
        await asyncio.Event().wait()

    @rc.stream
    async def numbers(self, count: int) -> AsyncIterator[int]:
        for number in range(count):
            yield number


class Client(rc.Role):
    server: Echo = rc.one()

    def __init__(self) -> None:
        self.heard = 0

    @server.on(Echo.news)
    async def on_news(self, source: rc.RoleId, number: int) -> None:
        self.heard += 1

    async def talk(self, echo: Echo, count: int) -> None:
        """Exchange so many messages of all kinds."""
        for _ in range(count // (3 * AT_ONCE)):
            await asyncio.gather(*(self.server.echo(n) for n in range(AT_ONCE)))
            for n in range(AT_ONCE // 5):
                await echo.news.emit(n)
                await self.server.box.put(n)
                await echo.box.take()
            given_up = asyncio.ensure_future(self.server.wait(1))
            assert [n async for n in self.server.numbers(AT_ONCE)] == list(range(AT_ONCE))
            given_up.cancel()
            await asyncio.wait([given_up])


def objects() -> int:
    """Return how many objects there are that could be part of a cycle."""
    gc.collect()
    return len(gc.get_objects())


@pytest.mark.every_loop
@pytest.mark.timeout(120)
async def test_nothing_grows(cluster, count) -> None:
    messages = count(20_000, 1_000_000)
    process = psutil.Process()
    async with cluster("a", "b", server="a/echo") as c:
        echo, client = await c.role("a/echo", Echo), await c.role("b/client", Client)
        await client.talk(echo, messages // 4)
        before, descriptors, resident = objects(), len(os.listdir("/proc/self/fd")), process.memory_info().rss
        await client.talk(echo, messages)
        assert objects() - before < 500
        assert len(os.listdir("/proc/self/fd")) == descriptors
        assert process.memory_info().rss - resident < GROWTH_BYTES
        assert client.heard > 0
