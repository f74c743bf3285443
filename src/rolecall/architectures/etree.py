"""E-Tree learning (Yang et al. 2021): a tree of aggregators on the very devices that hold the data.

The leaves train. A cluster of the first layer averages its leaves, weighted by samples, `steps` times for every time
that the layer above averages it, and so on up to the root: most messages stay within a cluster. Every aggregator lives
on one of the devices below it, so that a device may carry several. An organizer may rebuild the lowest layer while the
tree runs: so that every cluster's labels are mixed like those of all, which is our reading of the paper's clustering.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

import rolecall as rc
from rolecall.architectures.roles import (
    LayeredCollectiveAggregator,
    Learner,
    Loader,
    Organizer,
    RoundCoordinator,
    Tester,
    Trainer,
)
from rolecall.architectures.workloads import AnyModel, client_data, model_element, test_element
from rolecall.core.errors import ConfigError
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset, Update

__all__ = ("Adopted", "Cluster", "ETreeCoordinator", "Relocated", "Reorganized", "app")


class Adopted(msgspec.Struct):
    """The children a cluster has been given, None while it has all that its relationship names."""

    children: list[rc.RoleId] | None = None


class Cluster(LayeredCollectiveAggregator):
    """Averages its children `steps` times for every time that the layer above averages it.

    `children` are all that it may have; it can be made to adopt some of them.
    """

    adopted = rc.State(Adopted)

    @rc.service
    async def adopt(self, children: list[rc.RoleId]) -> None:
        """Train with these children from the next step on."""
        self.adopted = Adopted(children)

    async def gathered(self, params: Tensors, round: int) -> dict[rc.RoleId, Update]:
        own = self.own.within(quorum=float(self.quorum), deadline_s=self.deadline_s)
        return dict((await own.call(Learner.train, params, round)).items())

    @property
    def own(self) -> rc.Group[Learner]:
        """The children there are now."""
        own = self.children
        if self.adopted.children is not None:
            own = own.only(child for child in self.adopted.children if child in own)
        if not own:
            raise rc.RelationshipError(self.id, "children", "has no member that could train")
        return own


class ETreeCoordinator(RoundCoordinator):
    """Has the root of the tree train, round after round; the other options are for extensions."""

    root: Cluster = rc.one()

    def __init__(self, rounds: int = 20, organize_every: int = 5, steps: int = 2) -> None:
        super().__init__(rounds)
        self.organize_every, self.steps = organize_every, steps

    async def round(self, round: int, params: Tensors) -> Tensors:
        await self.before_round(round)
        update = await self.root.train(params, round)
        self.log(round=round, train_loss=update.loss)
        await self.after_round(round, update.params)
        return update.params

    async def before_round(self, round: int) -> None:
        """Do what extensions want done between two rounds."""


class Reorganized(ETreeCoordinator):
    """Extends the coordinator: rebuilds the lowest layer in the first round and all `organize_every` rounds.

    An organizer proposes the groups, from the leaves there are then; the clusters adopt them.
    """

    organizer: Organizer = rc.one()
    clusters: rc.Group[Cluster] = rc.many()

    async def before_round(self, round: int) -> None:
        if (round - 1) % self.organize_every == 0:
            groups = await self.organizer.organize(len(self.clusters))
            await self.rebuild(groups)
            self.log(round=round, groups="; ".join(" ".join(group) for group in groups))
        await super().before_round(round)

    async def rebuild(self, groups: list[list[rc.RoleId]]) -> None:
        """Have the clusters there are adopt the groups, one each."""
        plan = dict(zip(self.clusters, groups, strict=True))
        await self.clusters.call_each(lambda cluster: Cluster.adopt.bind(plan[cluster]))


class Relocated(Reorganized):
    """Extends the coordinator of a tree of two levels: has each cluster move to a device of its group.

    Where a group has no cluster on its first device, one is assigned to it; those left over are stopped.
    """

    nodes: rc.Group[rc.NodeRole] = rc.many()
    steps: int

    async def rebuild(self, groups: list[list[rc.RoleId]]) -> None:
        wanted = {rc.RoleId(f"{group[0].home}/cluster1"): group for group in groups}
        before = self.clusters.ids
        for cluster, children in wanted.items():
            if cluster not in before:
                spec = rc.RoleSpec("rolecall.architectures.etree:Cluster", {"steps": self.steps})
                everybody = sorted({f"*/{child.name}" for child in children})
                await self.node(cluster).assign(spec, cluster.name, {"children": everybody})
            await self.clusters[cluster].adopt(children)
        await self.root.adopt(list(wanted))
        for cluster in before:
            if cluster not in wanted:
                await self.node(cluster).stop(cluster)

    def node(self, role: rc.RoleId) -> rc.NodeRole:
        """Return the native role of a role's node."""
        return self.nodes[rc.RoleId(f"{role.home}/node")]


