"""Time: what is left of a deadline travels with a call, ends it at both ends, and is inherited."""

from __future__ import annotations

from typing import Any

import anyio

import rolecall as rc

from .contract_app import CUT_S, CUTS, both_seams, property_of, rng, run
from .contract_roles import LEDGER, Caller, now_s

NEAR_S = 0.2
"""What messages take on their way at most, when nothing is cut; with what timers and answers take."""
CANCEL_S = 1.0
"""How long a caller waits until a handler has stopped."""


@property_of
@both_seams
async def test_a_deadline_ends_a_call_at_both_ends(sim_seed: int, seam: Any) -> None:
    spans: list[tuple[int, float, float, float]] = []

    async def one(me: Caller, n: int, limit_s: float, work_s: float) -> None:
        began_s = now_s()
        try:
            with rc.deadline(limit_s):
                await me.called.many(str(me.id), n, work_s)
        except rc.DeadlineExceeded:
            assert now_s() >= began_s + limit_s
        spans.append((n, limit_s, began_s, now_s()))

    async def script(me: Caller) -> None:
        load = rng(sim_seed, me.id)
        async with anyio.create_task_group() as calls:
            for n in range(20):
                await anyio.sleep(load.uniform(0, 0.25))
                calls.start_soon(one, me, n, load.choice((0.05, 0.2, 0.6)), load.choice((0.01, 0.1, 5.0)))

    await run({"a": script}, callers="a", seam=seam, faults=CUTS)
    for n, limit_s, began_s, ended_s in spans:
        assert ended_s - began_s <= limit_s + CANCEL_S + NEAR_S, f"{n} held its caller up"
        for handling in LEDGER.of("many", n):
            assert 0 < handling.remaining_s <= limit_s + 1e-6
            assert handling.deadline_s >= began_s + limit_s - 1e-6  # nobody takes time away
            assert handling.ended_s is not None and handling.ended_s <= handling.deadline_s + 1e-6
            assert handling.begun_s - began_s <= limit_s + CUT_S * 3 + NEAR_S


@property_of
@both_seams
async def test_calls_made_while_handling_inherit_what_is_left(sim_seed: int, seam: Any) -> None:
    ended: dict[int, float] = {}

    async def one(me: Caller, n: int, limit_s: float) -> None:
        try:
            with rc.deadline(limit_s):
                await me.called.relay(str(me.id), n, 5.0)
        except rc.DeadlineExceeded:
            ended[n] = now_s()

    async def script(me: Caller) -> None:
        load = rng(sim_seed)
        async with anyio.create_task_group() as calls:
            for n in range(10):
                await anyio.sleep(load.uniform(0, 0.4))
                calls.start_soon(one, me, n, load.choice((0.1, 0.4, 1.0)))

    await run({"a": script}, callers="a", called="bd", seam=seam, faults=CUTS)
    assert len(ended) == 10
    for relayed in LEDGER.of("relay"):
        for further in LEDGER.of("many", relayed.n):
            assert further.role == "d/called"
            assert 0 < further.remaining_s <= relayed.remaining_s + 1e-6
            assert further.ended_s is not None and further.ended_s <= further.deadline_s + 1e-6


@property_of
@both_seams
async def test_what_is_started_inherits_neither_deadline_nor_cancellation(sim_seed: int, seam: Any) -> None:
    results: list[int] = []

    async def script(me: Caller) -> None:
        load = rng(sim_seed)
        handles = []
        for n in range(6):
            await anyio.sleep(load.uniform(0, 0.3))
            with anyio.move_on_after(load.choice((0.01, 0.1, 1.5))):
                handles.append(await me.called.train.start(str(me.id), n, 0.3))
                await anyio.sleep_forever()
        results.extend([await handle for handle in handles])

    await run({"a": script}, callers="a", seam=seam, faults=CUTS)
    done = [each for each in LEDGER.of("train") if each.fate == "done"]
    assert {each.n for each in done} >= set(results)
    assert all(each.deadline_s == float("inf") for each in done)
    assert len({each.n for each in LEDGER.of("train")}) == len(LEDGER.of("train"))
