"""All kinds of all-reduce: the sum is the serial one, whatever the numbers, and a lost member is named."""

from __future__ import annotations

from types import ModuleType

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from msgspec.structs import replace

import rolecall as rc
from rolecall.architectures import butterfly_allreduce, ring_allreduce, tree_allreduce
from rolecall.architectures.allreduce import AllReduceAggregator, AllReduceWorker
from rolecall.learn import ArrayDataset

from . import serial
from .small import MODEL, SEED, assert_same, models, nodes, shares, start, with_class

KINDS = {
    "ring": ring_allreduce.RingAllReduce,
    "butterfly": butterfly_allreduce.ButterflyAllReduce,
    "tree": tree_allreduce.TreeAllReduce,
}
MODULES = {"ring": ring_allreduce, "butterfly": butterfly_allreduce, "tree": tree_allreduce}
STEPS = 3


def vector(member: int, size: int, step: int) -> serial.Vector:
    """Return numbers whose sums have few digits, so that every order of adding gives the same bits."""
    return np.random.default_rng([member, step]).integers(-(2**20), 2**20, size) / 8.0


class Giver(rc.Role):
    """Has vectors summed, one after the other, some members sooner than others."""

    aggregator: AllReduceAggregator = rc.one()

    def __init__(self, member: int, size: int) -> None:
        self.member, self.size = member, size

    async def main(self) -> None:
        for step in range(STEPS):
            for _ in range(int(self.rng("rest", step).integers(4))):
                await anyio.lowlevel.checkpoint()
            mine = rc.Tensors({"x": vector(self.member, self.size, step)})
            self.log(step=step, sum=(await self.aggregator.reduce(mine, step))["x"].tobytes().hex())


def summing(kind: str, members: int, size: int, *, odd: int = 0) -> rc.App:
    """Return an application of members with vectors of a size, but for the last, of `odd` values more."""
    sizes = [size] * (members - 1) + [size + odd]
    return rc.App(
        name="sum",
        nodes={f"node[1-{members}]": rc.Node()},
        roles={
            "node*": {
                "aggregator": rc.RoleSpec(KINDS[kind]),
                "giver": rc.RoleSpec(Giver, {"member": "$ordinal", "size": {"$cycle": sizes}}),
            }
        },
        relationships={"node*/aggregator": {"members": "node*/aggregator"}},
        seed=SEED,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("members", "size"), [(1, 5), (2, 1), (3, 7), (4, 3), (5, 2), (6, 40), (7, 0), (8, 64), (11, 9)]
)
async def test_all_members_hold_the_serial_mean(kind: str, members: int, size: int) -> None:
    history = await rc.run(summing(kind, members, size), checked=True)
    means = [sum(vector(member, size, step) for member in range(members)) / members for step in range(STEPS)]
    found = [(m.values["step"], m.values["sum"]) for m in history.metrics]
    assert len(found) == members * STEPS
    assert set(found) == {(step, mean.tobytes().hex()) for step, mean in enumerate(means)}


@pytest.mark.parametrize("kind", KINDS)
async def test_floats_of_any_kind_end_as_the_same_bits_everywhere(kind: str) -> None:
    class Rough(Giver):
        async def main(self) -> None:
            mine = rc.Tensors({"x": np.random.default_rng(self.member).normal(size=self.size).astype(np.float32)})
            self.log(digest=(await self.aggregator.reduce(mine, 0)).digest())

    app = summing(kind, 7, 33)
    rough = replace(app.roles["node*"]["giver"], class_=Rough)
    app = replace(app, roles={"node*": {**app.roles["node*"], "giver": rough}})
    assert len({m.values["digest"] for m in (await rc.run(app, checked=True)).metrics}) == 1


@pytest.mark.parametrize("kind", KINDS)
async def test_vectors_of_unlike_length_are_named(kind: str) -> None:
    with pytest.raises(rc.ApplicationFailed, match=r"all-reduce of step 0: what node\d/aggregator gives"):
        await rc.run(summing(kind, 4, 5, odd=1))


@pytest.mark.parametrize("kind", KINDS)
async def test_a_lost_member_is_named_at_all_others(kind: str) -> None:
    class Mortal(Giver):
        async def main(self) -> None:
            try:
                await super().main()
            except rc.RoleLost as lost:
                self.log(lost=lost.role)

    class Leaving(KINDS[kind]):  # type: ignore[misc, valid-type]
        async def total(self, vector: serial.Vector, step: int) -> serial.Vector:
            if step == 1:
                self.leave()
                await anyio.sleep_forever()
            return await super().total(vector, step)  # type: ignore[no-any-return]

    app = summing(kind, 5, 8)
    mortal = replace(app.roles["node*"]["giver"], class_=Mortal)
    app = replace(app, roles={"node*": {**app.roles["node*"], "giver": mortal}}).expanded()
    with anyio.fail_after(10):
        history = await rc.run(with_class(app, Leaving, "node4", role="aggregator"), checked=True)
    named = {m.role.home: m.values["lost"] for m in history.metrics if "lost" in m.values}
    assert named == dict.fromkeys([f"node{number}" for number in range(1, 6)], "node4/aggregator")


# ------------------------------------------------------------------------------------------- training with it


@pytest.mark.parametrize("kind", KINDS)
def test_training_equals_the_serial_reference(kind: str) -> None:
    app = MODULES[kind].app(MODEL, shares(5), rounds=8, batch_size=4, lr=0.3, seed=SEED)
    found = models(rc.run_sync(app, checked=True))
    reference = nodes(5, lr=0.3)
    expected = serial.allreduce(start(), list(reference.values()), 8, 0.3)
    assert_same(found, dict.fromkeys(reference, expected))
    assert len({vector.tobytes() for vector in found.values()}) == 1


def test_one_worker_is_plain_training() -> None:
    app = ring_allreduce.app(MODEL, shares(1), rounds=8, batch_size=4, lr=0.3, seed=SEED)
    assert_same(models(rc.run_sync(app)), {"node1": nodes(1, lr=0.3)["node1"].descend(start(), range(8))})


class Failing(AllReduceWorker):
    """Fails in its third step."""

    @rc.task
    async def step(self, round: int) -> None:
        if round == 2:
            self.leave()
        await super().step(round)


@pytest.mark.parametrize("module", [ring_allreduce, tree_allreduce])
async def test_a_worker_that_leaves_ends_the_run_by_name(module: ModuleType) -> None:
    app = with_class(module.app(MODEL, shares(3), rounds=5, seed=SEED), Failing, "node2")
    with anyio.fail_after(10), pytest.raises(rc.ApplicationFailed, match="node2/worker"):
        await rc.run(app)


async def test_a_gradient_that_is_not_finite_is_named() -> None:
    bad = [*shares(2), ArrayDataset(np.full((4, serial.INPUTS), np.nan), np.zeros(4, np.int64), serial.CLASSES)]
    with anyio.fail_after(10), pytest.raises(rc.ApplicationFailed, match="node3/worker: the gradient of step 0 is not"):
        await rc.run(ring_allreduce.app(MODEL, bad, rounds=2, seed=SEED))
