"""Modelled devices: how long work takes, who waits for a core, throttling, memory."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import anyio.from_thread
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.costs import Flops
from rolecall.core.errors import ConfigError
from rolecall.core.ids import RoleId
from rolecall.sim.devices import Core, Device, DeviceProfile, ModelledComputing, OutOfMemory, Throttle
from rolecall.sim.loop import VirtualLoop
from rolecall.sim.simulate import simulate

ROLE = RoleId("a/trainer")
SLOW = DeviceProfile(flops_per_s=6e6)  # one sample a second


def computing(profile: DeviceProfile = SLOW) -> ModelledComputing:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    return ModelledComputing(Device(profile), loop, "a")


def test_what_work_costs() -> None:
    profile = DeviceProfile(flops_per_s=3e9)
    assert profile.work_s(500.0) == pytest.approx(1.0)  # samples
    assert profile.work_s(Flops(3e9)) == pytest.approx(1.0)
    assert profile.work_s(None) == profile.work_s(32.0)  # a batch
    assert profile.work_s(-1.0) == 0.0


def test_work_is_done_at_its_end() -> None:
    async def main() -> None:
        done: list[float] = []
        work = computing()
        await work.run(ROLE, lambda: done.append(asyncio.get_running_loop().time()), (), 3.0)
        work.device.slow = 2.0
        await work.run(ROLE, lambda: done.append(asyncio.get_running_loop().time()), (), 3.0)
        assert done == [3.0, 9.0]

    simulate(main)


def test_what_is_cancelled_never_ran() -> None:
    async def main() -> None:
        ran: list[int] = []
        work = computing()
        with anyio.move_on_after(2.5) as scope:
            await work.run(ROLE, ran.append, (1,), 3.0)
        assert scope.cancelled_caught
        assert ran == []
        await work.run(ROLE, ran.append, (2,), 1.0)  # the core is free again
        assert (ran, asyncio.get_running_loop().time()) == ([2], 3.5)

    simulate(main)


def test_errors_and_cancel_checks_are_as_in_a_thread() -> None:
    async def main() -> None:
        work = computing()
        with pytest.raises(ZeroDivisionError):
            await work.run(ROLE, divmod, (1, 0), 1.0)
        await work.run(ROLE, anyio.from_thread.check_cancelled, (), 1.0)

    simulate(main)


@pytest.mark.parametrize(("cores", "ends"), [(1, [1, 2, 3, 4]), (2, [1, 1, 2, 2]), (4, [1, 1, 1, 1])])
def test_who_finds_no_core_waits_in_turn(cores: int, ends: list[int]) -> None:
    async def main() -> None:
        work = computing(DeviceProfile(flops_per_s=6e6, cores=cores))
        ended: list[tuple[int, float]] = []

        async def one(number: int) -> None:
            await work.run(ROLE, lambda: ended.append((number, asyncio.get_running_loop().time())), (), 1.0)

        async with anyio.create_task_group() as tasks:
            for number in range(4):
                tasks.start_soon(one, number)
        assert [number for number, _ in ended] == [0, 1, 2, 3]
        assert [at_s for _, at_s in ended] == ends

    simulate(main, order="fifo")


def test_who_leaves_the_queue_takes_no_core_along() -> None:
    async def main() -> None:
        work = computing()
        first = asyncio.create_task(work.run(ROLE, int, (), 1.0))
        second = asyncio.create_task(work.run(ROLE, int, (), 1.0))
        third = asyncio.create_task(work.run(ROLE, int, (), 1.0))
        await asyncio.sleep(0.5)
        second.cancel()
        await asyncio.wait([first, second, third])
        assert asyncio.get_running_loop().time() == 2.0
        fourth = asyncio.create_task(work.run(ROLE, int, (), 1.0))
        fifth = asyncio.create_task(work.run(ROLE, int, (), 1.0))
        await asyncio.sleep(1.0)  # now the core has been given to the fifth, which has not run yet
        fifth.cancel()
        await asyncio.wait([fourth, fifth])
        await work.run(ROLE, int, (), 1.0)
        assert asyncio.get_running_loop().time() == 4.0

    simulate(main, order="fifo")


def test_a_core_throttles_when_its_credit_is_spent() -> None:
    core = Core(Throttle(burst_s=1.0, baseline=0.5))
    assert core.takes_s(1.0, 0.0) == 1.0
    core.worked(1.0)  # half a second of credit is left
    assert core.takes_s(3.0, 1.0) == 1.0 + 2.0 / 0.5
    core.worked(6.0)
    assert core.takes_s(1.0, 6.0) == 2.0  # nothing is
    core.worked(8.0)
    assert core.takes_s(1.0, 9.0) == 1.0  # a second's rest gave half a second back


def test_work_that_is_stopped_costs_what_it_took() -> None:
    core = Core(Throttle(burst_s=1.0, baseline=0.5))
    core.takes_s(100.0, 0.0)
    core.worked(1.0)
    assert core.takes_s(2.0, 1.0) == 1.0 + 1.0 / 0.5


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 5)), min_size=1, max_size=20), st.floats(0.1, 0.9))
def test_a_core_does_no_more_than_its_credit_allows(work: list[tuple[float, float]], baseline: float) -> None:
    core, now_s, total_s = Core(Throttle(burst_s=3.0, baseline=baseline)), 0.0, 0.0
    for pause_s, work_s in work:
        now_s += pause_s
        took_s = core.takes_s(work_s, now_s)
        assert took_s >= work_s - 1e-9
        now_s, total_s = now_s + took_s, total_s + work_s
        core.worked(now_s)
    assert total_s <= 3.0 + baseline * now_s + 1e-6


def test_what_is_loaded_must_fit() -> None:
    async def main() -> None:
        work = computing(DeviceProfile(flops_per_s=1e9, memory_bytes=10_000))
        array = await work.load(ROLE, lambda: np.zeros(1_000), ())
        assert array.nbytes == 8_000
        assert 8_000 <= work.device.claimed_bytes < 9_000
        with pytest.raises(OutOfMemory, match=r"a/trainer: 8,0\d\d bytes do not fit .* has 10,000 bytes"):
            await work.load(ROLE, lambda: Model(), ())
        written: list[int] = []
        await work.save(ROLE, written.append, (1,))
        assert written == [1]

    simulate(main)


class Model:
    def parameters(self) -> Any:
        return [np.zeros(1_000)]


@pytest.mark.parametrize(
    "values", [{"flops_per_s": 0}, {"flops_per_s": 1, "cores": 0}, {"flops_per_s": 1, "memory_bytes": 0}]
)
def test_a_device_that_is_none(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="DeviceProfile"):
        DeviceProfile(**values)


def test_a_throttle_that_is_none() -> None:
    with pytest.raises(ConfigError, match="baseline between 0 and 1"):
        Throttle(burst_s=1.0, baseline=1.0)
