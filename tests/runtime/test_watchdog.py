"""The watchdog names the handler that blocks the event loop, and where."""

from __future__ import annotations

import time

import anyio
import pytest

import rolecall as rc
from rolecall.runtime.watchdog import Blockage, Watchdog


class Sleeper(rc.Role):
    @rc.service
    async def block(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - the mistake to be found

    @rc.service
    async def wait(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    @rc.service
    async def compute_something(self, seconds: float) -> None:
        await self.compute(time.sleep, seconds)

    async def main(self) -> None:
        time.sleep(0.1)  # noqa: ASYNC251


class Client(rc.Role):
    sleeper: Sleeper = rc.one()


async def told(w, blocked: list[Blockage]) -> Blockage:
    """Return the only blockage, once the loop has passed it on."""
    with anyio.fail_after(5):
        while not blocked:  # noqa: ASYNC110 - told by a plain callback
            await anyio.sleep(0.005)
    assert len(blocked) == 1
    return blocked[0]


@pytest.mark.may_block("that is what the watchdog is for")
@pytest.mark.every_loop
async def test_a_handler_that_blocks_is_named_with_its_place(world) -> None:
    blocked: list[Blockage] = []
    async with world() as w:
        await w.role("a/sleeper", Sleeper)
        client = await w.role("a/client", Client)
        with Watchdog(blocked.append, blocked_s=0.02):
            await client.sleeper.block(0.15)
            blockage = await told(w, blocked)
        assert blockage.task == "a/sleeper.block"
        assert "test_watchdog.py:" in blockage.place
        assert blockage.place.endswith("in block")
        assert "blocks the event loop for more than 0.02 s" in str(blockage)
        assert "self.compute" in str(blockage)


@pytest.mark.may_block("that is what the watchdog is for")
async def test_a_main_routine_that_blocks_is_named(world) -> None:
    blocked: list[Blockage] = []
    async with world() as w:
        await w.role("a/sleeper", Sleeper)
        with Watchdog(blocked.append, blocked_s=0.02):
            w.instance("a/sleeper").start_main(lambda error: None)
            blockage = await told(w, blocked)
        assert blockage.task == "a/sleeper.main"


async def test_waiting_and_computing_block_nothing(world) -> None:
    blocked: list[Blockage] = []
    async with world() as w:
        await w.role("a/sleeper", Sleeper)
        client = await w.role("a/client", Client)
        with Watchdog(blocked.append, blocked_s=0.5):
            await client.sleeper.wait(0.02)
            await client.sleeper.compute_something(0.02)
        assert blocked == []


async def test_the_thread_ends_with_the_watchdog() -> None:
    import threading

    with Watchdog(lambda blockage: None, blocked_s=5):
        assert any(thread.name == "rolecall-watchdog" for thread in threading.enumerate())
    assert not any(thread.name == "rolecall-watchdog" for thread in threading.enumerate())
