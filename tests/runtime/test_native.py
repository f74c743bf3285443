"""The role that every node carries: who runs there, what changes, and its management."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.core.records import Audited
from rolecall.runtime.native import Native, Related, RoleStatus


class Patient(rc.Role):
    native: Native = rc.one("node")

    def __init__(self) -> None:
        self.events: list[Any] = []

    @rc.service
    async def echo(self, number: int) -> int:
        return number

    @rc.stream
    async def up_to(self, last: int) -> AsyncIterator[int]:
        for number in range(last):
            yield number

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


class LooseBoss(rc.Role):
    nodes: rc.Group[Native] = rc.many()

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.related: list[Related] = []

    @nodes.on(Native.changed)
    async def on_changed(self, source: rc.RoleId, change: RoleStatus) -> None:
        self.seen.append((change.role, change.status))

    @nodes.on(Native.related)
    async def on_related(self, source: rc.RoleId, change: Related) -> None:
        self.related.append(change)

    def native(self, home: str) -> Native:
        return self.nodes[rc.RoleId(f"{home}/node")]


class Boss(LooseBoss):
    patient: Patient = rc.one()


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


# ------------------------------------------------------------------------------------------------- relationships


class Friend(rc.Role):
    friends: rc.Group[Friend] = rc.many()
    peers: rc.Group[Friend] = rc.many()

    def __init__(self) -> None:
        self.joined: list[str] = []

    @friends.on_join
    async def welcome(self, who: rc.RoleId) -> None:
        self.joined.append(who)


def befriended(world: Any) -> Any:
    return world("a", "b", nodes="*/node", manager="a/boss", friends="b/one", peers="b/two")


@pytest.mark.parametrize("role", [rc.RoleId("b/one"), None])
async def test_a_relationship_names_others_at_once_and_those_who_come_later(world, settle, role) -> None:
    async with befriended(world) as w:
        boss, one, _ = [await w.role(i, c) for i, c in (("a/boss", LooseBoss), ("b/one", Friend), ("b/two", Friend))]
        assert list(one.friends) == ["b/one"]
        await boss.native("b").relate("friends", ["b/t*"], role)
        assert list(one.friends) == ["b/two"]
        await w.role("a/three", Friend)
        await boss.native("b").relate("friends", ["a/three", "b/t*"], role, how="add")
        assert list(one.friends) == ["b/two", "a/three"]
        await boss.native("b").relate("friends", ["b/t*"], role, how="remove")
        assert list(one.friends) == ["a/three"]
        await settle()
        assert one.joined == ["b/one", "b/two", "a/three"]
        assert [(change.role, change.targets) for change in boss.related] == [
            (role, ["b/t*"]), (role, ["b/t*", "a/three"]), (role, ["a/three"]),
        ]  # fmt: skip


async def test_the_role_s_own_relationship_is_stronger_until_the_node_s_is_set(world) -> None:
    async with befriended(world) as w:
        boss, one, two = [await w.role(i, c) for i, c in (("a/boss", LooseBoss), ("b/one", Friend), ("b/two", Friend))]
        await boss.native("b").relate("friends", ["b/two"], two.id)
        assert (list(one.friends), list(two.friends)) == (["b/one"], ["b/two"])
        await boss.native("b").relate("friends", ["b/*"])
        assert list(one.friends) == list(two.friends) == ["b/one", "b/two"]


async def test_a_relationship_may_stand_for_another(world) -> None:
    async with befriended(world) as w:
        boss, one, _ = [await w.role(i, c) for i, c in (("a/boss", LooseBoss), ("b/one", Friend), ("b/two", Friend))]
        await boss.native("b").alias("friends", "peers", one.id)
        assert list(one.friends) == ["b/two"]
        await boss.native("b").relate("peers", ["b/*"])
        assert list(one.friends) == ["b/one", "b/two"]


async def test_what_leads_nowhere_is_refused_and_changes_nothing(world) -> None:
    async with befriended(world) as w:
        boss, one, _ = [await w.role(i, c) for i, c in (("a/boss", LooseBoss), ("b/one", Friend), ("b/two", Friend))]
        native = boss.native("b")
        with pytest.raises(rc.RelationshipError, match="leads back to itself: peers -> friends -> peers"):
            await native.alias("friends", "peers")
            await native.alias("peers", "friends")
        with pytest.raises(
            rc.RelationshipError, match=r"'pears': it is not configured on node 'b'.*Did you mean 'peers'"
        ):
            await native.alias("friends", "pears")
        with pytest.raises(rc.RelationshipError, match="found 'two', expected node/role"):
            await native.relate("friends", ["two"])
        with pytest.raises(rc.RelationshipError, match="runs backwards"):
            await native.relate("friends", ["b[2-1]/two"])
        with pytest.raises(rc.UnknownRole, match="Did you mean 'b/one'"):
            await native.relate("friends", ["b/two"], rc.RoleId("b/on"))
        assert list(one.friends) == ["b/two"]


async def test_a_node_keeps_its_managers(world) -> None:
    async with befriended(world) as w:
        boss = await w.role("a/boss", LooseBoss)
        with pytest.raises(rc.RelationshipError, match="managers can be added to a node, and none taken away"):
            await boss.native("b").relate("manager", [], rc.RoleId("b/node"))
        await boss.native("b").relate("manager", ["b/one"])  # of its roles: the node has its own
        await boss.native("b").relate("manager", ["b/one"], rc.RoleId("b/node"), how="add")
        assert await boss.native("b").roles()


# ------------------------------------------------------------------------------------------------- what it knows


async def test_it_counts_what_was_handled_and_what_went_wrong(world) -> None:
    async with managed(world) as w:
        _, boss = await opened(w)
        await boss.patient.echo(1)
        await boss.patient.echo(2)
        with pytest.raises(rc.WrongType):
            await boss.native("b").call(rc.RoleId("b/patient"), "echo", {"number": "one"})
        counted = await boss.native("b").counters()
        assert (counted["messages"], counted["errors"], counted["dead_letters"]) == (4, 1, 0)
        await boss.native("b").stop(rc.RoleId("b/patient"))
        after = await boss.native("b").counters()
        assert (after["messages"], after["roles_ended"]) == (6, 1)


async def test_it_calls_roles_in_its_own_name(world) -> None:
    async with managed(world) as w:
        _, boss = await opened(w)
        native = boss.native("b")
        assert await native.call(rc.RoleId("b/patient"), "echo", {"number": 3}) == 3
        with pytest.raises(rc.WrongArgument, match="'number' is missing"):
            await native.call(rc.RoleId("b/patient"), "echo", {})
        with pytest.raises(rc.NotAChannel, match=r"'ecko' is not a channel .* Did you mean 'echo'"):
            await native.call(rc.RoleId("b/patient"), "ecko", {})
        with pytest.raises(rc.UnknownRole, match="no role 'a/boss'"):
            await native.call(rc.RoleId("a/boss"), "echo", {})
        assert await native.call(rc.RoleId("b/node"), "roles", {}) == [
            {"role": "b/node", "status": "ready"},
            {"role": "b/patient", "status": "ready"},
        ]


async def test_what_is_done_and_denied_is_audited(world) -> None:
    async with managed(world) as w:
        patient, boss = await opened(w)
        seen: list[Any] = []
        w.nodes["b"].auditor = lambda event, **what: seen.append((event, what["who"], what.get("role")))
        await boss.native("b").pause(patient.id)
        await boss.native("b").resume(patient.id)
        with pytest.raises(rc.NotAllowed):
            await patient.native.stop(patient.id)
        await boss.native("b").stop(patient.id)
        assert seen == [
            ("pause", "a/boss", patient.id), ("resume", "a/boss", patient.id),
            ("deny", patient.id, None), ("stop", "a/boss", patient.id),
        ]  # fmt: skip


async def test_without_a_log_of_its_own_a_node_tells_its_observers(world) -> None:
    async with managed(world) as w:
        patient, boss = await opened(w)
        seen: list[Any] = []
        w.nodes["b"].observers.append(lambda record: seen.append(record) if isinstance(record, Audited) else None)
        await boss.native("b").relate("friends", ["b/t*"], patient.id)
        [record] = seen
        assert (record.node, record.what) == ("b", "relate")
        who = {"who": "a/boss", "role": "b/patient", "relationship": "friends", "targets": ["b/t*"]}
        assert record.facts == who and type(record.facts["who"]) is str
        with pytest.raises(rc.RelationshipError, match=r"b/x cannot be removed from what it names: b/t\*"):
            await boss.native("b").relate("friends", ["b/x"], patient.id, how="remove")


async def test_any_channel_is_read_through_the_node(world) -> None:
    async with managed(world) as w:
        patient, boss = await opened(w)
        read = boss.native("b").read
        assert [item async for item in read(patient.id, "up_to", {"last": 3})] == [0, 1, 2]
        assert [item async for item in read(patient.id, "echo", {"number": 3})] == [3]
        with pytest.raises(rc.WrongArgument, match="'last' is missing"):
            _ = [item async for item in read(patient.id, "up_to", {})]


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
