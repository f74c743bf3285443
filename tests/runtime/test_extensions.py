"""Roles combined with extensions and mixins: channels join, hooks run beside each other."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.core.declarations import combined


class Base(rc.Role):
    """A role with every hook."""

    def __init__(self, rate: float = 0.1) -> None:
        self.rate = rate
        self.events: list[str] = []
        self.steps = 0

    async def setup(self) -> None:
        self.events.append("base setup")

    async def main(self) -> None:
        self.events.append("base main")

    async def teardown(self) -> None:
        self.events.append("base teardown")

    @rc.service
    async def train(self, number: int) -> int:
        return number


class Prober(rc.Extension):
    """Adds a channel and hooks."""

    async def setup(self) -> None:
        self.events.append("prober setup")

    async def main(self) -> None:
        self.events.append("prober main")

    async def teardown(self) -> None:
        self.events.append("prober teardown")

    @rc.service
    async def probe(self) -> str:
        return f"{self.id} at {self.rate}"


class Tester(rc.Extension):
    """Adds another channel, a topic and no hooks."""

    tested = rc.Topic(int)

    @rc.service
    async def test(self) -> int:
        return await self.train(4)


class Doubling(rc.Role):
    """A mixin: what it overrides, it extends by `super()`."""

    @rc.service
    async def train(self, number: int) -> int:
        return 2 * await super().train(number)  # type: ignore[misc]

    async def setup(self) -> None:
        await super().setup()
        self.events.append("mixin setup")


class Walking(rc.Extension):
    async def main(self) -> None:
        while True:
            self.steps += 1
            await self.safe_point()


class Failing(rc.Extension):
    async def main(self) -> None:
        raise ValueError("in the extension")


class Waiting(rc.Extension):
    async def main(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.events.append("waiting ended")


class Slow(Base):
    """Its main routine has its own safe points."""

    async def main(self) -> None:
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        self.events.append("slow at work")
        await self.safe_point()
        self.events.append("slow went on")


class Client(rc.Role):
    base: Base = rc.one()
    prober: Prober = rc.one("base")
    tester: Tester = rc.one("base")


@pytest.mark.parametrize("checked", [True, False])
async def test_channels_of_extensions_join_the_role_s(world, checked) -> None:
    async with world(checked=checked) as w:
        await w.role("a/base", combined(Base, (Prober, Tester)), rate=0.5)
        client = await w.role("a/client", Client)
        assert await client.base.train(3) == 3
        assert await client.prober.probe() == "a/base at 0.5"
        assert await client.tester.test() == 4
        with pytest.raises(rc.NotAChannel, match="'probe' is not a channel"):
            client.base.probe()  # the relationship sees the role as its own type only


async def test_hooks_of_extensions_run_beside_the_role_s(world, settle) -> None:
    async with world() as w:
        role = await w.role("a/base", combined(Base, (Prober, Tester)))
        ends: list[Any] = []
        w.instance("a/base").start_main(ends.append)
        await settle()
        assert ends == [None]
        await w.instance("a/base").stop()
        assert role.events == [
            "base setup", "prober setup", "base main", "prober main", "base teardown", "prober teardown",
        ]  # fmt: skip


async def test_a_mixin_follows_the_rules_of_inheritance(world) -> None:
    async with world() as w:
        role = await w.role("a/base", combined(Base, (Doubling, Prober)))
        client = await w.role("a/client", Client)
        assert await client.base.train(3) == 6
        assert role.events == ["base setup", "mixin setup", "prober setup"]


async def test_a_failing_main_routine_ends_the_others_and_is_raised_as_it_is(world, settle) -> None:
    async with world() as w:
        role = await w.role("a/base", combined(Base, (Waiting, Failing)))
        ends: list[Any] = []
        w.instance("a/base").start_main(ends.append)
        await settle()
        assert [repr(end) for end in ends] == ["ValueError('in the extension')"]
        assert role.events == ["base setup", "base main", "waiting ended"]


async def test_draining_ends_each_main_routine_at_its_own_safe_point(world, settle) -> None:
    async with world() as w:
        role = await w.role("a/base", combined(Slow, (Walking,)))
        ends: list[Any] = []
        w.instance("a/base").start_main(ends.append)
        w.instance("a/base").drain()
        await settle()
        assert ends == [None]
        assert role.events == ["base setup", "slow at work"]


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(rc.DeclarationError, match=r"Base: the extension .* is no role class"):
        combined(Base, (int,))  # type: ignore[arg-type]
    assert combined(Base, ()) is Base
    assert combined(Base, (Prober, Tester)).__name__ == "Base+Prober+Tester"
