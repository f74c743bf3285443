"""rolecall: an application on the engine `processes`, run once for each workload; the caller role does the timing."""

from __future__ import annotations

import asyncio
import os
from typing import Any, ClassVar

import anyio
import msgspec
import numpy as np
from harness import IN_FLIGHT, LARGE_VALUES, SUBSCRIBERS, TENSOR_VALUES, time_rounds_async

import rolecall as rc


class Tick(msgspec.Struct, frozen=True):
    """What the caller emits."""

    number: int


class Worker(rc.Role):
    """Answers with what it was given, or how much it was."""

    @rc.service
    async def echo(self, value: int) -> int:
        """Return the number."""
        return value

    @rc.service
    async def weigh(self, value: rc.Tensors) -> int:
        """Return how many bytes came."""
        return value.nbytes


class Caller(rc.Role):
    """Calls, emits, and keeps the time."""

    worker: Worker = rc.one()
    subscribers: rc.Group[Subscriber] = rc.many()
    ticked = rc.Topic(Tick)

    @rc.task
    async def measure(self, workload: str, operations: int, rounds: int) -> list[float]:
        """Time one of the methods below; the seconds of each round."""
        return await time_rounds_async(getattr(self, f"_{workload}"), operations, rounds)

    async def _call(self, operations: int) -> None:
        for number in range(operations):
            await self.worker.echo(number)

    async def _calls(self, operations: int) -> None:
        for start in range(0, operations, IN_FLIGHT):
            count = min(IN_FLIGHT, operations - start)
            for pending in [asyncio.create_task(self.worker.echo(number)) for number in range(count)]:
                await pending

    async def _event(self, operations: int) -> None:
        for number in range(operations):
            await self.ticked.emit(Tick(number))
        await self.subscribers.call(Subscriber.count_to, operations)

    async def _tensor(self, operations: int) -> None:
        await self._send(rc.Tensors({"weights": np.zeros(TENSOR_VALUES, np.float32)}), operations)

    async def _large(self, operations: int) -> None:
        await self._send(rc.Tensors({"weights": np.zeros(LARGE_VALUES, np.float32)}), operations)

    async def _send(self, tensors: rc.Tensors, operations: int) -> None:
        for _ in range(operations):
            assert await self.worker.weigh(tensors) == tensors.nbytes


class Subscriber(rc.Role):
    """Counts the events it handles."""

    caller: Caller = rc.one()

    async def setup(self) -> None:
        """Begin at nothing."""
        self._count, self._news = 0, anyio.Event()

    @rc.on("caller", Caller.ticked)
    async def seen(self, source: rc.RoleId, tick: Tick) -> None:
        """Count one."""
        self._count += 1
        self._news.set()

    @rc.service
    async def count_to(self, expected: int) -> None:
        """Return when so many have come since the last time."""
        while self._count < expected:
            self._news = anyio.Event()
            await self._news.wait()
        self._count = 0


class RolecallRemotePeer:
    """Runs the application with its defaults but for shared memory, which is off."""

    name = "rolecall"
    lacks: ClassVar[frozenset[str]] = frozenset()
    spared: ClassVar[int] = 1
    idioms: ClassVar[dict[str, str]] = {}
    shared_memory = False

    def open(self) -> None:
        """Nothing runs between two workloads."""

    def rounds(self, workload: str, operations: int, rounds: int) -> list[float]:
        """Run the application, and take the times from what its caller returns."""
        os.environ["ROLECALL_SHARED_MEMORY"] = "1" if self.shared_memory else "0"
        application = declare_application(workload=workload, operations=operations, rounds=rounds)
        os.environ["ROLECALL_SHARED_MEMORY"] = "1" if self.shared_memory else "0"
        (took_s,) = rc.run_sync(application, engine="processes").returned.values()
        return list(took_s)

    def close(self) -> None:
        """Nothing runs between two workloads."""


class RolecallSharedPeer(RolecallRemotePeer):
    """Runs the application with its defaults: large payloads go through shared memory."""

    name = "rolecall, shared memory"
    lacks = frozenset({"call", "calls", "event"})
    shared_memory = True


def declare_application(**measurement: Any) -> rc.App:
    """Return the application: the caller, the worker and each subscriber have a node of their own."""
    subscribers = SUBSCRIBERS if measurement["workload"] == "event" else 1
    names = [f"subscriber{number}" for number in range(subscribers)]
    return rc.App(
        name="remote-messaging",
        nodes={name: rc.Node() for name in ("caller", "worker", *names)},
        roles={
            "caller": {"caller": rc.RoleSpec(Caller)},
            "worker": {"worker": rc.RoleSpec(Worker)},
            **{name: {"subscriber": rc.RoleSpec(Subscriber)} for name in names},
        },
        relationships={
            "caller": {"worker": "worker/worker", "subscribers": "subscriber*/subscriber"},
            "subscriber*": {"caller": "caller/caller"},
        },
        start={"call": "caller/caller.measure", "with": measurement},
    )
