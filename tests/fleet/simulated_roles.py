"""Roles for the tests of the simulator."""

from __future__ import annotations

import anyio
import msgspec
import numpy as np

import rolecall as rc


class Weights(msgspec.Struct):
    params: rc.Tensors = msgspec.field(default_factory=lambda: rc.Tensors({"w": np.zeros(8)}))


class Worker(rc.Role):
    """Adds noise of its own to what it is given, after some computing."""

    @rc.task
    async def train(self, params: rc.Tensors, step: int) -> rc.Tensors:
        noise = self.rng("noise", step).normal(size=8)
        return await self.compute(_added, params, noise, cost=100)


def _added(params: rc.Tensors, noise: np.ndarray) -> rc.Tensors:
    return rc.Tensors({"w": params["w"] + noise})


class Leader(rc.Role):
    """Has its workers train, and averages in role order."""

    workers: rc.Group[Worker] = rc.many()
    state = rc.State(Weights)

    def __init__(self, steps: int = 3) -> None:
        self.steps = steps

    @rc.task
    async def run(self) -> int:
        for step in range(self.steps):
            replies = await self.workers.call(Worker.train, self.state.params, step)
            mean = np.mean([np.asarray(found["w"]) for found in replies.values()], axis=0)
            self.state = Weights(rc.Tensors({"w": mean}))
            self.log(step=step, norm=float(np.linalg.norm(mean)))
        return self.steps


class Echo(rc.Role):
    def __init__(self) -> None:
        self.heard = 0

    @rc.service
    async def echo(self, number: int) -> int:
        self.heard += 1
        return number

    @rc.service
    async def never(self) -> None:
        await anyio.sleep_forever()


class Asker(rc.Role):
    """Asks every second; keeps the answers."""

    echoes: rc.Group[Echo] = rc.many()

    def __init__(self, times: int = 10) -> None:
        self.times = times
        self.answers: list[int] = []

    async def main(self) -> None:
        for number in range(self.times):
            await anyio.sleep(1)
            try:
                self.answers += (await self.echoes.within(deadline_s=0.5).call(Echo.echo, number)).values()
            except rc.RolecallError as error:
                self.log(missed=number, why=type(error).__name__)


class Waiter(rc.Role):
    """Waits for an answer that never comes."""

    echoes: rc.Group[Echo] = rc.many()

    async def main(self) -> None:
        await self.echoes.call(Echo.never)
