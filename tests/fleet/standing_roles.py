"""Roles for nodes that somebody started; the nodes find this module by their PYTHONPATH."""

from __future__ import annotations

import os

import anyio
import msgspec
import numpy as np

import rolecall as rc
from rolecall.core.tensors import Tensors

__all__ = ("Server", "Waiter", "Worker", "os")


class Progress(msgspec.Struct):
    params: Tensors | None = None


class Worker(rc.Role):
    """Adds noise of its own to what it gets; fails in the step it is told to."""

    def __init__(self, fails_at: int = -1, dim: int = 1000) -> None:
        self.fails_at, self.dim = fails_at, dim

    @rc.task
    async def fit(self, params: Tensors, step: int) -> Tensors:
        if step == self.fails_at:
            raise ValueError(f"step {step} went wrong")
        return params + Tensors({"w": self.rng("fit", step).normal(size=self.dim).astype(np.float32)})


class Server(rc.Role):
    """Averages what workers make of its parameters."""

    state = rc.State(Progress)
    workers: rc.Group[Worker] = rc.many()

    @rc.task
    async def run(self, rounds: int) -> int:
        params = Tensors({"w": np.zeros(1000, np.float32)})
        for step in range(rounds):
            replies = await self.workers.call(Worker.fit, params, step)
            params = Tensors.mean(list(replies.values()))
            self.log(round=step, norm=params.norm())
        self.state = Progress(params)
        return rounds


class Waiter(rc.Role):
    """Says that it has begun, and waits."""

    async def main(self) -> None:
        self.log(begun=os.getpid())
        while True:
            await self.safe_point()
            await anyio.sleep(0.01)
