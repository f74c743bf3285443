from __future__ import annotations

from collections.abc import Mapping

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from msgspec.structs import replace

import rolecall as rc
from rolecall.architectures import gossip
from rolecall.architectures.gossip import Aged, merged
from rolecall.architectures.roles import TrainingReport

from . import serial
from .small import MODEL, SEED, assert_same, models, nodes, shares, start, with_class


class Witness(gossip.GossipNode):
    """Writes down whose model of which age it merges in each round."""

    def merge(self, params: rc.Tensors, received: Mapping[rc.RoleId, Aged]) -> rc.Tensors:
        self.log(merges=" ".join(f"{who.home}:{model.age}" for who, model in received.items()))
        return super().merge(params, received)


def diaries(history: rc.History) -> dict[str, list[dict[str, int]]]:
    found: dict[str, list[dict[str, int]]] = {}
    for metric in history.metrics:
        if "merges" in metric.values:
            pairs = (item.split(":") for item in str(metric.values["merges"]).split())
            found.setdefault(metric.role.partition("/")[0], []).append({who: int(age) for who, age in pairs})
    return found


@pytest.mark.parametrize(("topology", "fanout"), [("ring", 1), ("regular(3)", 2), ("complete", 1), ("star", 1)])
def test_equals_the_serial_replay_of_its_diary(topology: str, fanout: int) -> None:
    app = gossip.app(
        MODEL, shares(6), topology=topology, fanout=fanout, rounds=12, local_steps=2, batch_size=4, lr=0.2, seed=SEED
    )
    history = rc.run_sync(with_class(app, Witness), checked=True)
    merges = diaries(history)
    assert sum(len(heard) for diary in merges.values() for heard in diary) > 20, "hardly anybody heard of anybody"
    assert_same(models(history), serial.gossip(start(), nodes(6, lr=0.2), merges, steps=2))


def test_models_are_merged_by_age() -> None:
    young, old = (Aged(rc.Tensors({"x": np.full(2, value)}), age) for value, age in ((0.0, 1), (4.0, 3)))
    assert merged(young, [old]) == Aged(rc.Tensors({"x": np.full(2, 3.0)}), 3)
    assert merged(old, [young, old]) == Aged(rc.Tensors({"x": np.full(2, 24 / 7)}), 3)


def test_a_model_that_has_seen_nothing_counts_for_nothing() -> None:
    new, mine = (Aged(rc.Tensors({"x": np.ones(2) * value}), age) for value, age in ((9.0, 0), (1.0, 5)))
    assert merged(mine, [new]) == mine
    assert merged(new, [mine]) == mine
    assert merged(new, []) == new


class Pusher(rc.Role):
    """Pushes two models, and looks at what another has kept."""

    aggregator: gossip.PushAggregator = rc.one()

    async def main(self) -> None:
        for age in (1, 2):
            await self.aggregator.push(Aged(rc.Tensors({"x": np.zeros(1)}), age), age)


class Fetcher(rc.Role):
    aggregator: gossip.PushAggregator = rc.one()

    async def main(self) -> None:
        while not (kept := await self.aggregator.fetch()):
            await anyio.lowlevel.checkpoint()
        self.log(kept=" ".join(f"{who} {model.age}" for who, model in kept.items()))
        self.log(left=len(await self.aggregator.fetch()))


async def test_the_newest_model_of_each_neighbour_is_kept_once() -> None:
    class Patient(Fetcher):
        async def main(self) -> None:
            await anyio.sleep(0.02)
            await super().main()

    aggregator = {"aggregator": rc.RoleSpec(gossip.PushAggregator)}
    app = rc.App(
        name="push",
        nodes={"a": rc.Node(), "b": rc.Node()},
        roles={"a": {**aggregator, "pusher": rc.RoleSpec(Pusher)}, "b": {**aggregator, "it": rc.RoleSpec(Patient)}},
        relationships={"a": {"neighbours": "b/aggregator"}, "b": {"neighbours": "a/aggregator"}},
    )
    history = await rc.run(app, checked=True)
    assert (history.last("kept"), history.last("left")) == ("a/aggregator 2", 0)


