"""The role that every node carries: who runs there, what changes, and its management."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.runtime.native import Native, RoleStatus


class Patient(rc.Role):
    native: Native = rc.one("node")

    def __init__(self) -> None:
        self.events: list[Any] = []

    @rc.service
    async def echo(self, number: int) -> int:
        return number

    @rc.service
    async def pause_myself(self) -> None:
        await self.native.pause(self.id)

    @rc.service
    async def stop_myself(self) -> None:
        await self.native.stop(self.id)
        self.events.append("asked")
        await anyio.sleep_forever()

    async def teardown(self) -> None:
        self.events.append("teardown")


class Boss(rc.Role):
    patient: Patient = rc.one()
    nodes: rc.Group[Native] = rc.many()

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []

    @nodes.on(Native.changed)
    async def on_changed(self, source: rc.RoleId, change: RoleStatus) -> None:
        self.seen.append((change.role, change.status))

    def native(self, home: str) -> Native:
        return self.nodes[rc.RoleId(f"{home}/node")]


def managed(world: Any, **options: Any) -> Any:
    return world("a", "b", nodes="*/node", manager="a/boss", patient="b/patient", **options)


async def opened(w: Any) -> tuple[Patient, Boss]:
    return await w.role("b/patient", Patient), await w.role("a/boss", Boss)


async def test_the_manager_sees_the_roles_of_every_node(world) -> None:
    async with managed(world) as w:
        _, boss = await opened(w)
        assert await boss.native("b").roles() == [RoleStatus("b/node", "ready"), RoleStatus("b/patient", "ready")]
        assert [role.role for role in await boss.native("a").roles()] == ["a/node", "a/boss"]


async def test_each_change_of_status_is_published(world, settle) -> None:
    async with managed(world) as w:
        boss = await w.role("a/boss", Boss)
        await w.role("b/patient", Patient)
        await boss.native("b").pause(rc.RoleId("b/patient"))
        await boss.native("b").resume(rc.RoleId("b/patient"))
        await boss.native("b").stop(rc.RoleId("b/patient"))
        await settle()
        assert [status for role, status in boss.seen if role == "b/patient"] == [
            "starting", "ready", "pausing", "paused", "resuming", "ready", "stopping", "stopped",
        ]  # fmt: skip


async def test_the_manager_pauses_resumes_and_stops(world, settle) -> None:
    async with managed(world) as w:
        patient, boss = await opened(w)
        await boss.native("b").pause(rc.RoleId("b/patient"))
        answers = []

        async def call() -> None:
            answers.append(await boss.patient.echo(1))

        async with anyio.create_task_group() as calls:
            calls.start_soon(call)
            await settle()
            assert answers == []
            await boss.native("b").resume(rc.RoleId("b/patient"))
        assert answers == [1]
        await boss.native("b").stop(rc.RoleId("b/patient"))
        assert patient.events == ["teardown"]


async def test_others_may_not(world) -> None:
    async with managed(world) as w:
        patient, _ = await opened(w)
        with pytest.raises(rc.NotAllowed, match=r"b/patient may not call b/node\.stop"):
            await patient.native.stop(rc.RoleId("b/patient"))
    async with world() as w:
        patient = await w.role("a/patient", Patient)
        with pytest.raises(rc.NotAllowed, match="open only to the members of the relationship 'manager'"):
            await patient.native.roles()


async def test_unknown_roles_are_named_with_the_nearest(world) -> None:
    async with managed(world) as w:
        _, boss = await opened(w)
        with pytest.raises(rc.UnknownRole, match=r"There is no role 'b/patent'\. Did you mean 'b/patient'\?"):
            await boss.native("b").stop(rc.RoleId("b/patent"))


@pytest.mark.parametrize("what", ["pause", "stop"])
async def test_the_node_s_own_role_is_left_alone(world, what) -> None:
    async with managed(world) as w:
        _, boss = await opened(w)
        with pytest.raises(rc.LifecycleError, match="b/node is the node's own role"):
            await getattr(boss.native("b"), what)(rc.RoleId("b/node"))


# ------------------------------------------------------------------------------------------------- of oneself


@pytest.mark.virtual_time
async def test_a_role_that_waits_for_its_own_pause_is_told(world) -> None:
    async with world("b", manager="b/patient", patient="b/patient") as w:
        await w.role("b/patient", Patient)
        boss = await w.role("b/boss", Caller)
        with pytest.raises(rc.LifecycleError, match=r"b/patient cannot be paused .* b/patient\.pause_myself waits"):
            await boss.patient.pause_myself()
        assert await boss.patient.echo(1) == 1


@pytest.mark.virtual_time
async def test_a_role_may_stop_itself(world, settle) -> None:
    async with world("b", manager="b/patient", patient="b/patient") as w:
        patient = await w.role("b/patient", Patient)
        boss = await w.role("b/boss", Caller)
        with pytest.raises(rc.RoleLost):
            await boss.patient.stop_myself()
        await settle()
        assert patient.events == ["asked", "teardown"]
        assert anyio.current_time() == 0  # nobody had to wait for somebody to give up


class Caller(rc.Role):
    patient: Patient = rc.one()
