"""Many nodes in one loop: who knows of whom, lives and ends of nodes, and what the others hear of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

import rolecall as rc
from rolecall.core.errors import ConfigError, NodeLost, RoleLost, UnknownRole
from rolecall.runtime.endpoints import RoleProxy
from rolecall.runtime.instance import Hosting
from rolecall.runtime.node import NodeOptions
from rolecall.runtime.relations import Target
from rolecall.sim.loop import VirtualLoop
from rolecall.sim.world import Place, World

pytestmark = pytest.mark.simulation
SEAMS = pytest.mark.parametrize("seam", ["fast", "grpc"])


class Sum(msgspec.Struct):
    total: int = 0


class Server(rc.Role):
    state = rc.State(Sum)

    @rc.service
    async def add(self, number: int) -> int:
        self.state.total += number
        return self.state.total

    @rc.service
    async def hang(self) -> None:
        await anyio.sleep_forever()


class Client(rc.Role):
    servers: rc.Group[Server] = rc.many()

    @rc.service
    async def ask(self) -> None:
        """Call all, and wait for what never comes."""
        await self.servers.call(Server.hang)


@asynccontextmanager
async def world(seam: Any = "fast", names: str = "abc") -> AsyncIterator[World]:
    """Nodes with a server and a client each, all started."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    options = NodeOptions(relationships={"servers": Target(("*/server",))})
    async with World(loop, seam=seam) as made:
        hosted = []
        for name in names:
            hostings = [
                Hosting(id=rc.RoleId(f"{name}/{role}"), role_class=kind)
                for role, kind in (("server", Server), ("client", Client))
            ]
            life = await made.open(Place(name=name, options=options, hostings=hostings))
            hosted += life.host({})
        for instance in hosted:
            await made.start(instance)
        yield made


def reach(made: World, of: str, role: str) -> Any:
    """Return the server that is meant, as a node reaches it."""
    return RoleProxy(made.life(of).node.native, rc.RoleId(role), Server)


def group(made: World, node: str) -> list[str]:
    return list(made.directories.find(rc.RoleId(f"{node}/client")).role.servers)


@SEAMS
async def test_nodes_know_each_other_when_they_ask(sim_seed: int, seam: Any) -> None:
    async with world(seam) as made:
        assert not made.life("a").directory._remotes
        assert await reach(made, "a", "b/server").add(2) == 2
        assert list(made.life("a").directory._remotes) == ["b/server"]
        assert group(made, "a") == ["a/server", "b/server", "c/server"]
        with pytest.raises(UnknownRole, match="d/server"):
            await reach(made, "a", "d/server").add(1)
        with pytest.raises(ConfigError, match="no such node"):
            made.life("d")
        with pytest.raises(ConfigError, match="already a node"):
            await made.open(Place(name="a"))


@SEAMS
async def test_a_role_that_ends_is_gone_for_all(sim_seed: int, seam: Any) -> None:
    async with world(seam) as made:
        assert group(made, "a") == ["a/server", "b/server", "c/server"]
        await made.directories.find(rc.RoleId("b/server")).stop()
        await anyio.sleep(0.1)
        assert group(made, "a") == ["a/server", "c/server"]
        with pytest.raises(RoleLost, match="it has stopped"):
            await reach(made, "c", "b/server").add(1)


@SEAMS
@pytest.mark.parametrize("how", ["silence", "reset"])
@pytest.mark.parametrize("state", ["kept", "none"])
async def test_a_node_crashes_and_comes_back(sim_seed: int, seam: Any, how: Any, state: Any) -> None:
    async with world(seam) as made:
        assert await reach(made, "a", "b/server").add(5) == 5
        assert len(group(made, "a")) == 3
        hanging = asyncio.create_task(_lost(reach(made, "a", "b/server").hang()))
        await anyio.sleep(1)
        made.crash("b", how=how)
        made.crash("b", how=how)  # twice is once
        found = await hanging
        assert found == "unknown" and (anyio.current_time() < 1.5) == (how == "reset")
        assert group(made, "a") == ["a/server", "c/server"]
        made.restart("b", state=state)
        await anyio.sleep(1)
        assert made.life("b").number == 2 and made.life("b").node.incarnation == 2
        assert group(made, "a") == ["a/server", "b/server", "c/server"]
        assert await reach(made, "a", "b/server").add(1) == (6 if state == "kept" else 1)
        assert await reach(made, "b", "a/server").add(1) == 1
        kinds = [event.kind for event in made.log.events if event.kind != "status"]
        assert kinds.count("crash") == kinds.count("restart") == 1 and "lost" in kinds


@SEAMS
async def test_a_node_that_has_crashed_logs_nothing(sim_seed: int, seam: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with world(seam) as made:
        asked = asyncio.create_task(_lost(RoleProxy(made.life("a").node.native, rc.RoleId("b/client"), Client).ask()))
        await anyio.sleep(1)
        made.crash("b")
        assert await asked == "unknown"
        await anyio.sleep(5)
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if not text.startswith("b: lost:")] == []  # which others say of it


async def _lost(call: Any) -> str:
    try:
        await call
    except NodeLost as error:
        return error.effect
    return "none at all"


@SEAMS
async def test_a_restart_does_not_wait_until_the_others_have_noticed(sim_seed: int, seam: Any) -> None:
    async with world(seam) as made:
        assert await reach(made, "a", "b/server").add(5) == 5
        made.restart("b")  # it lives, and so crashes first
        await anyio.sleep(0.5)
        assert await reach(made, "a", "b/server").add(1) == 1


async def test_pauses_and_clocks_are_of_one_node(sim_seed: int) -> None:
    async with world() as made:
        made.pause("b")
        asked = asyncio.create_task(reach(made, "a", "b/server").add(1))
        await anyio.sleep(1.0)
        assert not asked.done()
        made.resume("b")
        assert await asked == 1
        made.skew("b", 100.0)
        assert made.loop.context("b").run(made.loop.time) == made.loop.now_s() + 100
        assert await reach(made, "a", "b/server").add(1) == 2


async def test_a_full_disk_is_full_across_lives(sim_seed: int) -> None:
    async with world() as made:
        disk = made.life("b").disk
        made.fill_disk("b", 10)
        made.restart("b")
        await anyio.sleep(1)
        with pytest.raises(OSError, match="No space"):
            made.life("b").disk.charge(11)
        made.fill_disk("b", None)
        disk.charge(11)


async def test_a_restart_that_fails_is_told(sim_seed: int) -> None:
    class Fragile(rc.Role):
        lives = 0

        async def setup(self) -> None:
            Fragile.lives += 1
            if Fragile.lives == 2:
                raise ValueError("not again")

    told: list[Exception] = []
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    async with World(loop) as made:
        made.failure = told.append
        life = await made.open(Place(name="a", hostings=[Hosting(id=rc.RoleId("a/x"), role_class=Fragile)]))
        for instance in life.host({}):
            await made.start(instance)
        made.restart("a")
        await anyio.sleep(1)
    assert [str(error) for error in told] == ["not again"]
