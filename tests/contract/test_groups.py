"""Groups: answers in the order of the members whoever was first, and a quorum, while members come and go."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.sim.faults import Crash
from rolecall.sim.schedule import Schedule, Timed

from .contract_app import CRASHES, both_seams, property_of, rng, run
from .contract_roles import LEDGER, Called, Caller

MEMBERS = "bcd"


@property_of
@both_seams
async def test_answers_come_in_the_order_of_the_members(sim_seed: int, seam: Any) -> None:
    orders: list[list[str]] = []

    async def script(me: Caller) -> None:
        load = rng(sim_seed)
        for n in range(8):
            await anyio.sleep(load.uniform(0, 0.3))
            delays = {who: load.choice((0.0, 0.05, 0.1)) for who in me.group}
            replies = await me.group.call_each(_asking(n, delays))
            orders.append(list(replies))
            assert set(replies.values()) == {n} and not replies.failures

    await run({"a": script}, callers="a", called=MEMBERS, seam=seam, faults="gentle")
    assert orders == [[f"{name}/called" for name in MEMBERS]] * 8


@property_of
@both_seams
@pytest.mark.parametrize("late", ["cancel", "ignore", "keep"])
async def test_a_quorum_decides_while_members_come_and_go(sim_seed: int, seam: Any, late: Any) -> None:
    answered: dict[int, list[str]] = {}
    kept: list[tuple[str, int]] = []

    async def script(me: Caller) -> None:
        load = rng(sim_seed)
        for n in range(12):
            await anyio.sleep(load.uniform(0, 0.4))
            members = me.group.ids
            delays = {who: load.choice((0.0, 0.1, 0.8)) for who in members}
            try:
                group = me.group.within(quorum=2, deadline_s=0.4, late=late)
                replies = await group.call_each(_asking(n, delays))
            except rc.QuorumMissed as error:
                assert len(members) - len(error.failures) < 2
                assert set(error.failures) <= set(members)
                continue
            answered[n] = list(replies)
            assert list(replies) == [who for who in members if who in replies] and len(replies) >= 2
            assert list(replies.failures) == [who for who in members if who in replies.failures]
            assert not replies.failures.keys() & replies.keys()
            assert set(replies.values()) == {n}
            kept.extend(replies.late.items())

    await run({"a": script}, callers="a", called=MEMBERS, seam=seam, faults=CRASHES, spare="a")
    for n, roles in answered.items():
        assert {each.role for each in LEDGER.of("many", n)} >= set(roles)
    assert late == "keep" or not kept
    assert len(set(kept)) == len(kept)
    assert all(who not in answered.get(n, ()) for who, n in kept)  # who was in time is not late as well
    if late == "cancel":
        assert all(each.fate != "running" for each in LEDGER.of("many") if each.life == LEDGER.lives)


def _asking(n: int, delays: dict[rc.RoleId, float]) -> Any:
    return lambda who: Called.many.bind("a/caller", n, delays[who])


@pytest.mark.simulation
async def test_a_node_that_crashes_when_somebody_has_just_connected_leaves_no_timer(sim_seed: int) -> None:
    async def script(me: Caller) -> None:
        await anyio.sleep(1)
        with anyio.move_on_after(0.002):
            await me.called.many("a/caller", 0, 0.0)

    faults = Schedule((Timed(1.0008, Crash("b", 0.01, "kept")),))
    await run({"a": script}, callers="a", seam="grpc", faults=faults)
