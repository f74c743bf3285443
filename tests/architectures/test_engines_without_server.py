"""The architectures without a server in the simulator: the same bits, exact replays, and what faults do to them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from msgspec.structs import replace

import rolecall as rc
from rolecall.architectures import (
    adpsgd,
    butterfly_allreduce,
    dpsgd,
    etree,
    gossip,
    ring_allreduce,
    tree_allreduce,
    wagma,
)
from rolecall.learn import ArrayDataset

from .small import MODEL, SEED, assert_same, models, shares, wider, with_class, with_model

QUICK: dict[str, Any] = {"rounds": 8, "batch_size": 4, "lr": 0.2, "seed": SEED}


PEERS = [gossip, dpsgd, adpsgd, wagma, ring_allreduce]
EXACT = [dpsgd, ring_allreduce, butterfly_allreduce, tree_allreduce, etree]


def on_a_ring(module: ModuleType) -> dict[str, str]:
    return {"topology": "ring"} if module in (gossip, dpsgd, adpsgd) else {}


@pytest.mark.parametrize("module", EXACT)
def test_the_simulator_gives_the_digest_of_one_process_on_both_seams(module: ModuleType) -> None:
    app = module.app(MODEL, shares(5), **QUICK)

    async def over_grpc() -> str:
        async with rc.simulation(app, seam="grpc") as sim:
            return (await sim.finished()).digest

    found = {rc.run_sync(app).digest, rc.run_sync(app, engine="sim").digest}
    assert found == {rc.simulate(over_grpc, seed=SEED, threads="inline")}


@pytest.mark.parametrize("module", [gossip, adpsgd, wagma])
def test_the_asynchronous_replay_exactly_in_the_simulator(module: ModuleType) -> None:
    app = module.app(MODEL, shares(5), **QUICK)
    first, again = (rc.run_sync(app, engine="sim") for _ in range(2))
    assert first.digest == again.digest
    assert [m.values for m in first.metrics] == [m.values for m in again.metrics]


def with_data(app: rc.App, node: str, data: ArrayDataset) -> rc.App:
    """Return the application with other data for a node."""
    roles = {name: dict(there) for name, there in app.roles.items()}
    [name] = [name for name, spec in roles[node].items() if "data" in spec.elements]
    elements = {**roles[node][name].elements, "data": rc.ElementSpec(value=data)}
    roles[node][name] = replace(roles[node][name], elements=elements)
    return replace(app, roles=roles)


@pytest.mark.parametrize("module", [*PEERS, etree])
def test_an_empty_shard_is_an_error_that_names_its_node(module: ModuleType) -> None:
    nothing = ArrayDataset(shares(3)[1].x[:0], shares(3)[1].y[:0])
    app = with_data(module.app(MODEL, shares(3), **QUICK, **on_a_ring(module)), "node2", nothing)
    with pytest.raises(rc.ApplicationFailed, match=r"node2/(worker|leaf).*the data set is empty"):
        rc.run_sync(app, engine="sim")


@pytest.mark.parametrize("module", [*PEERS, etree])
def test_what_is_no_number_is_never_averaged(module: ModuleType) -> None:
    broken = ArrayDataset(shares(3)[1].x * np.nan, shares(3)[1].y)
    app = with_data(module.app(MODEL, shares(3), **QUICK, **on_a_ring(module)), "node2", broken)
    with pytest.raises(rc.ApplicationFailed, match=r"node2/(worker|leaf).*(is not finite|cannot be averaged)"):
        rc.run_sync(app, engine="sim")


class Twice(dpsgd.DPSGDNode):
    """Sends another model for each round after the right one."""

    async def share(self, params: rc.Tensors, round: int) -> dpsgd.Shared:
        mine = await super().share(params, round)
        await self.neighbours.others.put(dpsgd.DPSGDNode.models, dpsgd.Shared(round, params * 100.0, mine.degree))
        return mine


def test_of_a_neighbour_that_answers_twice_the_first_answer_counts() -> None:
    app = dpsgd.app(MODEL, shares(4), **QUICK, topology="ring")
    found = rc.run_sync(with_class(app, Twice, "node2"), engine="sim")
    assert_same(models(found), models(rc.run_sync(app, engine="sim")))


@pytest.mark.parametrize("module", PEERS)
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


@pytest.mark.parametrize(
    ("build", "problem"),
    [
        (lambda: dpsgd.app(MODEL, shares(3), topology="ring", local_steps=0), "DPSGDNode: local_steps is 0"),
        (lambda: ring_allreduce.app(MODEL, shares(3), test_every=0), "test_every is 0"),
        (lambda: gossip.app(MODEL, shares(3), topology="ring", fanout=0), "PushAggregator: fanout is 0"),
        (lambda: wagma.app(MODEL, shares(3), tau=0), "WAGMAWorker: tau is 0"),
        (lambda: etree.app(MODEL, shares(3), steps=(0,)), "Cluster: steps is 0"),
        (lambda: etree.app(MODEL, shares(3), clusters=(2,), steps=(2, 2)), r"steps=\(2, 2\) of clusters=\(2,\)"),
        (lambda: etree.app(MODEL, shares(5), clusters=(4, 2)), r"steps=\(2,\) of clusters=\(4, 2\)"),
        (lambda: etree.app(MODEL, shares(3), clusters=(4,)), r"clusters=\(4,\) of 3 nodes"),
        (lambda: gossip.app(MODEL, "digits", nodes=0), "clients is 0"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(build: Callable[[], rc.App], problem: str) -> None:
    with pytest.raises(rc.RolecallError, match=problem):
        rc.run_sync(build(), engine="sim")
