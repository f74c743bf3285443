"""rolecall: an application of one node, run once for each workload; the caller role does the timing."""

from __future__ import annotations

from typing import Any, ClassVar

import msgspec
import numpy as np
from harness import IN_FLIGHT, MEMBERS, SUBSCRIBERS, TENSOR_VALUES, Arrivals, time_rounds_async

import rolecall as rc

arrivals = Arrivals()


class Tick(msgspec.Struct, frozen=True):
    """What the caller emits."""

    number: int


class Worker(rc.Role):
    """Answers with what it was given."""

    @rc.service
    async def echo(self, value: int) -> int:
        """Return the number."""
        return value

    @rc.service
    async def echo_tensors(self, value: rc.Tensors) -> rc.Tensors:
        """Return the tensors."""
        return value

    @rc.task
    async def work(self, value: int) -> int:
        """Return the number."""
        return value


class Caller(rc.Role):
    """Calls, emits, and keeps the time."""

    worker: Worker = rc.one()
    members: rc.Group[Worker] = rc.many()
    ticked = rc.Topic(Tick)

    @rc.task
    async def measure(self, workload: str, operations: int, rounds: int) -> list[float]:
        """Time one of the methods below; the seconds of each round."""
        return await time_rounds_async(getattr(self, f"_{workload}"), operations, rounds)

    async def _service(self, operations: int) -> None:
        for number in range(operations):
            await self.worker.echo(number)

    async def _task(self, operations: int) -> None:
        for number in range(operations):
            handle = await self.worker.work.start(number)
            await handle.result()

    async def _tasks(self, operations: int) -> None:
        for start in range(0, operations, IN_FLIGHT):
            count = min(IN_FLIGHT, operations - start)
            handles = [await self.worker.work.start(number) for number in range(count)]
            for handle in handles:
                await handle.result()

    async def _event(self, operations: int) -> None:
        arrivals.expect(operations * SUBSCRIBERS)
        for number in range(operations):
            await self.ticked.emit(Tick(number))
        await arrivals.complete.wait()

    async def _group(self, operations: int) -> None:
        for number in range(operations):
            replies = await self.members.call(Worker.echo, number)
            assert len(replies) == MEMBERS

    async def _tensor(self, operations: int) -> None:
        tensors = rc.Tensors({"weights": np.zeros(TENSOR_VALUES, np.float32)})
        for _ in range(operations):
            await self.worker.echo_tensors(tensors)


class Subscriber(rc.Role):
    """Counts the events it handles."""

    caller: Caller = rc.one()

    @rc.on("caller", Caller.ticked)
    async def seen(self, source: rc.RoleId, tick: Tick) -> None:
        """Count one."""
        arrivals.add()


class RolecallPeer:
    """Runs the application with its defaults, as a user does."""

    name = "rolecall"
    lacks: ClassVar[frozenset[str]] = frozenset()
    spared: ClassVar[int] = 1
    idioms: ClassVar[dict[str, str]] = {}

    def open(self) -> None:
        """Nothing runs between two workloads."""

    def rounds(self, workload: str, operations: int, rounds: int) -> list[float]:
        """Run the application, and take the times from what its caller returns."""
        application = declare_application(workload=workload, operations=operations, rounds=rounds)
        (took_s,) = rc.run_sync(application).returned.values()
        return list(took_s)

    def close(self) -> None:
        """Nothing runs between two workloads."""


def declare_application(**measurement: Any) -> rc.App:
    """Return the application: one node with all the roles."""
    roles = {"caller": rc.RoleSpec(Caller), "worker": rc.RoleSpec(Worker)}
    roles |= {f"subscriber{number}": rc.RoleSpec(Subscriber) for number in range(SUBSCRIBERS)}
    roles |= {f"member{number}": rc.RoleSpec(Worker) for number in range(MEMBERS)}
    return rc.App(
        name="local-messaging",
        nodes={"bench": rc.Node()},
        roles={"bench": roles},
        relationships={"bench": {"caller": "bench/caller", "worker": "bench/worker", "members": "bench/member*"}},
        start={"call": "bench/caller.measure", "with": measurement},
    )