def app(
    model: AnyModel,
    data: str | Dataset | Sequence[Dataset],
    *,
    clusters: Sequence[int] = (2,),
    steps: Sequence[int] = (2,),
    organize_every: int | None = None,
    relocate: bool = False,
    rounds: int = 20,
    epochs: int = 1,
    batch_size: int = 32,
    lr: float = 0.1,
    test: str | Dataset | None = None,
    nodes: int | None = None,
    partition: str = "iid",
    quorum: float = 1.0,
    seed: int | None = None,
) -> rc.App:
    """Build an application for `rc.run` from a model and data.

    Args:
        model: as for `fedavg.app`.
        data: a data set for each node; or one, or the name of one, which `partition` splits among `nodes` (10).
        clusters: how many there are in each layer below the root: (2,) makes two levels, (4, 2) three.
        steps: how often a cluster of each of these layers averages for one time that the layer above does.
        organize_every: have an organizer rebuild the lowest layer all so many rounds.
        relocate: have its clusters move to a device of their new group then; for trees of two levels.
        quorum: the share of its children that a cluster needs.
    """
    shares, tested = client_data(data, partition, nodes), test_element(data, test)
    organized, top = organize_every is not None, len(clusters) + 1
    if len(steps) != len(clusters):
        raise ConfigError("etree", f"steps={(*steps,)} of clusters={(*clusters,)}", hint="Give each layer its steps")
    if relocate and (not organized or top != 2):
        raise ConfigError("etree", "relocate=True", hint="It needs organize_every and a tree of two levels")
    coordinator = rc.RoleSpec(
        ETreeCoordinator,
        {"rounds": rounds, "organize_every": organize_every or 5, "steps": steps[0] if steps else 1},
        {"model": model_element(model)} | ({"test_data": tested} if tested else {}),
        [*([Tester] if tested else []), *([Relocated if relocate else Reorganized] if organized else [])],
    )
    leaf = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    roles: dict[str, dict[str, rc.RoleSpec]] = {
        f"node{number}": {"leaf": rc.RoleSpec(Trainer, leaf, {"model": model_element(model), "data": share}, [Loader])}
        for number, share in enumerate(shares, 1)
    }
    relationships: dict[str, dict[str, Any]] = {"node1/coordinator": {"root": f"node1/cluster{top}"}}
    for node, layer, children in tree(len(shares), clusters):
        own = {"steps": (*steps, 1)[layer - 1], "layer": layer, "quorum": quorum}
        roles[node][f"cluster{layer}"] = rc.RoleSpec(Cluster, own)
        everybody = organized and layer == 1
        relationships[f"{node}/cluster{layer}"] = {"children": "node*/leaf" if everybody else children}
    roles["node1"]["coordinator"] = coordinator
    if organized:
        roles["node1"]["organizer"] = rc.RoleSpec(Organizer)
        relationships["node1/organizer"] = {"trainers": "node*/leaf"}
        relationships["node1/coordinator"]["clusters"] = "node*/cluster1"
    if relocate:
        relationships["node1/coordinator"]["nodes"] = "node*/node"
        relationships["node*/node"] = {"manager": "node1/coordinator"}
        relationships["node1/cluster2"]["children"] = "node*/cluster1"
    return rc.App(
        name="etree",
        parameters={"rounds": rounds},
        nodes={f"node[1-{len(shares)}]": rc.Node()},
        roles=roles,
        relationships=relationships,
        start="node1/coordinator.run",
        seed=seed,
    )


def tree(nodes: int, clusters: Sequence[int]) -> list[tuple[str, int, list[str]]]:
    """Return the aggregators of a tree over `node1` and so on: the node of each, its layer from 1, its children.

    Each layer is cut into as many parts as it has clusters; an aggregator lives on the first node of its part.
    """
    if list(clusters) != sorted(clusters, reverse=True) or not all(1 <= count <= nodes for count in clusters):
        raise ConfigError("etree", f"clusters={(*clusters,)} of {nodes} nodes", hint="Layers become smaller upwards")
    found: list[tuple[str, int, list[str]]] = []
    below = [(f"node{number}", "leaf") for number in range(1, nodes + 1)]
    for layer, count in enumerate((*clusters, 1), 1):
        parts = [[below[int(at)] for at in part] for part in np.array_split(np.arange(len(below)), count)]
        found += [(part[0][0], layer, [f"{node}/{role}" for node, role in part]) for part in parts if part]
        below = [(part[0][0], f"cluster{layer}") for part in parts if part]
    return found
