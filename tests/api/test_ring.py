"""Ring all-reduce: chunks of the gradients travel round the ring twice, and all workers hold the same sum."""

from __future__ import annotations

import anyio
import msgspec
import numpy as np
import numpy.typing as npt
import pytest

import rolecall as rc

# --------------------------------------------------------------------------------------------- the algorithm

Vector = npt.NDArray[np.float64]


class Quadratic:
    """Pulls towards a point, each coordinate with a strength of its own."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.center, self.strength = random.normal(size=7), random.uniform(0.5, 1.5, size=7)

    def gradient(self, x: Vector) -> Vector:
        return self.strength * (x - self.center)


class Chunk(msgspec.Struct, frozen=True):
    """A part of a sum under way: in which step, and after how many hops."""

    step: int
    hop: int
    data: Vector


class WorkerState(msgspec.Struct):
    x: Vector = np.zeros(7)


class RingWorker(rc.Role):
    """Synchronous SGD without a server: reduce-scatter and all-gather in 2(n-1) hops."""

    model: Quadratic = rc.element()
    ring: rc.Group[RingWorker] = rc.many()
    chunks = rc.Inbox(Chunk, key=lambda c: (c.step, c.hop))
    state = rc.State(WorkerState)

    def __init__(self, steps: int) -> None:
        self.steps = steps

    async def main(self) -> None:
        for step in range(self.steps):
            gradient = await self.compute(self.model.gradient, self.state.x)
            total = await self.all_reduce(gradient, step)
            self.state.x -= 0.2 * total / len(self.ring)

    async def all_reduce(self, vector: Vector, step: int) -> Vector:
        n, rank = len(self.ring), self.ring.rank(self.id)
        parts, right = np.array_split(vector, n), self.ring.at(rank + 1)
        for hop in range(2 * (n - 1)):
            await right.chunks.put(Chunk(step, hop, parts[(rank - hop) % n]))
            got = await self.chunks.take((step, hop))
            k = (rank - hop - 1) % n
            parts[k] = parts[k] + got.data if hop < n - 1 else got.data
        return np.concatenate(parts)


# ------------------------------------------------------------------------------------------- what must hold

STEPS = 8


class Hurried(RingWorker):
    """Rests at random times, so that some workers run ahead of others."""

    async def all_reduce(self, vector: Vector, step: int) -> Vector:
        for _ in range(int(self.rng("rest", step).integers(5))):
            await anyio.sleep(0.0)
        return await super().all_reduce(vector, step)


def application(role_class: type[RingWorker], workers: int) -> rc.App:
    model = rc.ElementSpec(Quadratic, options={"seed": "$ordinal"})
    worker = rc.RoleSpec(role_class, options={"steps": STEPS}, elements={"model": model})
    return rc.App(
        name="ring",
        nodes={f"gpu[1-{workers}]": rc.Node()},
        roles={"gpu*": {"worker": worker}},
        relationships={"gpu*": {"ring": "gpu*/worker"}},
        seed=3,
    )


@pytest.mark.parametrize("role_class", [RingWorker, Hurried])
@pytest.mark.parametrize("workers", [1, 2, 5, 9])
async def test_all_workers_hold_the_serial_sum(role_class: type[RingWorker], workers: int) -> None:
    history = await rc.run(application(role_class, workers), checked=True)
    expected = serial([Quadratic(seed) for seed in range(workers)])
    assert len(history.states) == workers
    for state in history.states.values():
        np.testing.assert_array_equal(state.x, expected)


def serial(models: list[Quadratic]) -> Vector:
    """Return what gradient descent on the mean arrives at, each chunk summed from its own worker on."""
    x, n = np.zeros(7), len(models)
    for _ in range(STEPS):
        parts = [np.array_split(model.gradient(x), n) for model in models]
        sums = [sum((parts[(k + i) % n][k] for i in range(1, n)), parts[k][k]) for k in range(n)]
        x = x - 0.2 * np.concatenate(sums) / n
    return x
