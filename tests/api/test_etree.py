"""E-Tree learning: a node of the tree is a learner like its leaves, and a device may carry several nodes."""

from __future__ import annotations

from abc import abstractmethod

import msgspec
import numpy as np

import rolecall as rc

# --------------------------------------------------------------------------------------------- the algorithm


class Quadratic:
    """Learns a point by gradient descent on the distance to it."""

    def __init__(self, center: float) -> None:
        self.center = center

    def fit(self, params: rc.Tensors, steps: int) -> rc.Tensors:
        x = params["x"]
        for _ in range(steps):
            x = x - 0.2 * (x - self.center)
        return rc.Tensors({"x": x})


class Update(msgspec.Struct, frozen=True):
    """A model, and how many samples are behind it."""

    params: rc.Tensors
    samples: int


class Learner(rc.Role):
    """What all nodes of the tree are to the one above them."""

    @rc.task
    @abstractmethod
    async def train(self, params: rc.Tensors) -> Update: ...


class Leaf(Learner):
    """Trains on the data of its device."""

    model: Quadratic = rc.element()

    def __init__(self, samples: int) -> None:
        self.samples = samples

    @rc.task
    async def train(self, params: rc.Tensors) -> Update:
        return Update(await self.compute(self.model.fit, params, 2), self.samples)


class ProximalLeaf(Leaf):
    """Stays nearer to the model it was given."""

    @rc.task
    async def train(self, params: rc.Tensors) -> Update:
        update = await super().train(params)
        return Update((update.params + params) / 2, update.samples)


class Cluster(Learner):
    """Has its children train for some rounds, each from the weighted mean of the one before."""

    children: rc.Group[Learner] = rc.many()

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds

    @rc.task
    async def train(self, params: rc.Tensors) -> Update:
        samples = 0
        for round in range(self.rounds):
            updates = (await self.children.call(Learner.train, params)).values()
            samples = sum(update.samples for update in updates)
            params = rc.Tensors.mean([u.params for u in updates], [u.samples for u in updates])
            self.log(round=round, samples=samples)
        return Update(params, samples)


# ------------------------------------------------------------------------------------------- what must hold

SAMPLES = [30, 10, 50, 20, 40, 70]
CLUSTERS = ("device1/cluster", "device4/cluster", "device1/root")
START = rc.Tensors({"x": np.zeros(4)})


def application() -> rc.App:
    """Six devices with a leaf each; device1 carries the cluster of three of them and the root as well."""
    model = {"model": rc.ElementSpec(Quadratic, options={"center": "$ordinal"})}
    samples = [{"samples": {"$cycle": SAMPLES[:3]}}, {"samples": {"$cycle": SAMPLES[3:]}}]
    return rc.App(
        name="etree",
        nodes={"device[1-6]": rc.Node()},
        roles={
            "device[1-3]": {"leaf": rc.RoleSpec(Leaf, samples[0], model)},
            "device[4-6]": {"leaf": rc.RoleSpec(ProximalLeaf, samples[1], model)},
            "device1": {
                "cluster": rc.RoleSpec(Cluster, {"rounds": 2}),
                "root": rc.RoleSpec(Cluster, {"rounds": 4}),
            },
            "device4": {"cluster": rc.RoleSpec(Cluster, {"rounds": 3})},
        },
        relationships={
            "device1/cluster": {"children": "device[1-3]/leaf"},
            "device4/cluster": {"children": "device[4-6]/leaf"},
            "device1/root": {"children": "device*/cluster"},
        },
        start=rc.Call("device1/root.train", {"params": START}),
    )


async def test_the_root_returns_the_weighted_means_of_a_serial_run() -> None:
    history = await rc.run(application(), checked=True)
    assert history.returned["device1/root.train"] == Update(serial(), sum(SAMPLES))


async def test_two_clusters_of_one_device_keep_their_own_children() -> None:
    history = await rc.run(application(), checked=True)
    rounds = {role: [m.values["samples"] for m in history.metrics if m.role == role] for role in CLUSTERS}
    assert rounds == {
        "device1/cluster": [sum(SAMPLES[:3])] * 2 * 4,
        "device4/cluster": [sum(SAMPLES[3:])] * 3 * 4,
        "device1/root": [sum(SAMPLES)] * 4,
    }


def serial() -> rc.Tensors:
    """Return what the root arrives at, computed by plain loops."""
    params = START
    for _ in range(4):
        low = high = params
        for _ in range(2):
            low = rc.Tensors.mean([leaf(i, low) for i in range(3)], SAMPLES[:3])
        for _ in range(3):
            high = rc.Tensors.mean([(leaf(i, high) + high) / 2 for i in range(3)], SAMPLES[3:])
        params = rc.Tensors.mean([low, high], [sum(SAMPLES[:3]), sum(SAMPLES[3:])])
    return params


def leaf(ordinal: int, params: rc.Tensors) -> rc.Tensors:
    return Quadratic(ordinal).fit(params, 2)
