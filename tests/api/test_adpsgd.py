"""AD-PSGD: workers average with a random neighbour while they compute; who is busy refuses."""

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
    """Pulls towards a point."""

    def __init__(self, center: float) -> None:
        self.center = center

    def gradient(self, x: Vector) -> Vector:
        return x - self.center


class WorkerState(msgspec.Struct):
    x: Vector = np.zeros(3)
    averaged: int = 0
    refused: int = 0


class Worker(rc.Role):
    """AD-PSGD (Lian et al. 2018), free of deadlock without a bipartite graph: a busy neighbour says no."""

    model: Quadratic = rc.element()
    peers: rc.Group[Worker] = rc.many()
    state = rc.State(WorkerState)

    def __init__(self, steps: int, lr: float) -> None:
        self.steps, self.lr, self.averaging = steps, lr, anyio.Lock()

    @rc.service(concurrent=True)
    async def exchange(self, theirs: Vector) -> Vector:
        if self.averaging.locked():
            raise rc.Refused("averaging with another")
        mine, self.state.x = self.state.x, (self.state.x + theirs) / 2
        return mine

    async def average(self) -> None:
        async with self.averaging:
            try:
                theirs = await self.peers.choice().exchange(self.state.x)
            except rc.Refused:
                self.state.refused += 1
            else:
                self.state.x = (self.state.x + theirs) / 2
                self.state.averaged += 1

    async def main(self) -> None:
        for _ in range(self.steps):
            gradient = np.zeros_like(self.state.x)
            async with anyio.create_task_group() as beside:
                beside.start_soon(self.average)
                gradient = await self.compute(self.model.gradient, self.state.x)
            self.state.x = self.state.x - self.lr * gradient


# ------------------------------------------------------------------------------------------- what must hold


class Apart(Worker):
    """Starts from its own optimum, and not all at once: in lock-step, most would refuse each other."""

    async def setup(self) -> None:
        self.state.x = np.full(3, self.model.center)

    async def average(self) -> None:
        for _ in range(int(self.rng("rest", self.state.averaged + self.state.refused).integers(20))):
            await anyio.sleep(0.0)
        await super().average()


def application(topology: str, workers: int, *, steps: int, lr: float, role_class: type[Worker] = Apart) -> rc.App:
    model = rc.ElementSpec(Quadratic, options={"center": {"$range": {"from": 1.0, "step": 1.0}}})
    worker = rc.RoleSpec(role_class, options={"steps": steps, "lr": lr}, elements={"model": model})
    return rc.App(
        name="ad-psgd",
        nodes={f"gpu[1-{workers}]": rc.Node()},
        roles={"gpu*": {"worker": worker}},
        relationships={"gpu*/worker": {"peers": rc.Topology(topology, of="gpu*/worker")}},
        seed=5,
    )


@pytest.mark.parametrize(("topology", "workers"), [("complete", 2), ("ring", 5), ("regular(3)", 8)])
async def test_exchanges_keep_the_mean_and_end(topology: str, workers: int) -> None:
    history = await rc.run(application(topology, workers, steps=60, lr=0.0), checked=True)
    states = list(history.states.values())
    models = np.array([state.x for state in states])
    np.testing.assert_allclose(models.mean(axis=0), (1 + workers) / 2, rtol=1e-12)
    assert np.ptp(models, axis=0).max() < 0.1 * (workers - 1), "the models did not come together"
    assert all(state.averaged + state.refused == 60 for state in states)


async def test_two_that_ask_each_other_at_once_both_refuse() -> None:
    history = await rc.run(application("complete", 2, steps=1, lr=0.0, role_class=Worker), checked=True)
    assert [(state.averaged, state.refused) for state in history.states.values()] == [(0, 1), (0, 1)]


async def test_with_gradients_the_mean_goes_to_the_optimum() -> None:
    history = await rc.run(application("regular(3)", 8, steps=60, lr=0.1), checked=True)
    models = np.array([state.x for state in history.states.values()])
    assert np.abs(models.mean(axis=0) - 4.5).max() < 0.5
    assert np.ptp(models, axis=0).max() < 3.5, "apart, without neighbours, the models would be 7 apart"
