from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.core.topologies import neighbours
from rolecall.runtime.node import NodeOptions
from rolecall.runtime.relations import Target


class Worker(rc.Role):
    @rc.service
    async def name(self) -> str:
        return self.id

    @rc.service
    async def peers(self) -> list[rc.RoleId]:
        return []


class Boss(rc.Role):
    workers: rc.Group[Worker] = rc.many()
    same: rc.Group[Worker] = rc.many("workers")
    deputy: Worker = rc.one()
    local: Worker = rc.one()

    def __init__(self) -> None:
        self.changes: list[str] = []
        self.pace = anyio.Event()
        self.pace.set()

    @workers.on_join
    async def joined(self, who: rc.RoleId) -> None:
        await self.pace.wait()
        self.changes.append(f"+{who}")

    @workers.on_leave
    async def left(self, who: rc.RoleId) -> None:
        self.changes.append(f"-{who}")


class Plain(rc.Role):
    workers: rc.Group[Worker] = rc.many()
    deputy: Worker = rc.one()


def related(
    own: Mapping[str, Mapping[str, Target]] | None = None, **relationships: Target | str | tuple[str, ...]
) -> dict[str, Any]:
    """Return options of a node with these relationships, and others of single roles."""

    def target(given: Any) -> Target:
        return given if isinstance(given, Target) else Target((given,) if isinstance(given, str) else given)

    return {"relationships": {k: target(v) for k, v in relationships.items()}, "role_relationships": own or {}}


@pytest.fixture
def related_world(world) -> Any:
    """A world whose relationships are whatever a node's options can say."""

    def open_world(*nodes: str, own: Any = None, **relationships: Any) -> Any:
        w = world(*nodes)
        w._options = lambda node: NodeOptions(checked=True, **related(own, **relationships))
        return w

    return open_world


# ---------------------------------------------------------------------------------------------- who is a member


async def test_a_pattern_names_roles_in_natural_order(related_world) -> None:
    async with related_world("a", "b", workers="*/w*") as w:
        boss = await w.role("a/boss", Plain)
        assert len(boss.workers) == 0
        for name in ("b/w10", "a/w2", "b/w9"):
            await w.role(name, Worker)
        assert list(boss.workers) == ["a/w2", "b/w9", "b/w10"]
        assert await boss.workers.at(1).name() == "b/w9"


async def test_names_stay_in_the_order_given_and_count_once(related_world) -> None:
    async with related_world("a", "b", workers=("b/w1", "a/w*", "b/w*")) as w:
        for name in ("a/w1", "b/w2", "b/w1", "a/w2"):
            await w.role(name, Worker)
        boss = await w.role("a/boss", Plain)
        assert boss.workers.ids == ("b/w1", "a/w1", "a/w2", "b/w2")


async def test_members_come_and_go(related_world) -> None:
    async with related_world("a", "b", workers="b/w[1-3]", deputy="b/w1") as w:
        boss = await w.role("a/boss", Plain)
        await w.role("b/w1", Worker)
        before = boss.workers
        await w.role("b/w3", Worker)
        assert before.ids == ("b/w1",), "a group is the members at its moment"
        assert boss.workers.ids == ("b/w1", "b/w3")
        await w.instance("b/w1").stop()
        assert boss.workers.ids == ("b/w3",)
        await w.role("b/w1", Worker)
        assert boss.workers.ids == ("b/w1", "b/w3")
        assert await boss.deputy.name() == "b/w1"


async def test_a_role_relationship_is_stronger_than_its_nodes(related_world) -> None:
    own = {"boss": {"workers": Target(("b/w2",))}}
    async with related_world("a", "b", own=own, workers="b/w*") as w:
        for name in ("b/w1", "b/w2"):
            await w.role(name, Worker)
        boss, other = await w.role("a/boss", Plain), await w.role("a/other", Plain)
        assert (boss.workers.ids, other.workers.ids) == (("b/w2",), ("b/w1", "b/w2"))


async def test_two_attributes_may_see_the_same_members(related_world) -> None:
    async with related_world(workers="a/w*") as w:
        await w.role("a/w1", Worker)
        boss = await w.role("a/boss", Boss)
        assert boss.same.ids == boss.workers.ids == ("a/w1",)


async def test_the_role_of_the_same_name_on_the_node_is_implied(related_world) -> None:
    async with related_world("a", "b", workers="*/w*") as w:
        boss, other = await w.role("a/boss", Boss), await w.role("b/boss", Boss)
        await w.role("a/local", Worker)
        await w.role("b/local", Worker)
        assert await boss.local.name() == "a/local"
        assert await other.local.name() == "b/local"


async def test_the_native_role_is_no_member_of_a_pattern(related_world) -> None:
    async with related_world("a", "b", workers="*/*") as w:
        assert (await w.role("a/boss", Plain)).workers.ids == ("a/boss",)


