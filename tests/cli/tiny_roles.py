"""Roles for the tests of `rolecall run`; applications name them as `tiny_roles:...`."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import numpy as np

import rolecall as rc
from rolecall.core.errors import DataError, MissingDependency
from rolecall.core.tensors import Tensors


class Progress(msgspec.Struct):
    round: int = 0
    params: Tensors | None = None


class Counter(rc.Role):
    """Counts, and logs how far it came; fails, prints or is interrupted when it is told to."""

    state = rc.State(Progress)

    def __init__(self, rounds: int = 3, fails_at: int = 0, prints: str = "", signals: int = 0) -> None:
        self.rounds, self.fails_at, self.prints, self.signals = rounds, fails_at, prints, signals

    async def main(self) -> None:
        for r in range(1, self.rounds + 1):
            await self.safe_point()
            if self.prints:
                print(self.prints)  # noqa: T201 - as users' roles may
            if r == self.fails_at:
                raise ValueError(f"round {r} went wrong")
            self.state = Progress(r, Tensors({"w": np.full(2, self.rng("w", r).normal(), np.float32)}))
            self.log(round=r, accuracy=r / 10)
            if r <= self.signals:
                signal.raise_signal(signal.SIGINT)
            await anyio.lowlevel.checkpoint()


class Heavy(rc.Role):
    """Ends with a large model."""

    state = rc.State(Progress)

    async def main(self) -> None:
        self.state = Progress(1, Tensors({"w": np.zeros(10_000)}))
        self.log(round=1, accuracy=0.1)


class Adder(rc.Role):
    """Adds, logs the sum and returns a report."""

    @rc.service
    async def add(self, numbers: list[int]) -> dict[str, int]:
        self.log(sum=sum(numbers))
        return {"sum": sum(numbers)}


class Stubborn(rc.Role):
    """Never reaches a safe point; interrupted twice at once."""

    async def main(self) -> None:
        self.log(round=1, accuracy=0.1)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        await anyio.sleep(1000)


class Reader(rc.Role):
    """Needs data."""

    data: Mapping[str, Any] = rc.element()


class Careless(rc.Role):
    """Changes what it has returned."""

    other: Careless = rc.one()

    def __init__(self) -> None:
        self.values = [1, 2, 3]

    @rc.service
    async def give(self) -> list[int]:
        return self.values

    async def main(self) -> None:
        await self.other.give()
        self.values.append(4)


def truncated() -> Mapping[str, Any]:
    raise DataError("train.gz", "truncated")


def not_installed() -> Mapping[str, Any]:
    raise MissingDependency("scikit-learn", needed_for="the data set 'digits'", extra="data")
