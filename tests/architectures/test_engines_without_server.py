"""The architectures without a server in the simulator: the same bits, exact replays, and what faults do to them."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import pytest
from msgspec.structs import replace

import rolecall as rc
from rolecall.architectures import adpsgd, dpsgd, etree, gossip, ring_allreduce, wagma

from .small import MODEL, SEED, shares, wider, with_model

QUICK: dict[str, Any] = {"rounds": 8, "batch_size": 4, "lr": 0.2, "seed": SEED}


def on_a_ring(module: ModuleType) -> dict[str, str]:
    return {"topology": "ring"} if module in (gossip, dpsgd, adpsgd) else {}


@pytest.mark.parametrize("module", [dpsgd, ring_allreduce, etree])
def test_the_simulator_gives_the_digest_of_one_process(module: ModuleType) -> None:
    app = module.app(MODEL, shares(5), **QUICK)
    assert rc.run_sync(app, engine="sim").digest == rc.run_sync(app).digest


@pytest.mark.parametrize("module", [gossip, adpsgd, wagma])
def test_the_asynchronous_replay_exactly_in_the_simulator(module: ModuleType) -> None:
    app = module.app(MODEL, shares(5), **QUICK)
    first, again = (rc.run_sync(app, engine="sim") for _ in range(2))
    assert first.digest == again.digest
    assert [m.values for m in first.metrics] == [m.values for m in again.metrics]


@pytest.mark.parametrize("module", [gossip, dpsgd, adpsgd, wagma, ring_allreduce])
def test_a_model_of_another_shape_is_named(module: ModuleType) -> None:
    app = with_model(module.app(MODEL, shares(3), **QUICK, **on_a_ring(module)), "node2", wider)
    with pytest.raises(rc.ApplicationFailed, match=r"node\d/\w+: its update cannot be averaged|what node\d/aggregator"):
        rc.run_sync(app, engine="sim")


def rounds(history: rc.History) -> Mapping[str, int]:
    found = {who: state.round for who, state in history.states.items() if who.endswith("/worker")}
    return {who.partition("/")[0]: count for who, count in found.items()}


@pytest.mark.parametrize("module", [gossip, adpsgd, dpsgd])
@pytest.mark.simulation(seeds=2)
async def test_the_others_go_on_without_a_node_that_crashes(sim_seed: int, module: ModuleType) -> None:
    app = module.app(MODEL, shares(4), topology="complete", **{**QUICK, "rounds": 30})
    async with rc.simulation(replace(app, on_failure="continue"), seed=sim_seed) as sim:
        sim.at(0.01 * (1 + sim_seed % 5)).crash("node2")
        done = rounds(await sim.finished())
    assert {name: count for name, count in done.items() if name != "node2"} == dict.fromkeys(
        ["node1", "node3", "node4"], 30
    )


@pytest.mark.parametrize("module", [gossip, adpsgd, dpsgd, wagma, ring_allreduce])
@pytest.mark.simulation(seeds=2)
async def test_a_partition_that_heals_holds_nobody_up_for_good(sim_seed: int, module: ModuleType) -> None:
    app = module.app(MODEL, shares(4), **{**QUICK, "rounds": 20}, **on_a_ring(module))
    async with rc.simulation(app, seed=sim_seed) as sim:
        sim.at(0.01).partition(["node1", "node2"], ["node3", "node4"], for_s=1.0)
        history = await sim.finished()
    assert set(rounds(history).values()) == {20}
