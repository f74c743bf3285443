"""Topics: who stays subscribed hears every event once and in order, whatever becomes of the others."""

from __future__ import annotations

from typing import Any

import anyio

from .contract_app import CRASHES, both_seams, property_of, rng, run
from .contract_roles import LEDGER, Caller, Note

EVENTS = 40


@property_of
@both_seams
async def test_who_stays_hears_all_events_once_and_in_order(sim_seed: int, seam: Any) -> None:
    told: dict[str, list[int]] = {}

    async def script(me: Caller) -> None:
        load = rng(sim_seed, me.id)
        for n in range(EVENTS):
            if load.random() < 0.3:
                await anyio.sleep(load.uniform(0, 0.3))
            told.setdefault(str(me.id), []).append(n)
            await me.told.emit(Note(str(me.id), n, bytes(load.choice((0, 300_000)) if n % 10 == 0 else 0)))
        await anyio.sleep(3)

    faults = ("gentle", CRASHES)[sim_seed % 2]
    await run({"a": script, "c": script}, called="b", readers="bde", seam=seam, faults=faults, spare="abcd")
    for (reader, _), heard in LEDGER.heard.items():
        for emitter, sent in told.items():
            of_it = [n for source, n in heard if source == emitter]
            if reader != "e/reader" or faults == "gentle":
                assert of_it == sent, f"{reader} has not heard of {emitter} what it said"
            else:
                assert of_it == sorted(set(of_it))
    assert {reader for reader, _ in LEDGER.heard} >= {"b/reader", "d/reader"}
