"""Roles for tests with processes; they need no more than numpy, so that nodes are quickly there."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys

import anyio
import msgspec
import numpy as np

import rolecall as rc


class Progress(msgspec.Struct):
    """How far the rounds are."""

    round: int = 0
    params: rc.Tensors | None = None


class Stepped(msgspec.Struct, frozen=True):
    """A worker has done a step."""

    step: int


class Worker(rc.Role):
    """Does steps, or what `does` says instead."""

    stepped = rc.Topic(Stepped)

    def __init__(self, does: str = "") -> None:
        self.does = does

    async def setup(self) -> None:
        match self.does:
            case "fail in setup":
                raise ValueError("no luck")
            case "exit in setup":
                sys.stderr.write("out of\nmemory\n")
                os._exit(3)
            case "write":
                print("to stdout")  # noqa: T201
                sys.stderr.write("to stderr\n")
                self.logger.warning("by its logger")
                logging.getLogger("library").warning("by a library")
            case "start a process":
                subprocess.Popen(["sleep", "1000"])  # noqa: ASYNC220
            case "block":
                await self.compute(signal.pause)

    @rc.service
    async def step(self, params: rc.Tensors, step: int) -> rc.Tensors:
        if self.does == "be killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.does == "fail in step":
            raise ValueError("bad step")
        await self.stepped.emit(Stepped(step))
        return params + float(self.rng("step", step).integers(10))

    @rc.service
    async def pid(self) -> int:
        return os.getpid()


class Boss(rc.Role):
    """Has the workers do steps."""

    workers: rc.Group[Worker] = rc.many()
    state = rc.State(Progress)

    def __init__(self, rounds: int = 3, quorum: float = 1.0, waits: bool = False) -> None:
        self.rounds, self.quorum, self.waits = rounds, quorum, waits
        self.seen, self.news = 0, anyio.Event()

    @workers.on(Worker.stepped)
    async def on_step(self, worker: rc.RoleId, event: Stepped) -> None:
        self.seen += 1
        self.news.set()

    @rc.task(resumable=True)
    async def run(self) -> Progress:
        params = rc.Tensors({"w": np.zeros(1000, np.float32)})
        for step in range(self.rounds):
            replies = await self.workers.within(quorum=self.quorum).call(Worker.step, params, step)
            for reply in replies.values():
                params = params + reply / 7.0
            self.state = Progress(step + 1, params)
            self.log(round=step + 1, norm=np.float64(params.norm()), answered=len(replies))
        pids = await self.workers.call(Worker.pid)
        self.log(pids=" ".join(f"{who.home}={pid}" for who, pid in pids.items()))
        while self.waits:
            await self.safe_point()
            await anyio.sleep(0.01)
        while self.seen < self.rounds * len(self.workers):
            self.news = anyio.Event()
            await self.news.wait()
        return self.state


class Walker(rc.Role):
    """Has a main routine that ends, fails, or goes on until it is stopped."""

    def __init__(self, does: str = "end") -> None:
        self.does = does

    async def main(self) -> None:
        self.log(walks=1)
        if self.does == "fail":
            raise ValueError("lost its way")
        while self.does == "go on":
            await self.safe_point()
            await anyio.sleep(0.01)

    async def teardown(self) -> None:
        self.log(rests=1)
