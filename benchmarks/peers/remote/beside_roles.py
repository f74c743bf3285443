"""The roles of `beside_a_tensor.py`: one sends tensors and makes small calls meanwhile, the other takes both."""

from __future__ import annotations

import resource
import time

import anyio
import anyio.lowlevel
import msgspec
import numpy as np

import rolecall as rc


class Found(msgspec.Struct, frozen=True):
    """What was measured: times in seconds, memory in bytes."""

    idle_s: list[float]
    beside_s: list[float]
    sender_bytes: int
    receiver_bytes: int
    transfer_s: list[float]


class Receiver(rc.Role):
    """Takes tensors, and answers small calls."""

    @rc.service(concurrent=True)
    async def ping(self, number: int) -> int:
        """Return the number."""
        return number

    @rc.service
    async def weigh(self, tensors: rc.Tensors) -> int:
        """Return how many bytes came."""
        return tensors.nbytes

    @rc.service
    async def peak(self) -> int:
        """Return the most memory this process has had, in bytes."""
        return peak_bytes()


class Sender(rc.Role):
    """Sends tensors and makes small calls meanwhile."""

    receiver: Receiver = rc.one()

    @rc.task
    async def measure(self, size_bytes: int, calls: int) -> Found:
        """Measure one after the other."""
        await self._pings(calls // 4)
        idle_s = await self._pings(calls)
        before = peak_bytes(), await self.receiver.peak()
        tensors = rc.Tensors({"weights": np.zeros(size_bytes // 4, np.float32)})
        await self.receiver.weigh(tensors)  # memory that the system has to find first would be measured with it
        beside_s: list[float] = []
        transfer_s: list[float] = []
        while len(beside_s) < calls:
            async with anyio.create_task_group() as tasks:
                travelling = anyio.Event()

                async def send(done: anyio.Event = travelling) -> None:
                    began = time.perf_counter()
                    assert await self.receiver.weigh(tensors) == tensors.nbytes
                    transfer_s.append(time.perf_counter() - began)
                    done.set()

                tasks.start_soon(send)
                await anyio.lowlevel.checkpoint()
                while not travelling.is_set():
                    beside_s += await self._pings(1)
        after = peak_bytes(), await self.receiver.peak()
        return Found(idle_s, beside_s, after[0] - before[0], after[1] - before[1], transfer_s)

    async def _pings(self, calls: int) -> list[float]:
        times_s = []
        for number in range(calls):
            began = time.perf_counter()
            await self.receiver.ping(number)
            times_s.append(time.perf_counter() - began)
        return times_s


def peak_bytes() -> int:
    """Return the most memory this process has had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
