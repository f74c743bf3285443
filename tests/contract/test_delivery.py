"""Delivery: what is sent between two living nodes takes effect once; else its sender is told what became of it."""

from __future__ import annotations

from typing import Any

import anyio

import rolecall as rc

from .contract_app import Fates, both_seams, profile, property_of, rng, run, running
from .contract_roles import LEDGER, Caller, Note


@property_of
@both_seams
async def test_a_call_takes_effect_once_or_its_caller_is_told(sim_seed: int, seam: Any) -> None:
    fates, numbers = Fates(), iter(range(10_000))

    async def script(me: Caller) -> None:
        load = rng(sim_seed, me.id)
        async with anyio.create_task_group() as calls:
            for _ in range(12):
                await anyio.sleep(load.uniform(0, 0.4))
                for _ in range(load.choice((1, 1, 3))):
                    calls.start_soon(fates.call, me, "many", next(numbers), load.choice((0.0, 0.01, 0.2)))

    faults = profile(sim_seed)
    await run({"a": script, "c": script}, seam=seam, faults=faults, spare="ac")
    fates.effects_agree("many")
    assert len(fates.of) == next(numbers)
    if faults == "gentle":
        assert all(n == fate for n, fate in fates.of.items()), fates.of


@property_of
@both_seams
async def test_a_call_that_may_be_repeated_takes_effect_at_least_once(sim_seed: int, seam: Any) -> None:
    fates = Fates()

    async def script(me: Caller) -> None:
        load = rng(sim_seed)
        async with anyio.create_task_group() as calls:
            for n in range(15):
                await anyio.sleep(load.uniform(0, 0.3))
                calls.start_soon(fates.call, me, "again", n, load.choice((0.0, 0.3)))

    await run({"a": script}, callers="a", seam=seam, faults=profile(sim_seed), spare="a")
    fates.effects_agree("again", at_least_once=True)
    lives = {each.life for each in LEDGER.handlings}
    for n in fates.of:
        effects = LEDGER.of("again", n)
        assert len({each.life for each in effects}) == len(effects) <= len(lives)  # once in a life at most


@property_of
@both_seams
async def test_a_message_that_put_has_returned_from_is_in_the_inbox_once(sim_seed: int, seam: Any) -> None:
    put: dict[str, list[int]] = {}
    doubtful: set[int] = set()
    taken: list[tuple[str, int]] = []

    async def script(me: Caller) -> None:
        load = rng(sim_seed, me.id)
        for n in range(20):
            await anyio.sleep(load.uniform(0, 0.2))
            try:
                await me.called.notes.put(Note(str(me.id), n, bytes(load.choice((0, 300_000)))))
                put.setdefault(str(me.id), []).append(n)
            except rc.RoleLost as error:
                if error.effect == "unknown":
                    doubtful.add(n)

    faults = profile(sim_seed)
    async with running({"a": script, "c": script}, seam=seam, faults=faults, spare="abc") as sim:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_taking, sim, taken)
            await sim.finished()
            await anyio.sleep(5)
            tasks.cancel_scope.cancel()
    for caller, numbers in put.items():
        got = [n for who, n in taken if who == caller]
        assert [n for n in got if n not in doubtful] == [n for n in numbers if n not in doubtful]
        assert len(set(got)) == len(got)


async def _taking(sim: Any, taken: list[tuple[str, int]]) -> None:
    while True:
        await anyio.sleep(0.05)
        taken += [(note.caller, note.n) for _, note in sim.role("b/called").notes.drain()]
