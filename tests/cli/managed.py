"""Roles that wait to be looked after, for tests of the commands that do; applications name them as `managed:...`."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio

import rolecall as rc


class Adder(rc.Role):
    """Adds, and goes on until it is stopped."""

    def __init__(self, start: int = 0) -> None:
        self.sum = start

    @rc.service
    async def add(self, numbers: list[int]) -> int:
        self.sum += sum(numbers)
        self.log(sum=self.sum)
        return self.sum

    @rc.stream
    async def count(self, to: int) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    @rc.service
    async def wait(self) -> None:
        await anyio.sleep_forever()

    @rc.service
    async def fail(self) -> None:
        raise ValueError("it went wrong")


class Asker(rc.Role):
    """Knows adders."""

    adders: rc.Group[Adder] = rc.many()

    @rc.service
    async def who(self) -> list[str]:
        return list(self.adders)


class Failing(rc.Role):
    """Cannot be set up."""

    async def setup(self) -> None:
        raise RuntimeError("no setup today")
