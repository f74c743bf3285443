"""What is measured, and how: the same workloads and the same clock for every peer."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

TENSOR_VALUES = 550_000  # float32: 2.2 MB
SUBSCRIBERS = 10
MEMBERS = 100


@dataclass(frozen=True)
class Workload:
    """One thing that every peer is asked to do `operations` times a round."""

    key: str
    title: str
    unit: str
    operations: int
    per_second: bool
    yields: float = 1  # what one operation counts for: an event to ten subscribers is ten deliveries

    def value(self, took_s: float, operations: int) -> float:
        """Return a round's result in the workload's unit: things a second, or microseconds a thing."""
        each_s = took_s / (operations * self.yields)
        return 1 / each_s if self.per_second else each_s * 1e6


WORKLOADS = (
    Workload("service", "service call, in sequence", "us", 10_000, per_second=False),
    Workload("task", "task, in sequence", "tasks/s", 5_000, per_second=True),
    Workload("tasks", "tasks, 1,000 in flight", "tasks/s", 10_000, per_second=True),
    Workload("event", "event to 10 subscribers", "deliveries/s", 3_000, per_second=True, yields=SUBSCRIBERS),
    Workload("group", "call of a group of 100", "us", 200, per_second=False),
    Workload("tensor", "2.2 MB tensor there and back", "us", 5_000, per_second=False),
)
IN_FLIGHT = 1_000

LARGE_VALUES = 25_000_000  # float32: 100 MB
REMOTE_WORKLOADS = (
    Workload("call", "call, in sequence", "us", 5_000, per_second=False),
    Workload("calls", "calls, 1,000 in flight", "calls/s", 10_000, per_second=True),
    Workload("event", "event to 10 processes", "deliveries/s", 1_000, per_second=True, yields=SUBSCRIBERS),
    Workload("tensor", "2.2 MB tensor to the other", "MB/s", 200, per_second=True, yields=TENSOR_VALUES * 4e-6),
    Workload("large", "100 MB tensor to the other", "MB/s", 10, per_second=True, yields=LARGE_VALUES * 4e-6),
)


class Peer(Protocol):
    """A framework under test. It is opened once, asked for every workload, and closed."""

    name: str
    idioms: dict[str, str]  # workload key -> what stands in for what the framework does not have
    lacks: frozenset[str]  # the workloads it cannot do
    spared: int  # it does one in so many of the operations, being that much slower

    def open(self) -> None:
        """Start a node. Raises ImportError where the framework is not installed."""

    def rounds(self, workload: str, operations: int, rounds: int) -> list[float]:
        """Do the workload's operation so many times, in so many rounds; return the seconds of each round."""

    def close(self) -> None:
        """Stop what was started."""


@contextmanager
def quiet_collector() -> Iterator[None]:
    """Keep the garbage collector out of the timed part."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def time_rounds(body: Callable[[int], object], operations: int, rounds: int) -> list[float]:
    """Warm up, then time a body that does so many operations; the seconds of each round."""
    body(max(operations // 5, 1))
    took_s: list[float] = []
    for _ in range(rounds):
        with quiet_collector():
            started = time.perf_counter()
            body(operations)
            took_s.append(time.perf_counter() - started)
    return took_s


async def time_rounds_async(body: Callable[[int], Awaitable[object]], operations: int, rounds: int) -> list[float]:
    """Do what `time_rounds` does, for a coroutine function."""
    await body(max(operations // 5, 1))
    took_s: list[float] = []
    for _ in range(rounds):
        with quiet_collector():
            started = time.perf_counter()
            await body(operations)
            took_s.append(time.perf_counter() - started)
    return took_s


@dataclass(frozen=True)
class Measured:
    """What a peer's rounds came to, in the workload's unit."""

    best: float
    median: float

    @classmethod
    def of(cls, workload: Workload, took_s: list[float], operations: int) -> Measured:
        """Sum up the seconds of several rounds."""
        values = [workload.value(seconds, operations) for seconds in took_s]
        return cls(best=(max if workload.per_second else min)(values), median=statistics.median(values))


class Arrivals:
    """Counts deliveries on one event loop, and tells when all have come."""

    def __init__(self) -> None:
        self.complete = asyncio.Event()
        self._missing = 0

    def expect(self, count: int) -> None:
        """Start to count so many."""
        self._missing = count
        self.complete.clear()

    def add(self) -> None:
        """Count one."""
        self._missing -= 1
        if not self._missing:
            self.complete.set()
