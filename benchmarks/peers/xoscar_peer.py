"""xoscar: one actor pool in this process, its actors called by reference.

xoscar has two kinds of reference to an actor of the same pool. The one that `create_actor` returns sends
messages through the pool's channel; `actor_ref` returns one that calls the actor's coroutine directly,
under its lock. Both are measured, as two peers.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

import numpy as np
from harness import IN_FLIGHT, MEMBERS, SUBSCRIBERS, TENSOR_VALUES, Arrivals, time_rounds_async


class XoscarPeer:
    """A pool with a worker, ten subscribers and a hundred members; calls go through the pool's channel."""

    name = "xoscar"
    lacks: ClassVar[frozenset[str]] = frozenset()
    spared: ClassVar[int] = 1
    idioms: ClassVar[dict[str, str]] = {
        "task": "it has no tasks: a call",
        "tasks": "it has no tasks: calls, each in an asyncio task",
        "event": "it has no events: a tell to each subscriber",
        "group": "it has no groups: asyncio.gather of the calls",
    }

    def open(self) -> None:
        """Create the pool and its actors."""
        import uvloop

        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._runner.run(self._open())

    def rounds(self, workload: str, operations: int, rounds: int) -> list[float]:
        """Time one of the coroutines below."""
        return self._runner.run(time_rounds_async(getattr(self, f"_{workload}"), operations, rounds))

    def close(self) -> None:
        """Stop the pool."""
        self._runner.run(self._pool.stop())
        self._runner.close()

    async def _open(self) -> None:
        import xoscar as xo

        worker_class, subscriber_class = declare_actors()
        self._pool = await xo.create_actor_pool("127.0.0.1", n_process=0)
        self._arrivals = Arrivals()
        self._worker = await self._create(worker_class, "worker")
        self._subscribers = [
            await self._create(subscriber_class, f"subscriber{number}", self._arrivals) for number in range(SUBSCRIBERS)
        ]
        self._members = [await self._create(worker_class, f"member{number}") for number in range(MEMBERS)]

    async def _create(self, actor_class: Any, uid: str, *arguments: Any) -> Any:
        import xoscar as xo

        return await xo.create_actor(actor_class, *arguments, uid=uid, address=self._pool.external_address)

    async def _service(self, operations: int) -> None:
        echo = self._worker.echo
        for number in range(operations):
            await echo(number)

    _task = _service

    async def _tasks(self, operations: int) -> None:
        echo = self._worker.echo
        for start in range(0, operations, IN_FLIGHT):
            count = min(IN_FLIGHT, operations - start)
            for pending in [asyncio.create_task(echo(number)) for number in range(count)]:
                await pending

    async def _event(self, operations: int) -> None:
        self._arrivals.expect(operations * SUBSCRIBERS)
        for number in range(operations):
            for subscriber in self._subscribers:
                await subscriber.on_ticked.tell(number)
        await self._arrivals.complete.wait()

    async def _group(self, operations: int) -> None:
        for number in range(operations):
            replies = await asyncio.gather(*[member.echo(number) for member in self._members])
            assert len(replies) == MEMBERS

    async def _tensor(self, operations: int) -> None:
        tensor = np.zeros(TENSOR_VALUES, np.float32)
        echo = self._worker.echo
        for _ in range(operations):
            await echo(tensor)


class DirectXoscarPeer(XoscarPeer):
    """The same with references that call the actor's coroutine directly."""

    name = "xoscar, direct"

    async def _create(self, actor_class: Any, uid: str, *arguments: Any) -> Any:
        import xoscar as xo

        await super()._create(actor_class, uid, *arguments)
        return await xo.actor_ref(self._pool.external_address, uid)


def declare_actors() -> tuple[Any, Any]:
    """Return the worker and the subscriber class; a function since they need xoscar to be installed."""
    import xoscar as xo

    class Worker(xo.Actor):
        async def echo(self, value: Any) -> Any:
            return value

    class Subscriber(xo.Actor):
        def __init__(self, arrivals: Arrivals) -> None:
            self._arrivals = arrivals

        async def on_ticked(self, value: Any) -> None:
            self._arrivals.add()

    return Worker, Subscriber
