from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pytest
from msgspec.structs import replace

import rolecall as rc
from rolecall.architectures import etree
from rolecall.architectures.roles import Loader, Organizer, Trainer
from rolecall.learn import ArrayDataset, Update

from . import serial
from .small import MODEL, SEED, assert_same, models, nodes, regression, shares, start, with_class

Child = Callable[[serial.Vector, int], tuple[serial.Vector, int]]


def leaves(count: int) -> list[Child]:
    def leaf(name: str, node: serial.Node, params: serial.Vector, round: int) -> tuple[serial.Vector, int]:
        return node.fit(params, 1, serial.seed_for(SEED, f"{name}/leaf", "fit", round)), len(node.y)

    return [partial(leaf, name, node) for name, node in nodes(count, lr=0.2).items()]


def above(children: Sequence[Child], groups: Sequence[Sequence[int]], steps: int) -> list[Child]:
    """Return the clusters over these groups of children, by position."""

    def node(below: Sequence[Child], params: serial.Vector, round: int) -> tuple[serial.Vector, int]:
        return serial.cluster(params, round, steps, below)

    return [partial(node, [children[at] for at in group]) for group in groups]


def application(count: int, **options: object) -> rc.App:
    return etree.app(MODEL, shares(count), rounds=3, batch_size=4, lr=0.2, seed=SEED, **options)  # type: ignore[arg-type]


def trained(root: Child, rounds: int = 3) -> serial.Vector:
    params = start()
    for round in range(1, rounds + 1):
        params, _ = root(params, round)
    return params


def test_two_levels_equal_the_serial_reference() -> None:
    history = rc.run_sync(application(5, clusters=(2,), steps=(3,)), checked=True)
    [root] = above(above(leaves(5), [[0, 1, 2], [3, 4]], 3), [[0, 1]], 1)
    assert_same(models(history, "coordinator"), {"node1": trained(root)})


def test_three_levels_equal_the_serial_reference() -> None:
    history = rc.run_sync(application(7, clusters=(3, 2), steps=(2, 2)), checked=True)
    middle = above(above(leaves(7), [[0, 1, 2], [3, 4], [5, 6]], 2), [[0, 1], [2]], 2)
    [root] = above(middle, [[0, 1]], 1)
    assert_same(models(history, "coordinator"), {"node1": trained(root)})


def test_several_aggregators_live_on_one_device() -> None:
    app = application(7, clusters=(3, 2), steps=(2, 2))
    assert {"leaf", "cluster1", "cluster2", "cluster3", "coordinator"} == set(app.roles["node1"])
    assert set(app.roles["node4"]) == {"leaf", "cluster1"}
    assert app.relationships["node1/cluster2"] == {"children": ["node1/cluster1", "node4/cluster1"]}


class Shuffling(Organizer):
    """Proposes other groups each time, and says which."""

    turn = 0

    @rc.service
    async def organize(self, groups: int) -> list[list[rc.RoleId]]:
        self.turn += 1
        order = self.rng("shuffle", self.turn).permutation(len(self.clients))
        parts = [sorted(part.tolist()) for part in np.array_split(order, groups)]
        self.log(parts=";".join(",".join(map(str, part)) for part in parts))
        return [[self.clients.ids[at] for at in part] for part in parts]


def test_a_tree_that_is_rebuilt_while_it_runs_equals_the_serial_reference() -> None:
    app = application(6, clusters=(2,), steps=(2,), organize_every=1)
    history = rc.run_sync(with_class(app, Shuffling, "node1", role="organizer"), checked=True)
    plans = [str(m.values["parts"]).split(";") for m in history.metrics if "parts" in m.values]
    assert len(plans) == 3 and plans[0] != plans[1]
    params = start()
    for round, plan in enumerate(plans, 1):
        groups = [[int(at) for at in part.split(",")] for part in plan]
        [root] = above(above(leaves(6), groups, 2), [[0, 1]], 1)
        params, _ = root(params, round)
    assert_same(models(history, "coordinator"), {"node1": params})


def test_clusters_that_move_to_devices_of_their_groups_equal_the_serial_reference() -> None:
    app = application(6, clusters=(2,), steps=(2,), organize_every=1, relocate=True)
    history = rc.run_sync(with_class(app, Shuffling, "node1", role="organizer"), checked=True)
    plans = [str(m.values["parts"]).split(";") for m in history.metrics if "parts" in m.values]
    last = {f"node{1 + int(part.split(',')[0])}/cluster1" for part in plans[-1]}
    assert {who for who in history.states if who.endswith("/cluster1")} == last
    assert any(not part.startswith(("0,", "3,")) for plan in plans for part in plan), "nothing has moved"
    params = start()
    for round, plan in enumerate(plans, 1):
        [root] = above(above(leaves(6), [[int(at) for at in part.split(",")] for part in plan], 2), [[0, 1]], 1)
        params, _ = root(params, round)
    assert_same(models(history, "coordinator"), {"node1": params})


