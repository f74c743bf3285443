"""xoscar: pools in processes of their own; the caller is in this one."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any, ClassVar, Final

import numpy as np
from harness import IN_FLIGHT, LARGE_VALUES, SUBSCRIBERS, TENSOR_VALUES, time_rounds_async

BENCHMARKS: Final = Path(__file__).parents[2]


class XoscarRemotePeer:
    """A pool whose eleven sub-pools are processes: one with the worker, the others with a subscriber each."""

    name = "xoscar"
    lacks: ClassVar[frozenset[str]] = frozenset()
    spared: ClassVar[int] = 1
    idioms: ClassVar[dict[str, str]] = {"event": "it has no events: a tell to each subscriber"}

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
        from peers.remote.xoscar_actors import Subscriber, Worker

        # its processes are interpreters of their own, which import the actors by name
        path = [str(BENCHMARKS), *filter(None, [os.environ.get("PYTHONPATH")])]
        os.environ["PYTHONPATH"] = os.pathsep.join(path)
        self._pool = await xo.create_actor_pool("127.0.0.1", n_process=1 + SUBSCRIBERS)
        places = list(self._pool.sub_processes)
        assert len(places) == 1 + SUBSCRIBERS
        self._worker = await xo.create_actor(Worker, uid="worker", address=places[0])
        self._subscribers = [
            await xo.create_actor(Subscriber, uid=f"subscriber{number}", address=place)
            for number, place in enumerate(places[1:])
        ]

    async def _call(self, operations: int) -> None:
        for number in range(operations):
            await self._worker.echo(number)

    async def _calls(self, operations: int) -> None:
        for start in range(0, operations, IN_FLIGHT):
            count = min(IN_FLIGHT, operations - start)
            for pending in [asyncio.create_task(self._worker.echo(number)) for number in range(count)]:
                await pending

    async def _event(self, operations: int) -> None:
        for number in range(operations):
            for subscriber in self._subscribers:
                await subscriber.on_ticked.tell(number)
        await asyncio.gather(*[subscriber.count_to(operations) for subscriber in self._subscribers])

    async def _tensor(self, operations: int) -> None:
        await self._send(np.zeros(TENSOR_VALUES, np.float32), operations)

    async def _large(self, operations: int) -> None:
        await self._send(np.zeros(LARGE_VALUES, np.float32), operations)

    async def _send(self, tensor: np.ndarray[Any, Any], operations: int) -> None:
        for _ in range(operations):
            assert await self._worker.weigh(tensor) == tensor.nbytes