async def test_a_stranger_may_not_push() -> None:
    class Stranger(rc.Role):
        aggregator: gossip.PushAggregator = rc.one("victim")

        async def main(self) -> None:
            with pytest.raises(rc.NotAllowed):
                await self.aggregator.accept(Aged(rc.Tensors({"x": np.zeros(1)}), 9))

    app = rc.App(
        name="push",
        nodes={"a": rc.Node()},
        roles={"a": {"victim": rc.RoleSpec(gossip.PushAggregator), "stranger": rc.RoleSpec(Stranger)}},
        relationships={"a/victim": {"neighbours": []}},
    )
    await rc.run(app)


class FailingAggregator(gossip.PushAggregator):
    """Ends when it is given the second model."""

    async def main(self) -> None:
        while len(self.kept) < 2:
            await anyio.lowlevel.checkpoint()
        self.leave()


async def test_the_others_go_on_without_a_neighbour_that_leaves() -> None:
    app = gossip.app(MODEL, shares(4), topology="complete", rounds=20, fanout=3, seed=SEED)
    lone = {**app.roles["node2"], "aggregator": rc.RoleSpec(FailingAggregator)}
    rest = {f"node{n}": {**app.roles[f"node{n}"], "aggregator": app.roles["node*"]["aggregator"]} for n in (1, 3, 4)}
    app = replace(app, roles={"node2": lone, **rest}, on_failure="continue")
    history = await rc.run(app, checked=True)
    rounds = {who: state.round for who, state in history.states.items() if who.endswith("/worker")}
    assert [rounds[rc.RoleId(f"node{number}/worker")] for number in (1, 3, 4)] == [20] * 3


class Recruiter(rc.Role):
    """Has a node take part once the others have trained for some rounds."""

    workers: rc.Group[gossip.GossipNode] = rc.many()
    nodes: rc.Group[rc.NodeRole] = rc.many()

    worker: rc.RoleSpec

    def __init__(self) -> None:
        self.heard = anyio.Event()

    @workers.on(gossip.GossipNode.trained)
    async def reported(self, source: rc.RoleId, report: TrainingReport) -> None:
        if report.round >= 4:
            self.heard.set()

    async def main(self) -> None:
        await self.heard.wait()
        await self.nodes.at(0).assign(
            rc.RoleSpec(gossip.PushAggregator), "aggregator", {"neighbours": ["node*/aggregator"]}
        )
        await self.nodes.at(0).assign(self.worker, "worker")


def test_who_joins_hears_of_the_others_and_is_heard() -> None:
    app = gossip.app(MODEL, shares(3), topology="complete", rounds=60, period_s=0.002, test_every=2, seed=SEED)
    app = with_class(app, Witness)

    class Knowing(Recruiter):
        worker = app.roles["node1"]["worker"]

    app = replace(
        app,
        nodes={**app.nodes, "node4": rc.Node(), "office": rc.Node()},
        roles={
            **{f"node{n}": {**app.roles[f"node{n}"], **app.roles["node*"]} for n in (1, 2, 3)},
            "office": {"recruiter": rc.RoleSpec(Knowing)},
        },
        relationships={
            **app.relationships,
            "office/recruiter": {"workers": "node[1-3]/worker", "nodes": "node4/node"},
            "node4/node": {"manager": "office/recruiter"},
        },
    )
    merges = diaries(rc.run_sync(app))
    assert any(heard for heard in merges["node4"]), "the new node has heard of nobody"
    assert any("node4" in heard for name in ("node1", "node2", "node3") for heard in merges[name])


def test_the_period_paces_the_pushes() -> None:
    app = gossip.app(MODEL, shares(2), topology="ring", rounds=5, period_s=0.02, seed=SEED)
    assert rc.run_sync(app).wall_s > 0.08
