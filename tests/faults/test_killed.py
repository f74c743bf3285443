"""A process is killed while others talk to it: everything under way ends soon, and nothing is left."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import random
import sys
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

import rolecall as rc

VICTIM = Path(__file__).with_name("victim.py")
_spec = importlib.util.spec_from_file_location("victim", VICTIM)
assert _spec is not None and _spec.loader is not None
victim = importlib.util.module_from_spec(_spec)
sys.modules["victim"] = victim
_spec.loader.exec_module(victim)
Victim = victim.Victim

LOST_WITHIN_S = 3.0


class Witness(rc.Role):
    victim: Victim = rc.one()

    def __init__(self) -> None:
        self.echoed = 0

    async def echo(self, size: int) -> None:
        while True:
            assert len(await self.victim.echo(bytes(size))) == size
            self.echoed += 1

    async def exchange(self, model: rc.Tensors) -> None:
        kept: deque[rc.Tensors] = deque(maxlen=3)
        while True:
            kept.append(await self.victim.exchange(model))
            assert kept[0].digest() == model.digest()
            self.echoed += 1

    async def never(self) -> None:
        await self.victim.never()

    async def read(self) -> None:
        async with aclosing(self.victim.numbers()) as numbers:
            async for _ in numbers:
                pass

    async def work(self) -> None:
        await (await self.victim.work.start()).result()

    async def put(self) -> None:
        while True:
            await self.victim.box.put(1)

    def everything(self) -> list:
        """All that may be under way at once."""
        echoes = [self.echo(size) for size in (1, 10, 1_000, 100_000, 1_000_000)]
        return [*echoes, *(self.never() for _ in range(10)), self.read(), self.work(), self.put()]


@asynccontextmanager
async def process() -> AsyncIterator[tuple[asyncio.subprocess.Process, str]]:
    """Run a victim; yield it with its address."""
    child = await asyncio.create_subprocess_exec(sys.executable, str(VICTIM), stdout=asyncio.subprocess.PIPE)
    try:
        assert child.stdout is not None
        yield child, (await child.stdout.readline()).decode().strip()
    finally:
        if child.returncode is None:
            child.kill()
        await child.communicate()


@pytest.mark.timeout(120)
async def test_all_that_is_under_way_ends_when_the_process_is_killed(cluster, count, until) -> None:
    generator = random.Random(0)
    async with process():  # what is opened once, such as the watcher of children
        pass
    for _ in range(count(3, 50)):
        async with cluster("b", victim="a/victim") as c, process() as (child, address):
            witness = await c.role("b/witness", Witness)
            network = c.nodes["b"].network
            network.bind(rc.RoleId("a/victim"), "a")
            c.links["b"].meet({"a": address})
            under_way = [asyncio.ensure_future(work) for work in witness.everything()]
            some = generator.randrange(1, 300)
            await until(lambda witness=witness, some=some: witness.echoed >= some)
            killed_s = time.monotonic()
            child.kill()
            await asyncio.wait(under_way, timeout=2 * LOST_WITHIN_S)
            assert time.monotonic() - killed_s < LOST_WITHIN_S
            errors = [task.exception() for task in under_way]
            assert all(isinstance(error, rc.NodeLost) for error in errors), errors
            effects = Counter(error.effect for error in errors)
            assert set(effects) <= {"none", "unknown"}
            assert effects["none"] >= 7  # of ten calls one ran, two waited there, and the others here
            with pytest.raises(rc.NodeLost, match="none") as late:
                await witness.never()
            assert late.value.effect == "none"
            assert [peer for _, peer, _ in c.lost] == ["a"]


def mapped() -> int:
    """Return how many segments of shared memory this process sees."""
    return Path("/proc/self/maps").read_text().count("memfd:rolecall")


@pytest.mark.timeout(120)
async def test_memory_shared_with_a_process_that_is_killed_is_free_again(cluster, count, until) -> None:
    generator = random.Random(1)
    models = [rc.Tensors({"w": np.full(size, size)}) for size in (40_000, 150_000, 600_000)]
    async with process():  # what is opened once
        pass
    for _ in range(count(4, 50)):
        async with cluster("b", victim="a/victim") as c, process() as (child, address):
            witness = await c.role("b/witness", Witness)
            c.nodes["b"].network.bind(rc.RoleId("a/victim"), "a")
            exchange = c.links["b"].exchange
            await exchange.dial(address)
            await until(lambda exchange=exchange: (lane := exchange.links["a"].lane) is not None and lane.open)
            lane = exchange.links["a"].lane
            under_way = [asyncio.ensure_future(witness.exchange(model)) for model in models]
            some = generator.randrange(1, 40)
            await until(lambda witness=witness, some=some: witness.echoed >= some)
            for _ in range(generator.randrange(100)):  # until the middle of whatever is under way
                await asyncio.sleep(0)
            child.kill()
            done, late = await asyncio.wait(under_way, timeout=2 * LOST_WITHIN_S)
            assert not late and all(isinstance(task.exception(), rc.NodeLost) for task in done)
            assert lane.sent_bytes and lane.received_bytes
            pool = exchange.shared_memory.pool
            assert (pool.used, lane.leases, exchange.shared_memory.lanes) == (0, 0, [])
            del under_way, done
            gc.collect()
            assert mapped() == pool.segments
        assert mapped() == 0
