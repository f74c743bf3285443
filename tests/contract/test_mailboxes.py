"""Back-pressure: every mailbox is bounded, in messages and bytes; `overflow` says what happens when it is full."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.core.ids import RoleId

from .contract_app import both_seams, property_of, rng, running
from .contract_roles import LEDGER, Caller

BOUND = 3
BOUND_BYTES = 100_000


class Load:
    """Calls of one channel, more than it takes, and how they end."""

    def __init__(self, channel: str, sim_seed: int, *more: Any) -> None:
        self.fates: Counter[str] = Counter()
        self.wrong: list[str] = []
        self._channel, self._seed, self._more = channel, sim_seed, more

    async def script(self, me: Caller) -> None:
        """Make them."""
        load = rng(self._seed, me.id)
        async with anyio.create_task_group() as calls:
            for n in range(25):
                if load.random() < 0.2:
                    await anyio.sleep(load.uniform(0, 0.3))
                calls.start_soon(self._call, me, n + 1000 * (me.id == "c/caller"))

    async def _call(self, me: Caller, n: int) -> None:
        try:
            assert await getattr(me.called, self._channel)(str(me.id), n, 0.02, *self._more) == n
            self._ended("done", n, 1)
        except (rc.Overloaded, rc.Superseded) as error:
            self._ended(type(error).__name__, n, 0)

    def _ended(self, how: str, n: int, effects: int) -> None:
        self.fates[how] += 1
        if len(LEDGER.of(self._channel, n)) != effects:
            self.wrong.append(f"{n}: {how}, {len(LEDGER.of(self._channel, n))} effects")


def waiting(sim: Any, channel: str) -> Callable[[], bool]:
    """Return a check that the mailbox of a channel keeps to its bounds."""
    dispatcher = sim.world.directories.find(RoleId("b/called")).dispatchers[channel]

    def bounded() -> bool:
        many, heavy = len(dispatcher.mailbox), dispatcher.mailbox_bytes
        options = dispatcher.options
        return many <= options.mailbox and (heavy <= options.mailbox_bytes or many == 1)

    return bounded


@property_of
@both_seams
@pytest.mark.parametrize(
    ("channel", "others", "more"),
    [
        ("waits", set(), ()),
        ("weighs", set(), (bytes(30_000),)),
        ("fails", {"Overloaded"}, ()),
        ("drops", {"Superseded"}, ()),
        ("latest", {"Superseded"}, ()),
    ],
)
async def test_a_mailbox_keeps_to_its_bounds(
    sim_seed: int, seam: Any, channel: str, others: set[str], more: tuple[Any, ...]
) -> None:
    load = Load(channel, sim_seed, *more)
    scripts = {"a": load.script, "c": load.script}
    async with running(scripts, seam=seam, faults="gentle") as sim:
        sim.always(waiting(sim, channel), f"the mailbox of {channel} is bounded")
    assert load.wrong == []
    assert load.fates.total() == 50
    assert set(load.fates) <= {"done", *others}
    assert load.fates["done"] >= (50 if not others else 1)


@property_of
@both_seams
async def test_a_full_mailbox_holds_up_nobody_else(sim_seed: int, seam: Any) -> None:
    spans: list[float] = []

    async def script(me: Caller) -> None:
        async with anyio.create_task_group() as calls:
            for n in range(10):
                calls.start_soon(me.called.waits, str(me.id), n, 1.0)
            await anyio.sleep(0.5)
            for n in range(5):
                began_s = anyio.current_time()
                await me.called.many(str(me.id), n, 0.0)
                spans.append(anyio.current_time() - began_s)

    async with running({"a": script}, callers="a", seam=seam):
        pass
    assert len(spans) == 5 and max(spans) < 0.1


@property_of
@both_seams
async def test_a_call_that_waits_for_room_keeps_its_deadline(sim_seed: int, seam: Any) -> None:
    late: list[float] = []

    async def one(me: Caller, n: int) -> None:
        began_s = anyio.current_time()
        with anyio.move_on_after(0.5) as scope:
            await me.called.waits(str(me.id), n, 0.2)
        if scope.cancelled_caught:
            late.append(anyio.current_time() - began_s)

    async def script(me: Caller) -> None:
        async with anyio.create_task_group() as calls:
            for n in range(10):
                calls.start_soon(one, me, n)

    async with running({"a": script}, callers="a", seam=seam):
        pass
    done = [each for each in LEDGER.of("waits") if each.fate == "done"]
    assert len(done) + len(late) == 10 and 1 <= len(done) <= 3
    assert max(late) < 1.0
