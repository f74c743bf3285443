"""The contract under everything at once: calls, deadlines, cancellations, pauses and losses, in random order."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import rolecall as rc

CHANNELS = ("serial", "pair", "small", "failing", "dropping", "latest", "task", "stream")


class Server(rc.Role):
    """Every policy; notes the calls that began and how many ran at once."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.began: dict[tuple[str, str], list[int]] = {}
        self.running: Counter[str] = Counter()
        self.most: Counter[str] = Counter()

    async def work(self, channel: str, number: int) -> None:
        self.began.setdefault((rc.caller(), channel), []).append(number)
        self.running[channel] += 1
        self.most[channel] = max(self.most[channel], self.running[channel])
        try:
            what = self.random.random()
            if what < 0.1:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(self.random.random() * 3)
            elif what < 0.7:
                await anyio.sleep(self.random.random() * 0.3)
            elif what < 0.8:
                raise rc.Refused
        finally:
            self.running[channel] -= 1

    @rc.service
    async def serial(self, number: int) -> int:
        await self.work("serial", number)
        return number

    @rc.service(concurrent=2)
    async def pair(self, number: int) -> int:
        await self.work("pair", number)
        return number

    @rc.service(mailbox=2)
    async def small(self, number: int) -> int:
        await self.work("small", number)
        return number

    @rc.service(mailbox=2, overflow="fail")
    async def failing(self, number: int) -> int:
        await self.work("failing", number)
        return number

    @rc.service(mailbox=2, overflow="drop_oldest")
    async def dropping(self, number: int) -> int:
        await self.work("dropping", number)
        return number

    @rc.service(overflow="latest")
    async def latest(self, number: int) -> int:
        await self.work("latest", number)
        return number

    @rc.task(mailbox=3)
    async def task(self, number: int) -> int:
        await self.work("task", number)
        return number

    @rc.stream
    async def stream(self, number: int) -> AsyncIterator[int]:
        await self.work("stream", number)
        for item in range(30):
            yield item


class Client(rc.Role):
    server: Server = rc.one()


class Storm:
    """A sequence of random calls of one role to another, and what became of each."""

    def __init__(self, client: Client, seed: int) -> None:
        self._client, self._random = client, random.Random(seed)
        self.ends: dict[tuple[str, str, int], Any] = {}

    async def blow(self, calls: int) -> None:
        async with anyio.create_task_group() as group:
            for number in range(calls):
                channel = self._random.choice(CHANNELS)
                deadline = self._random.choice((None, 0.0, 0.1, 1.0))
                with anyio.CancelScope() as scope:
                    group.start_soon(self._end, scope, channel, number, deadline)
                    await anyio.sleep(self._random.choice((0, 0, 0, 0.05)))

    async def _end(self, _: Any, channel: str, number: int, deadline: float | None) -> None:
        end: Any = "cancelled"
        try:
            with anyio.move_on_after(deadline):
                end = await self._make(channel, number)
        except rc.RolecallError as error:
            end = error
        self.ends[self._client.id, channel, number] = end

    async def _make(self, channel: str, number: int) -> Any:
        endpoint: Any = getattr(self._client.server, channel)
        if channel == "stream":
            items = [item async for item in endpoint(number)]
            assert items == list(range(30))
            return number
        if channel == "task" and number % 2:
            handle = await endpoint.start(number)
            return await handle.cancel() if number % 3 == 0 else await handle
        return await endpoint(number)


async def weather(w: Any, rand: random.Random) -> None:
    """Pause and resume the server now and then."""
    server = w.instance("b/server")
    while True:
        await anyio.sleep(rand.random())
        with anyio.move_on_after(rand.choice((0.1, 5))):
            await server.pause()
            await anyio.sleep(rand.random() * 0.2)
        if server.status is rc.Status.PAUSED:
            await server.resume()


def check(storms: list[Storm], server: Server) -> None:
    ends = {key: end for storm in storms for key, end in storm.ends.items()}
    for began in server.began.values():
        assert began == sorted(set(began)), "started twice, or out of order"
    for (caller, channel, number), end in ends.items():
        started = number in server.began.get((caller, channel), [])
        if end == number:
            assert started, f"{channel} {number} has an answer but never ran"
        if isinstance(end, rc.Overloaded | rc.Superseded) or getattr(end, "effect", "") == "none":
            assert not started, f"{channel} {number} ran although it ended with {end!r}"
        assert not isinstance(end, rc.DeadlineExceeded | rc.RemoteError)
    most = {channel: 2 if channel == "pair" else 1 for channel in server.most}
    assert server.most <= Counter(most)
    assert not +server.running


@pytest.mark.virtual_time
@pytest.mark.parametrize("seed", range(12))
async def test_the_contract_holds_in_a_storm(world, settle, seed) -> None:
    async with world("a", "b", server="b/server", checked=seed % 2 == 0) as w:
        server = await w.role("b/server", Server, seed=seed)
        homes = ("a/one", "a/two", "b/three")
        storms = [Storm(await w.role(home, Client), 100 * seed + n) for n, home in enumerate(homes)]
        async with anyio.create_task_group() as bad:
            bad.start_soon(weather, w, random.Random(seed))
            async with anyio.create_task_group() as calls:
                for storm in storms:
                    calls.start_soon(storm.blow, 120)
            bad.cancel_scope.cancel()
        await anyio.sleep(10)
        check(storms, server)
        for dispatcher in w.instance("b/server").dispatchers.values():
            assert not dispatcher.mailbox and not dispatcher.parked and not dispatcher.running
            assert dispatcher.mailbox_bytes == 0
        answered = [end for storm in storms for end in storm.ends.values() if isinstance(end, int)]
        assert len(answered) > 30
        assert sum(len(storm.ends) for storm in storms) == 360


@pytest.mark.virtual_time
@pytest.mark.parametrize("seed", range(12))
async def test_the_contract_holds_when_the_node_is_lost_in_a_storm(world, seed) -> None:
    async with world("a", "b", server="b/server", checked=seed % 2 == 0) as w:
        server = await w.role("b/server", Server, seed=seed)
        storms = [Storm(await w.role(home, Client), 100 * seed + n) for n, home in enumerate(("a/one", "a/two"))]
        async with anyio.create_task_group() as calls:
            for storm in storms:
                calls.start_soon(storm.blow, 60)
            await anyio.sleep(0.5 + seed / 20)
            w.nodes["b"].kill()
        await anyio.sleep(10)
        check(storms, server)
        assert sum(len(storm.ends) for storm in storms) == 120
        assert any(isinstance(end, rc.NodeLost) for storm in storms for end in storm.ends.values())
