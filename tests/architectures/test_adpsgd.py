from __future__ import annotations

from collections.abc import Iterable

import anyio
import numpy as np
import pytest
from msgspec.structs import replace

import rolecall as rc
from rolecall.architectures import adpsgd

from . import serial
from .small import MODEL, SEED, assert_same, models, nodes, shares, start, with_class


class Witness(adpsgd.ExchangeAggregator):
    """Keeps a diary: when a gradient begins, with whom it averages, when a gradient is applied."""

    @rc.service
    async def value(self) -> rc.Tensors:
        self.log(did="value")
        return await super().value()

    @rc.service
    async def add(self, change: rc.Tensors) -> rc.Tensors:
        self.log(did="add")
        return await super().add(change)

    def merge(self, other: rc.RoleId, theirs: rc.Tensors) -> None:
        self.log(did=other.home)
        super().merge(other, theirs)


def diaries(history: rc.History) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for metric in history.metrics:
        if "did" in metric.values:
            found.setdefault(metric.role.partition("/")[0], []).append(str(metric.values["did"]))
    return found


def witnessed(app: rc.App) -> rc.History:
    return rc.run_sync(with_class(app, Witness, role="aggregator"), checked=True)


def averagings(found: dict[str, list[str]]) -> int:
    return sum(what in found for diary in found.values() for what in diary) // 2


@pytest.mark.parametrize(
    ("topology", "bipartite"), [("ring", False), ("ring", True), ("regular(3)", False), ("star", False)]
)
def test_equals_the_serial_replay_of_its_diary(topology: str, bipartite: bool) -> None:
    app = adpsgd.app(
        MODEL, shares(6), topology=topology, bipartite=bipartite, rounds=15, batch_size=4, lr=0.2, seed=SEED
    )
    history = witnessed(app)
    found = diaries(history)
    assert averagings(found) > 15, "hardly anybody averaged"
    expected = serial.adpsgd(start(), nodes(6, lr=0.2), found, lr=0.2)
    assert_same(models(history, "aggregator"), expected)


class Apart(Witness):
    """Starts from a model of its own."""

    @rc.service
    async def start(self, params: rc.Tensors) -> None:
        await super().start(params + float(self.rng("start").normal()))


def test_averaging_keeps_the_mean_of_all() -> None:
    app = adpsgd.app(MODEL, shares(6), topology="regular(3)", rounds=60, lr=0.0, seed=SEED)
    history = rc.run_sync(with_class(app, Apart, role="aggregator"), checked=True)
    found = np.array(list(models(history, "aggregator").values()))
    offsets = [rng(number).normal() for number in range(1, 7)]
    np.testing.assert_allclose(found.mean(axis=0), start() + np.mean(offsets), rtol=1e-12)
    assert np.ptp(found, axis=0).max() < 0.2 * np.ptp(offsets)


def rng(number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(serial.seed_for(SEED, f"node{number}/aggregator", "start", 0)))


def test_passive_nodes_never_ask_and_active_ones_never_answer() -> None:
    app = adpsgd.app(MODEL, shares(6), topology="complete", bipartite=True, rounds=20, seed=SEED)
    history = witnessed(app)
    for who, state in history.states.items():
        if who.endswith("/aggregator"):
            assert (state.asked > 0) == (int(who.home.removeprefix("node")) % 2 == 1)
    odd, even = {"node1", "node3", "node5"}, {"node2", "node4", "node6"}
    for name, diary in diaries(history).items():
        assert set(diary) - {"value", "add"} <= (even if name in odd else odd)


class Both(rc.Role):
    """Has two aggregators ask each other at once."""

    aggregators: rc.Group[adpsgd.ExchangeAggregator] = rc.many()

    async def main(self) -> None:
        await self.aggregators.call(adpsgd.ExchangeAggregator.start, rc.Tensors({"x": np.zeros(2)}))
        answers = await self.aggregators.call(adpsgd.ExchangeAggregator.average)
        self.log(averaged=sum(answers.values()))


async def test_two_that_ask_each_other_at_once_refuse_and_end() -> None:
    aggregator = rc.RoleSpec(adpsgd.ExchangeAggregator, {"tries": 1})
    app = rc.App(
        name="both",
        nodes={"a": rc.Node(), "b": rc.Node()},
        roles={"a": {"x": aggregator, "both": rc.RoleSpec(Both)}, "b": {"x": aggregator}},
        relationships={
            "*/x": {"neighbours": ["a/x", "b/x"]},
            "a/both": {"aggregators": "*/x"},
        },
    )
    with anyio.fail_after(5):
        history = await rc.run(app, checked=True)
    assert history.last("averaged") in (0, 1)


class Leaving(adpsgd.ExchangeAggregator):
    """Ends in the middle of an averaging that another has asked for."""

    def merge(self, other: rc.RoleId, theirs: rc.Tensors) -> None:
        super().merge(other, theirs)
        self.leave()


async def test_the_others_go_on_without_a_neighbour_that_leaves() -> None:
    app = adpsgd.app(MODEL, shares(5), topology="complete", rounds=15, seed=SEED).expanded()
    app = replace(with_class(app, Leaving, "node3", role="aggregator"), on_failure="continue")
    with anyio.fail_after(20):
        history = await rc.run(app, checked=True)
    assert rounds_of(history, (1, 2, 4, 5)) == [15] * 4


def rounds_of(history: rc.History, numbers: Iterable[int]) -> list[int]:
    return [history.states[rc.RoleId(f"node{number}/worker")].round for number in numbers]


async def test_without_neighbours_it_is_plain_descent() -> None:
    app = adpsgd.app(MODEL, shares(1), topology="ring", rounds=7, batch_size=4, lr=0.3, seed=SEED)
    found = models(await rc.run(app, checked=True), "aggregator")
    assert_same(found, {"node1": nodes(1, lr=0.3)["node1"].descend(start(), range(7))})
