"""Calls over links whose connections are cut: every effect once, in order, none missing."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections import defaultdict

import pytest

import rolecall as rc

CALLERS = 4
IN_FLIGHT = 8


class Ledger(rc.Role):
    """Notes every call it gets."""

    def __init__(self) -> None:
        self.effects: dict[str, list[int]] = defaultdict(list)

    @rc.service
    async def note(self, number: int, body: bytes) -> int:
        self.effects[rc.caller()].append(number)
        return zlib.crc32(body)

    @rc.service(concurrent=True)
    async def mirror(self, body: bytes) -> bytes:
        return body


class Writer(rc.Role):
    ledger: Ledger = rc.one()

    async def write(self, sizes: list[int]) -> None:
        """Make calls, some at a time; each must get its own answer."""
        room = asyncio.Semaphore(IN_FLIGHT)
        async with asyncio.TaskGroup() as group:
            for number, size in enumerate(sizes):
                await room.acquire()
                group.create_task(self._one(number, size, room))

    async def _one(self, number: int, size: int, room: asyncio.Semaphore) -> None:
        body = bytes([number % 251]) * size
        assert await self.ledger.note(number, body) == zlib.crc32(body)
        if number % 10 == 0:
            assert await self.ledger.mirror(body) == body
        room.release()


def sizes_of(generator: random.Random, count: int) -> list[int]:
    """Return sizes from one byte to 1 MB, as many small ones as large ones on a logarithmic scale."""
    return [int(10 ** generator.uniform(0, 6)) for _ in range(count)]


@pytest.mark.parametrize("seed", [1])
@pytest.mark.timeout(120)
async def test_calls_of_mixed_size_over_a_link_that_is_cut(cluster, count, seed) -> None:
    calls, cuts = count(1_000, 20_000), count(20, 200)
    generator = random.Random(seed)
    plan = [sizes_of(generator, calls // CALLERS) for _ in range(CALLERS)]
    between = sum(map(sum, plan)) / cuts
    at = [int(generator.uniform(1, between)) for _ in range(cuts)]
    async with cluster("a", "b", cuts=at, ledger="a/ledger") as c:
        ledger = await c.role("a/ledger", Ledger)
        writers = [await c.role(f"b/writer{number}", Writer) for number in range(CALLERS)]
        await asyncio.gather(*(w.write(sizes) for w, sizes in zip(writers, plan, strict=True)))
        assert ledger.effects == {f"b/writer{n}": list(range(len(sizes))) for n, sizes in enumerate(plan)}
        assert sum(proxy.cuts for proxy in c.proxies) == cuts
        assert not c.lost


@pytest.mark.parametrize("seed", range(5))
async def test_calls_over_wires_that_deliver_at_random_moments(cluster, seed) -> None:
    generator = random.Random(seed)
    plan = [[generator.randrange(1, 3_000) for _ in range(60)] for _ in range(CALLERS)]
    async with cluster("a", "b", memory=seed, ledger="a/ledger") as c:
        ledger = await c.role("a/ledger", Ledger)
        writers = [await c.role(f"b/writer{number}", Writer) for number in range(CALLERS)]
        await asyncio.gather(*(w.write(sizes) for w, sizes in zip(writers, plan, strict=True)))
        assert ledger.effects == {f"b/writer{n}": list(range(60)) for n in range(CALLERS)}
