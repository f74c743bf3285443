"""Cancellation: a call that is left never begins or is stopped, soon; until then its channel is busy."""

from __future__ import annotations

import itertools
from typing import Any

import anyio

from .contract_app import CUT_S, CUTS, both_seams, property_of, rng, run
from .contract_roles import LEDGER, Caller, now_s

CANCEL_S, NEAR_S = 1.0, 0.2


@property_of
@both_seams
async def test_leaving_a_call_stops_its_handler(sim_seed: int, seam: Any) -> None:
    left: dict[int, tuple[float, float]] = {}

    async def one(me: Caller, n: int, patience_s: float, work_s: float) -> None:
        with anyio.CancelScope() as scope:  # it is no deadline that ends it
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_cancel_later, scope, patience_s)
                await me.called.many(str(me.id), n, work_s, 0.05)
                tasks.cancel_scope.cancel()
        if scope.cancelled_caught:
            left[n] = began_s[n] + patience_s, now_s()

    began_s: dict[int, float] = {}

    async def script(me: Caller) -> None:
        load = rng(sim_seed, me.id)
        async with anyio.create_task_group() as calls:
            for n in range(15):
                await anyio.sleep(load.uniform(0, 0.3))
                began_s[n] = now_s()
                calls.start_soon(one, me, n, load.choice((0.0, 0.02, 0.3)), load.choice((0.2, 30.0)))

    await run({"a": script}, callers="a", seam=seam, faults=CUTS)
    for n, (asked_s, went_on_s) in left.items():
        assert went_on_s - asked_s <= CANCEL_S + NEAR_S, f"{n} held its caller up"
        for handling in LEDGER.of("many", n):
            assert handling.ended_s is not None
            late_s = handling.ended_s - max(asked_s, handling.begun_s)
            assert late_s <= 3 * CUT_S + NEAR_S, f"{n} went on for {late_s:.2f} s"
    assert all(len(LEDGER.of("many", n)) <= 1 for n in began_s)


async def _cancel_later(scope: anyio.CancelScope, after_s: float) -> None:
    await anyio.sleep(after_s)
    scope.cancel()


@property_of
@both_seams
async def test_a_channel_is_busy_until_its_handler_has_stopped(sim_seed: int, seam: Any) -> None:
    gave_up: list[float] = []

    async def one(me: Caller, n: int, patience_s: float, linger_s: float) -> None:
        with anyio.move_on_after(patience_s) as scope:
            await me.called.linger(str(me.id), n, 0.1, linger_s)
        if scope.cancelled_caught:
            gave_up.append(now_s() - scope.deadline)

    async def script(me: Caller) -> None:
        load = rng(sim_seed, me.id)
        async with anyio.create_task_group() as calls:
            for n in range(8):
                await anyio.sleep(load.uniform(0, 0.5))
                calls.start_soon(one, me, n, load.choice((0.03, 0.5)), load.choice((0.02, 2.0)))

    await run({"a": script, "c": script}, seam=seam, faults=CUTS)
    assert all(late_s <= CANCEL_S + NEAR_S for late_s in gave_up)
    handlings = LEDGER.of("linger")
    for before, after in itertools.pairwise(handlings):
        assert before.ended_s is not None and before.ended_s <= after.begun_s