def test_only_a_tree_of_two_levels_moves() -> None:
    with pytest.raises(rc.ConfigError, match="relocate=True"):
        application(7, clusters=(3, 2), steps=(2, 2), organize_every=1, relocate=True)


class Hiring(Shuffling):
    """Has a leaf assigned to a node without one, before the second rebuilding."""

    nodes: rc.Group[rc.NodeRole] = rc.many()

    @rc.service
    async def organize(self, groups: int) -> list[list[rc.RoleId]]:
        if self.turn == 1:
            elements = {"model": rc.ElementSpec(factory=regression), "data": rc.ElementSpec(value=shares(5)[4])}
            spec = rc.RoleSpec(Trainer, {"batch_size": 4, "lr": 0.2}, elements, [Loader])
            await self.nodes.at(0).assign(spec, "leaf")
        return await super().organize(groups)


def test_a_leaf_that_joins_is_in_the_tree_from_the_next_rebuilding_on() -> None:
    app = etree.app(MODEL, shares(5)[:4], rounds=3, organize_every=1, batch_size=4, lr=0.2, seed=SEED)
    app = with_class(app, Hiring, "node1", role="organizer")
    own = {"node1/organizer": {**app.relationships["node1/organizer"], "nodes": "node5/node"}}
    app = replace(
        app,
        nodes={**app.nodes, "node5": rc.Node()},
        relationships={**app.relationships, **own, "node5/node": {"manager": "node1/organizer"}},
    )
    history = rc.run_sync(app)  # data in memory do not travel
    plans = [str(m.values["parts"]).split(";") for m in history.metrics if "parts" in m.values]
    params = start()
    for round, plan in enumerate(plans, 1):
        [root] = above(above(leaves(5), [[int(at) for at in part.split(",")] for part in plan], 2), [[0, 1]], 1)
        params, _ = root(params, round)
    assert "4" not in ",".join(plans[0]) and "4" in ",".join(plans[1])
    assert_same(models(history, "coordinator"), {"node1": params})


def test_the_organizer_mixes_the_labels_of_each_cluster() -> None:
    x = np.zeros((6, serial.INPUTS))
    data = [ArrayDataset(x, np.full(6, label), serial.CLASSES) for label in (0, 0, 1, 1)]
    app = etree.app(MODEL, data, rounds=1, clusters=(2,), organize_every=1, seed=SEED)
    history = rc.run_sync(app, checked=True)
    groups = [set(group.split()) for group in str(history.last("groups")).split("; ")]
    alike = ({"node1/leaf", "node2/leaf"}, {"node3/leaf", "node4/leaf"})
    assert len(groups) == 2 and not any(group in alike for group in groups)


class Leaving(Trainer):
    """Leaves after three trainings."""

    @rc.task
    async def train(self, params: rc.Tensors, round: int) -> Update:
        if round == 4:
            self.leave()
        return await super().train(params, round)


def test_a_leaf_that_is_lost_fails_the_run_by_name() -> None:
    app = with_class(application(4), Leaving, "node2", role="leaf")
    with pytest.raises(rc.ApplicationFailed, match="node2/leaf"):
        rc.run_sync(app)


def test_with_a_quorum_the_tree_goes_on_and_is_rebuilt_without_it() -> None:
    app = application(6, quorum=0.5, organize_every=1)
    app = replace(with_class(app, Leaving, "node2", role="leaf"), on_failure="continue")
    history = rc.run_sync(app, checked=True)
    groups = [str(m.values["groups"]) for m in history.metrics if "groups" in m.values]
    assert "node2/leaf" in groups[0] and "node2/leaf" not in groups[2]
    assert history.states[rc.RoleId("node1/coordinator")].round == 3


def test_a_cluster_without_children_is_named() -> None:
    app = application(2, clusters=(1,))
    cluster = {"node1/cluster1": {"children": []}}
    with pytest.raises(rc.ApplicationFailed, match="node1/cluster1"):
        rc.run_sync(replace(app, relationships={**app.relationships, **cluster}))
