"""The asynchronous architectures under faults: what each node holds is what a serial replay of its diary makes.

Nothing is averaged that was not sent, nothing twice, and nothing half: else the replay, which knows only who says that
he took what from whom, would come to other models.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np
import pytest
from msgspec.structs import replace

import rolecall as rc
from rolecall.architectures import adpsgd, gossip, wagma
from rolecall.sim.swarm import draw

from . import serial, test_adpsgd, test_gossip, test_wagma
from .small import MODEL, SEED, models, nodes, shares, start, with_class

SEEDS = 50 if "ROLECALL_SOAK" in os.environ else 2
COUNT, ROUNDS = 5, 15
QUICK = {"rounds": ROUNDS, "batch_size": 4, "lr": 0.2, "seed": SEED}

Replay = Callable[[rc.History], Mapping[str, serial.Vector]]


def on_devices(app: rc.App) -> rc.App:
    """Return the application on devices of unlike speed, behind lines of unlike latency."""
    app = app.expanded()
    some = [rc.Node(device="sensor", network="wifi"), rc.Node(device="edge", network="lan")]
    return replace(app, nodes={name: some[at % 2] for at, name in enumerate(app.nodes)}, on_failure="continue")


def gossiping() -> rc.App:
    return with_class(gossip.app(MODEL, shares(COUNT), topology="complete", fanout=2, **QUICK), test_gossip.Witness)


def exchanging() -> rc.App:
    app = adpsgd.app(MODEL, shares(COUNT), topology="complete", **QUICK)
    return with_class(app, test_adpsgd.Witness, role="aggregator")


def in_groups() -> rc.App:
    return with_class(wagma.app(MODEL, shares(COUNT), size=2, tau=6, **QUICK), test_wagma.Witness)


def replayed_gossip(history: rc.History) -> Mapping[str, serial.Vector]:
    found = test_gossip.diaries(history)
    merges = {name: found.get(name, []) for name in nodes(COUNT, lr=0.2)}
    for diary in merges.values():
        if len(diary) < ROUNDS:  # it has crashed, and may have sent what it trained last
            diary.append({})
    return serial.gossip(start(), nodes(COUNT, lr=0.2), merges, steps=1)


def replayed_adpsgd(history: rc.History) -> Mapping[str, serial.Vector]:
    found = test_adpsgd.diaries(history)
    diaries = {name: found.get(name, []) for name in nodes(COUNT, lr=0.2)}
    return serial.adpsgd(start(), nodes(COUNT, lr=0.2), told_by_both(diaries), lr=0.2)


def told_by_both(diaries: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Return diaries that end before an averaging of which the other node, which has crashed, says nothing any more."""
    kept = {name: list(diary) for name, diary in diaries.items()}
    for name, diary in kept.items():
        for other in kept:
            told = [at for at, what in enumerate(diary) if what == other]
            if len(told) > kept[other].count(name):
                del diary[told[kept[other].count(name)] :]
    return kept


def replayed_wagma(history: rc.History) -> Mapping[str, serial.Vector]:
    names = list(nodes(COUNT, lr=0.2))
    return serial.wagma(start(), nodes(COUNT, lr=0.2), test_wagma.diaries(history, names, ROUNDS))


WHAT: dict[str, tuple[Callable[[], rc.App], Replay, str]] = {
    "gossip": (gossiping, replayed_gossip, "worker"),
    "adpsgd": (exchanging, replayed_adpsgd, "aggregator"),
    "wagma": (in_groups, replayed_wagma, "worker"),
}


def assert_replayed(name: str, history: rc.History, *, without: str = "") -> None:
    """Raise unless each node that is left holds what the replay of the diaries makes."""
    _, replay, role = WHAT[name]
    found, expected = models(history, role), replay(history)
    assert set(found) == set(expected) - {without}
    for node, vector in found.items():
        np.testing.assert_allclose(vector, expected[node], rtol=1e-11, atol=1e-13, err_msg=node)


@pytest.mark.parametrize("name", WHAT)
@pytest.mark.simulation(seeds=SEEDS)
async def test_a_partition(sim_seed: int, name: str) -> None:
    app = on_devices(WHAT[name][0]())
    async with rc.simulation(app, seed=SEED, faults=draw(sim_seed, list(app.nodes), 2.0, "gentle")) as sim:
        sim.at(0.02 * (1 + sim_seed % 7)).partition(["node1", "node2"], ["node3", "node4", "node5"], for_s=0.5)
        assert_replayed(name, await sim.finished())


@pytest.mark.parametrize("name", ["gossip", "adpsgd"])
@pytest.mark.simulation(seeds=SEEDS)
async def test_a_crash(sim_seed: int, name: str) -> None:
    async with rc.simulation(on_devices(WHAT[name][0]()), seed=SEED) as sim:
        sim.at(0.02 + 0.011 * (sim_seed % 8)).crash("node2", how="silence" if sim_seed % 2 else "reset")
        history = await sim.finished()
        assert_replayed(name, history, without="node2")
        assert len(models(history, WHAT[name][2])) == COUNT - 1


@pytest.mark.simulation(seeds=SEEDS)
async def test_a_crash_ends_those_that_average_with_everybody_by_name(sim_seed: int) -> None:
    with pytest.raises(rc.ApplicationFailed, match="node2"):
        async with rc.simulation(replace(on_devices(in_groups()), on_failure="fail"), seed=SEED) as sim:
            sim.at(0.02 + 0.011 * (sim_seed % 8)).crash("node2")
            await sim.finished()
