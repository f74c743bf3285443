"""Roles for the tests of those who look after nodes from outside."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import msgspec
import numpy as np

import rolecall as rc
from rolecall.core.tensors import Tensors

__all__ = ("Adder", "Asker", "Broken")


class Point(msgspec.Struct):
    x: float
    y: float = 0.0


class Adder(rc.Role):
    """Adds; waits; fails; whatever it is asked for."""

    def __init__(self, start: int = 0) -> None:
        self.sum = start

    @rc.service
    async def add(self, numbers: list[int]) -> int:
        self.sum += sum(numbers)
        self.log(sum=self.sum)
        return self.sum

    @rc.service
    async def norm(self, point: Point) -> float:
        return float(np.hypot(point.x, point.y))

    @rc.task
    async def weights(self, size: int) -> dict[str, Tensors]:
        return {"all": Tensors({"w": np.zeros(size, np.float32)})}

    @rc.service
    async def wait(self) -> None:
        await anyio.sleep_forever()

    @rc.service
    async def fail(self) -> None:
        raise ValueError("it went wrong")

    @rc.service(allow="friends")
    async def secret(self) -> int:
        return 42

    @rc.stream
    async def count(self, to: int = 1) -> AsyncIterator[int]:
        for number in range(to):
            yield number + 1
        if to > 5:
            await anyio.sleep_forever()


class Asker(rc.Role):
    """Knows adders."""

    adders: rc.Group[Adder] = rc.many()

    @rc.service
    async def who(self) -> list[str]:
        return list(self.adders)


class Broken(rc.Role):
    """Cannot be set up."""

    async def setup(self) -> None:
        raise RuntimeError("no setup today")
