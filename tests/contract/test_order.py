"""Order: handlers start in the order of the calls of each caller, on each channel; inboxes hold it too."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from .contract_app import CRASHES, Fates, both_seams, property_of, rng, run
from .contract_roles import LEDGER, Caller

SIZES = (0, 100, 400_000)
"""Of what is sent: the last goes in pieces, and what is small overtakes it where it may."""


@property_of
@both_seams
@pytest.mark.parametrize("channel", ["note", "waits"])
async def test_handlers_begin_in_the_order_of_the_calls(sim_seed: int, seam: Any, channel: str) -> None:
    fates, numbers = Fates(), iter(range(10_000))

    async def script(me: Caller) -> None:
        load = rng(sim_seed, me.id)
        async with anyio.create_task_group() as calls:
            for _ in range(10):
                await anyio.sleep(load.uniform(0, 0.2))
                for _ in range(load.choice((1, 3, 6))):
                    more = (bytes(load.choice(SIZES)),) if channel == "note" else ()
                    calls.start_soon(fates.call, me, channel, next(numbers), load.choice((0.0, 0.01)), *more)

    faults = ("gentle", CRASHES)[sim_seed % 2]
    await run({"a": script, "c": script}, seam=seam, faults=faults, spare="ac")
    for caller in ("a/caller", "c/caller"):
        sent = [n for who, _, n in fates.sent if who == caller]
        begun = [each.n for each in LEDGER.of(channel) if each.caller == caller]
        assert begun == [n for n in sent if n in set(begun)]
    fates.effects_agree(channel)
    if faults == "gentle":
        assert len(LEDGER.handlings) == len(fates.sent)