async def test_a_topology_gives_each_role_its_neighbours(related_world) -> None:
    names = [f"{'ab'[number % 2]}/w{number}" for number in range(6)]
    graph = neighbours("ring", names, seed=1)
    own = {name.partition("/")[2]: {"workers": Target(tuple(graph[name]))} for name in names}
    async with related_world("a", "b", own=own) as w:
        roles = {name: await w.role(name, Plain) for name in names}
        found = {name: list(role.workers) for name, role in roles.items()}
        assert found == graph
        await w.instance(names[0]).stop()
        assert names[0] not in roles[graph[names[0]][0]].workers


# ---------------------------------------------------------------------------------------------- aliases


async def test_an_alias_follows_the_other(related_world) -> None:
    async with related_world(workers=Target(alias="others"), others=Target(alias="all"), all="a/w*") as w:
        boss = await w.role("a/boss", Plain)
        await w.role("a/w1", Worker)
        assert boss.workers.ids == ("a/w1",)


async def test_an_alias_may_name_a_role_of_the_node(related_world) -> None:
    async with related_world(deputy=Target(alias="local")) as w:
        await w.role("a/local", Worker)
        assert await (await w.role("a/boss", Plain)).deputy.name() == "a/local"


@pytest.mark.parametrize("cycle", [{"workers": "workers"}, {"workers": "x", "x": "y", "y": "x"}])
async def test_aliases_that_lead_back_are_an_error(related_world, cycle) -> None:
    async with related_world(**{name: Target(alias=alias) for name, alias in cycle.items()}) as w:
        boss = await w.role("a/boss", Plain)
        with pytest.raises(rc.RelationshipError, match="its alias leads back to itself: workers -> ") as error:
            _ = boss.workers
        assert str(error.value).startswith("a/boss: ")


# ---------------------------------------------------------------------------------------------- to nowhere


async def test_a_relationship_to_nowhere_says_what_there_is(related_world) -> None:
    async with related_world(worker="a/w*", others="a/o*") as w:
        boss = await w.role("a/boss", Plain)
        with pytest.raises(rc.RelationshipError) as error:
            _ = boss.workers
        message = str(error.value)
        assert message.startswith("a/boss: relationship 'workers': it is not configured on node 'a'")
        assert "no role 'workers' is there either" in message
        assert "Did you mean 'worker'?" in message and "configured here: others, worker" in message


async def test_a_handler_of_a_relationship_to_nowhere_fails_the_start(related_world) -> None:
    async with related_world() as w:
        with pytest.raises(rc.RelationshipError, match="'workers': it is not configured"):
            await w.role("a/boss", Boss)


async def test_one_must_be_one(related_world) -> None:
    async with related_world(deputy="a/w*") as w:
        boss = await w.role("a/boss", Plain)
        with pytest.raises(rc.RelationshipError, match=r"'deputy': is declared `one\(\)` but has no member"):
            _ = boss.deputy
        await w.role("a/w1", Worker)
        assert await boss.deputy.name() == "a/w1"
        await w.role("a/w2", Worker)
        with pytest.raises(rc.RelationshipError, match=r"has 2 members \(a/w1, a/w2\).*rc\.many"):
            _ = boss.deputy


@pytest.mark.parametrize("deputy", ["b/w1", "b/w*"])
async def test_one_that_has_ended_is_lost(related_world, deputy) -> None:
    async with related_world("a", "b", deputy=deputy) as w:
        boss = await w.role("a/boss", Plain)
        await w.role("b/w1", Worker)
        await w.instance("b/w1").stop()
        with pytest.raises(rc.RoleLost, match="b/w1 was lost: it has stopped") as error:
            await boss.deputy.name()
        assert error.value.effect == "none"
        await w.role("b/w1", Worker)
        assert await boss.deputy.name() == "b/w1"
        w.nodes["b"].kill()
        with pytest.raises(rc.NodeLost):
            await boss.deputy.name()


async def test_a_member_that_is_none_is_an_error(related_world) -> None:
    async with related_world(workers="a/w*") as w:
        boss = await w.role("a/boss", Plain)
        await w.role("a/w1", Worker)
        for wrong in (
            lambda: boss.workers[rc.RoleId("a/w2")],
            lambda: boss.workers.rank(rc.RoleId("a/w2")),
            lambda: boss.workers.only(["a/w2"]),
        ):
            with pytest.raises(rc.RelationshipError, match="a/boss: relationship 'workers': has no member 'a/w2'"):
                wrong()


# ---------------------------------------------------------------------------------------------- groups


async def test_a_group_is_ordered(related_world) -> None:
    async with related_world(workers="a/w*", deputy="a/w1") as w:
        for number in range(4):
            await w.role(f"a/w{number}", Worker)
        boss = await w.role("a/boss", Plain)
        group = boss.workers
        assert [group.rank(role) for role in group] == [0, 1, 2, 3]
        assert group.at(5).id == "a/w1" and group.at(-1).id == "a/w3"
        assert group.only(["a/w3", "a/w0"]).ids == ("a/w0", "a/w3")
        assert "a/w2" in group and "a/w9" not in group
        assert repr(group) == "Group(workers: a/w0, a/w1, a/w2, a/w3)"


