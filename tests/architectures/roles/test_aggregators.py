"""Aggregators: of a layer of a tree, and of each update as it comes."""

from __future__ import annotations

import numpy as np
import pytest

import rolecall as rc
from rolecall.architectures.roles import CumulativeAggregator, LayeredCollectiveAggregator, Learner
from rolecall.architectures.roles.aggregators import Versioned
from rolecall.learn import BadUpdate, Update

START = rc.Tensors({"w": np.zeros(3)})


class Weights:
    """A model that is its parameters."""

    def parameters(self) -> rc.Tensors:
        return START

    def load(self, params: rc.Tensors) -> None: ...


class Leaf(Learner):
    """Adds its number to the model, times the round."""

    def __init__(self, number: float) -> None:
        self.number = number

    @rc.task
    async def train(self, params: rc.Tensors, round: int) -> Update:
        return Update(params + self.number * round, samples=int(self.number), loss=self.number)


class Top(rc.Role):
    tree: Learner = rc.one()

    @rc.task
    async def run(self) -> Update:
        return await self.tree.train(START, 1)


def tree(numbers: tuple[int, ...] = (1, 2, 3, 4)) -> rc.App:
    """Return a tree of three layers: a root of two clusters of two leaves, two rounds of each for one above."""
    cluster = rc.RoleSpec(LayeredCollectiveAggregator, options={"steps": 2, "layer": 1})
    return rc.App(
        name="tree",
        nodes={"device[1-4]": rc.Node()},
        roles={
            "device*": {"leaf": rc.RoleSpec(Leaf, options={"number": {"$cycle": list(numbers)}})},
            "device1": {
                "cluster": cluster,
                "root": rc.RoleSpec(LayeredCollectiveAggregator, options={"steps": 1, "layer": 2}),
                "top": rc.RoleSpec(Top),
            },
            "device3": {"cluster": cluster},
        },
        relationships={
            "device1/cluster": {"children": "device[1-2]/leaf"},
            "device3/cluster": {"children": "device[3-4]/leaf"},
            "device1/root": {"children": "device*/cluster"},
            "device1/top": {"tree": "device1/root"},
        },
        start="device1/top.run",
    )


def test_layers_average_what_the_layer_below_makes() -> None:
    update: Update = rc.run_sync(tree(), checked=True).returned["device1/top.run"]
    numbers = [1, 2, 3, 4]
    w, samples = [], []
    for pair in (numbers[:2], numbers[2:]):
        x = 0.0
        for round in (1, 2):
            weight = sum(pair)
            x = sum(n * (x + n * round) for n in pair) / weight
        w.append(x)
        samples.append(sum(pair))
    expected = sum(n * x for n, x in zip(samples, w, strict=True)) / sum(samples)
    assert np.allclose(update.params["w"], expected) and update.samples == 10


def test_an_update_of_no_samples_is_an_error_that_names_the_leaf() -> None:
    with pytest.raises(rc.ApplicationFailed, match=r"device1/leaf: its update .*: it rests on 0 samples"):
        rc.run_sync(tree((0, 1, 2, 3)))


class Pusher(rc.Role):
    aggregator: CumulativeAggregator = rc.one()

    @rc.task
    async def push(self, value: float, version: int) -> Versioned:
        return await self.aggregator.add(Update(START + value, 4, 0.1), version)

    @rc.task
    async def push_broken(self, params: rc.Tensors) -> Versioned:
        return await self.aggregator.add(Update(params, 4, 0.1), 0)


class Pushes(rc.Role):
    a: Pusher = rc.one()
    b: Pusher = rc.one()
    aggregator: CumulativeAggregator = rc.one()

    async def main(self) -> None:
        first = await self.a.push(8.0, 0)
        assert (first.version, first.params["w"][0]) == (1, 4.0)  # half of 8
        second = await self.b.push(8.0, 0)  # one version old: 0.5 / sqrt(2) of it
        assert second.version == 2
        assert second.params["w"][0] == pytest.approx(4.0 + (8.0 - 4.0) * 0.5 / 2**0.5)
        await self.refused(self.a, 0, rc.Refused, "here/a has sent an update made from version 0 or later before")
        await self.refused(self.a, 9, BadUpdate, "here/a: .*made from version 9, and the newest is 2")
        nan = rc.Tensors({"w": np.full(3, np.nan)})
        for broken in (nan, rc.Tensors({"w": np.zeros(4)})):
            with pytest.raises(BadUpdate, match="here/b: its update cannot be averaged"):
                await self.b.push_broken(broken)
        now = await self.aggregator.current()
        assert (now.version, now.params) == (2, second.params)
        self.log(done=1)

    async def refused(self, pusher: Pusher, version: int, error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            await pusher.push(1.0, version)


def test_a_cumulative_aggregator_merges_each_by_its_age_and_once() -> None:
    roles = {
        "aggregator": rc.RoleSpec(
            CumulativeAggregator,
            options={"mixing": 0.5, "staleness": "polynomial"},
            elements={"model": rc.ElementSpec(value=Weights())},
        ),
        "a": rc.RoleSpec(Pusher),
        "b": rc.RoleSpec(Pusher),
        "pushes": rc.RoleSpec(Pushes),
    }
    app = rc.App(name="push", nodes={"here": rc.Node()}, roles={"here": roles})
    assert rc.run_sync(app).last("done") == 1
