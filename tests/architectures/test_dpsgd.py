from __future__ import annotations

import gc
from pathlib import Path

import networkx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import rolecall as rc
from rolecall.architectures import dpsgd
from rolecall.core.ids import RoleId
from rolecall.core.topologies import neighbours

from . import serial
from .small import MODEL, SEED, assert_same, models, nodes, shares, start, with_class

GRAPHS = ("ring", "regular(3)", "star", "small-world(4, 0.3)", "complete")


def graph(topology: str, count: int) -> list[list[int]]:
    names = [f"node{number}/worker" for number in range(1, count + 1)]
    found = neighbours(topology, names, SEED)
    return [[names.index(other) for other in found[name]] for name in names]


@pytest.mark.parametrize("adapt_first", [False, True])
@pytest.mark.parametrize("topology", GRAPHS)
def test_equals_the_serial_reference(topology: str, adapt_first: bool) -> None:
    options = {"rounds": 6, "local_steps": 2, "batch_size": 4, "lr": 0.2, "seed": SEED}
    app = dpsgd.app(MODEL, shares(6), topology=topology, adapt_first=adapt_first, **options)  # type: ignore[arg-type]
    found = models(rc.run_sync(app, checked=True))
    reference = nodes(6, lr=0.2)
    weights = serial.mixing(graph(topology, 6))
    expected = serial.dpsgd(start(), list(reference.values()), weights, 6, 2, adapt=adapt_first)
    assert_same(found, dict(zip(reference, expected, strict=True)))


class Apart(dpsgd.DPSGDNode):
    """Starts from a model of its own."""

    async def setup(self) -> None:
        self.state.params = self.params * (1 + int(self.rng("start").integers(5)))


def test_mixing_keeps_the_mean_and_brings_the_models_together() -> None:
    ways = {}
    for rounds in (1, 40):
        app = dpsgd.app(MODEL, shares(7), topology="ring", rounds=rounds, lr=0.0, seed=SEED)
        ways[rounds] = np.array(list(models(rc.run_sync(with_class(app, Apart), checked=True)).values()))
    np.testing.assert_allclose(ways[1].mean(axis=0), ways[40].mean(axis=0), rtol=1e-12)
    assert np.ptp(ways[40], axis=0).max() < 0.01 * np.ptp(ways[1], axis=0).max()


@given(st.integers(2, 12), st.sampled_from([0.0, 0.2, 0.5, 1.0]), st.integers(0, 2**32))
def test_the_weights_are_symmetric_and_sum_to_one(count: int, chance: float, seed: int) -> None:
    drawn = networkx.fast_gnp_random_graph(count, chance, seed=seed)
    weights = np.zeros((count, count))
    for node in drawn:
        others = sorted(drawn.neighbors(node))
        own, *rest = dpsgd.metropolis_hastings(len(others), [drawn.degree(other) for other in others])
        weights[node, node], weights[node, others] = own, rest
    np.testing.assert_array_equal(weights, weights.T)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-12)
    assert (weights >= 0).all()


class Failing(dpsgd.DPSGDNode):
    """Fails after three rounds."""

    async def one_round(self, params: rc.Tensors, round: int) -> rc.Tensors:
        if round == 3:
            raise RuntimeError("out of memory")
        return await super().one_round(params, round)


async def test_the_others_go_on_without_one_that_fails() -> None:
    app = dpsgd.app(MODEL, shares(5), topology="complete", rounds=12, seed=SEED)
    app = replace(with_class(app, Failing, "node2"), on_failure="continue")
    history = await rc.run(app, checked=True)
    rounds = {who: state.round for who, state in history.states.items() if who.endswith("/worker")}
    assert {who: count for who, count in rounds.items() if who != "node2/worker"} == {
        RoleId(f"node{number}/worker"): 12 for number in (1, 3, 4, 5)
    }


def test_a_graph_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "edges.txt").write_text("node1 node2\nnode2 node3\n")
    app = dpsgd.app(MODEL, shares(3), topology=f"file({tmp_path}/edges.txt)", rounds=2, lr=0.2, batch_size=4, seed=SEED)
    weights = serial.mixing([[1], [0, 2], [1]])
    reference = nodes(3, lr=0.2)
    expected = serial.dpsgd(start(), list(reference.values()), weights, 2, 1, adapt=False)
    assert_same(models(rc.run_sync(app)), dict(zip(reference, expected, strict=True)))


def test_a_model_that_is_not_finite_is_named() -> None:
    app = dpsgd.app(MODEL, shares(1), topology="ring", rounds=3, lr=float("inf"), seed=SEED)
    with pytest.raises(rc.ApplicationFailed, match="node1/worker: the model after the steps of round 0 is not finite"):
        rc.run_sync(app)


class FailingLater(dpsgd.DPSGDNode):
    """Fails in its third round, when others are about to send it their models."""

    async def one_round(self, params: rc.Tensors, round: int) -> rc.Tensors:
        if round == 2:
            raise ArithmeticError("enough")
        return await super().one_round(params, round)


def test_a_failure_leaves_no_errors_that_nobody_has_looked_at(caplog: pytest.LogCaptureFixture) -> None:
    app = with_class(dpsgd.app(MODEL, shares(4), topology="ring", rounds=9, seed=SEED), FailingLater, "node2")
    with pytest.raises(rc.ApplicationFailed, match="enough"):
        rc.run_sync(app, engine="sim")
    gc.collect()
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