async def test_a_member_of_its_own_group_can_leave_itself_out(related_world) -> None:
    async with related_world(workers="a/*") as w:
        boss = await w.role("a/boss", Plain)
        await w.role("a/w1", Worker)
        assert boss.workers.ids == ("a/boss", "a/w1")
        assert boss.workers.others.ids == ("a/w1",)


async def test_wait_for_members(related_world, settle) -> None:
    async with related_world("a", "b", workers="b/w*") as w, anyio.create_task_group() as tasks:
        boss = await w.role("a/boss", Plain)
        come: list[Any] = []

        async def wait(count: int) -> None:
            come.append((await boss.workers.wait(count)).ids)

        tasks.start_soon(wait, 2)
        tasks.start_soon(wait, 1)
        await settle()
        assert not come
        await w.role("b/w1", Worker)
        await settle()
        assert come == [("b/w1",)]
        await w.instance("b/w1").stop()
        await w.role("b/w2", Worker)
        await settle()
        assert len(come) == 1
        await w.role("b/w3", Worker)
        await settle()
        assert come[1:] == [("b/w2", "b/w3")]
        await wait(2)
        with anyio.move_on_after(0.01):
            await wait(3)
        await w.role("b/w4", Worker)


# ---------------------------------------------------------------------------------------------- joins and leaves


async def test_every_member_joins_once_and_in_order(related_world, settle) -> None:
    async with related_world("a", "b", workers="*/w*") as w:
        for name in ("b/w2", "b/w1"):
            await w.role(name, Worker)
        boss = await w.role("a/boss", Boss)
        await settle()
        assert boss.changes == ["+b/w1", "+b/w2"], "first those that are there at the start"
        await w.role("a/w0", Worker)
        await w.instance("b/w1").stop()
        await w.role("b/w1", Worker)
        w.nodes["b"].kill()
        await settle()
        assert boss.changes[2:4] == ["+a/w0", "-b/w1"]
        assert boss.changes[4:] == ["+b/w1", "-b/w1", "-b/w2"]


async def test_no_leave_overtakes_its_join(related_world, settle) -> None:
    async with related_world(workers="a/w*") as w:
        boss = await w.role("a/boss", Boss)
        boss.pace = anyio.Event()
        await w.role("a/w1", Worker)
        await settle()
        await w.instance("a/w1").stop()
        await settle()
        assert boss.changes == []
        boss.pace.set()
        await settle()
        assert boss.changes == ["+a/w1", "-a/w1"]


async def test_changes_wait_until_the_role_is_ready(related_world, settle) -> None:
    class Slow(Boss):
        async def setup(self) -> None:
            await self.pace.wait()
            self.changes.append("ready")

    async with related_world(workers="a/w*") as w, anyio.create_task_group() as tasks:
        await w.role("a/w1", Worker)
        instance = w.hosted("a/boss", Slow)
        boss: Any = instance.role
        boss.pace = anyio.Event()
        tasks.start_soon(instance.start)
        await settle()
        await w.role("a/w2", Worker)
        await w.instance("a/w1").stop()
        boss.pace.set()
        await settle()
        assert boss.changes == ["ready", "+a/w1", "+a/w2", "-a/w1"]


async def test_a_handler_of_changes_that_raises_hears_the_next(related_world, settle) -> None:
    class Clumsy(Boss):
        async def joined(self, who: rc.RoleId) -> None:
            await super().joined(who)
            raise ValueError(who)

    async with related_world(workers="a/w*") as w:
        boss = await w.role("a/boss", Clumsy)
        await w.role("a/w1", Worker)
        await w.role("a/w2", Worker)
        await settle()
        assert boss.changes == ["+a/w1", "+a/w2"]
        assert [letter.role for letter in w.letters] == ["a/boss", "a/boss"]


async def test_many_that_come_at_once_are_told_in_order(related_world, settle) -> None:
    async with related_world(workers="a/w*") as w:
        boss = await w.role("a/boss", Boss)
        with w.nodes["a"].directory.bulk():
            for number in (3, 1, 2):
                w.hosted(f"a/w{number}", Worker)
        await settle()
        assert boss.changes == ["+a/w1", "+a/w2", "+a/w3"]
        await asyncio.gather(*(w.instance(role).start() for role in boss.workers))


async def test_allow_takes_an_attribute_or_a_configured_name(related_world) -> None:
    class Guarded(rc.Role):
        friends: rc.Group[Plain] = rc.many("workers")

        @rc.service(allow="friends")
        async def by_attribute(self) -> int:
            return 1

        @rc.service(allow="workers")
        async def by_name(self) -> int:
            return 2

        @rc.service(allow="nobody")
        async def closed(self) -> int:
            return 3

    class Caller(rc.Role):
        deputy: Guarded = rc.one()

    async with related_world(workers="a/friend", deputy="a/guarded") as w:
        await w.role("a/guarded", Guarded)
        friend, stranger = await w.role("a/friend", Caller), await w.role("a/stranger", Caller)
        assert (await friend.deputy.by_attribute(), await friend.deputy.by_name()) == (1, 2)
        for call in (stranger.deputy.by_attribute, stranger.deputy.by_name, friend.deputy.closed):
            with pytest.raises(rc.NotAllowed):
                await call()
