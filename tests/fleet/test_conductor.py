"""The conductor and its agents, all in one process: deployment, the barrier before the start, losses, the end."""

from __future__ import annotations

import importlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from anyio.abc import TaskGroup

import rolecall as rc
from rolecall.core.errors import ApplicationFailed, ConfigError, NodeLost
from rolecall.core.records import LogLine, Metric, Record, StatusChange
from rolecall.fleet import conductor as conductor_module
from rolecall.fleet import crew
from rolecall.fleet.agent import Agent, Order
from rolecall.fleet.conductor import Conductor
from rolecall.fleet.course import Course, Ending
from rolecall.fleet.deployment import Deployment, deployment
from rolecall.fleet.node_process import NodeConfig, joined
from rolecall.fleet.plan import Plan
from rolecall.fleet.portable import ImportPolicy, portable
from rolecall.fleet.structure import first_nodes
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.instance import Hosting
from rolecall.runtime.links import Links
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.relations import Target
from rolecall.wire.exchange import ExchangeLimits

SECRET = b"a secret of 32 bytes for a test."
ROLE = rc.RoleId("conductor/conductor")
POLICY = ImportPolicy(("rolecall", "conducted_roles"))
NODES = ("a", "b", "c")


@pytest.fixture
def roles(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Return the module of the roles, as nodes import it."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    module = importlib.import_module("conducted_roles")
    module.SEEN.clear()
    module.GATE[:] = [anyio.Event()]
    return module


def app(
    does: Mapping[str, str] = {},
    *,
    start: Any = "a/part.run",
    on_failure: Any = "fail",
    names: Sequence[str] = NODES,
    later: Sequence[str] = (),
    **more: Any,
) -> rc.App:
    """Return an application of equal parts, each on a node."""
    return rc.App(
        name="parts",
        nodes={name: rc.Node(join="later" if name in later else "start") for name in (*names, *later)},
        roles={
            name: {"part": rc.RoleSpec("conducted_roles:Part", options={"does": does.get(name, "")})}
            for name in (*names, *later)
        },
        relationships={"*": {"parts": "*/part"}},
        start=start,
        on_failure=on_failure,
        seed=1,
        **more,
    ).expanded()


class Fleet:
    """A conductor and its nodes, each with links of its own."""

    def __init__(self, made: rc.App, node: Node, links: Links, tasks: TaskGroup) -> None:
        self.node, self.links, self._tasks = node, links, tasks
        self.over = anyio.Event()
        self.first = first_nodes(made)
        self.records: list[Record] = []
        self.stop = anyio.Event()
        self.course = Course(made, self._say, self.stop)
        self.nodes: dict[str, Node] = {}
        self.application = portable(made)
        plan = Plan(
            deployed=deployment(made),
            application=self.application,
            course=self.course,
            observers=[self.records.append],
            began_s=anyio.current_time(),
        )
        self.hosting = Hosting(id=ROLE, role_class=Conductor, options={"plan": plan, "links": links})

    def _say(self, level: str, source: str, text: str) -> None:
        self.records.append(LogLine(0.0, level, source, text))

    async def begin(self, policies: Mapping[str, ImportPolicy]) -> Conductor:
        """Open the nodes and have them join."""
        instance = self.node.host(self.hosting)
        await instance.start()
        self.conductor = cast(Conductor, instance.role)
        self.address = await self.links.exchange.listen()
        for name in self.first:
            await self.join(name, policies.get(name, POLICY))
        return self.conductor

    async def join(self, name: str, policy: ImportPolicy = POLICY) -> None:
        """Open a node and have it join."""
        config = NodeConfig(
            name=name, secret=SECRET, conductor=ROLE, address=self.address, policy=policy, limits=ExchangeLimits()
        )
        opened = anyio.Event()

        async def keep() -> None:  # in a task of its own, so that the scopes of nodes do not nest
            async with joined(config) as (self.nodes[name], _):
                opened.set()
                await self.over.wait()

        self._tasks.start_soon(keep)
        await opened.wait()

    async def all_there(self) -> None:
        await self.conductor.all_joined(self.first)

    async def conduct(self) -> Ending:
        """Run the application."""
        return await self.conductor.conduct(self.all_there)

    def hosted(self) -> dict[str, list[str]]:
        """Return the roles on each node, without the node's own."""
        return {name: [i.id.name for i in node.instances if i is not node.native] for name, node in self.nodes.items()}

    @property
    def lines(self) -> list[str]:
        return [f"{r.level} {r.source}: {r.text}" for r in self.records if isinstance(r, LogLine)]


@asynccontextmanager
async def fleet(made: rc.App, policies: Mapping[str, ImportPolicy] = {}) -> AsyncIterator[Fleet]:
    agents = Target(tuple(f"{name}/{NATIVE}" for name in made.nodes))
    options = NodeOptions(role_relationships={ROLE.name: {"agents": agents}})

    def bind(peer: str) -> None:
        made_fleet.conductor.joined(peer)

    async with Node(ROLE.home, options=options) as node:
        async with Links(node, secret=SECRET, on_joined=bind) as links, anyio.create_task_group() as tasks:
            made_fleet = Fleet(made, node, links, tasks)
            await made_fleet.begin(policies)
            try:
                yield made_fleet
            finally:
                made_fleet.over.set()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that nobody tells of."""
    with anyio.fail_after(5):
        while not condition():  # noqa: ASYNC110
            await anyio.sleep(0.01)


# ---------------------------------------------------------------------------------------------- a run


async def test_a_run(roles: Any) -> None:
    start = [rc.Call("a/part.run", {"text": "one"}), "b/part.run"]
    async with fleet(app(start=start)) as f:
        ending = await f.conduct()
        assert ending.status == "ok"
        assert ending.returned == {"a/part.run": roles.Word("one"), "b/part.run": roles.Word("hello")}
        said = {"a/part": roles.Word("one"), "b/part": roles.Word("hello"), "c/part": roles.Word("")}
        assert ending.states == said
        assert f.hosted() == {name: [] for name in NODES}
        assert len([r for r in f.records if isinstance(r, Metric) and "torn_down" in r.values]) == 3
        stopped = {r.role for r in f.records if isinstance(r, StatusChange) and r.status == "stopped"}
        assert stopped == {"a/part", "b/part", "c/part"}


async def test_nothing_starts_before_all_are_ready_and_hear_each_other(roles: Any) -> None:
    async with fleet(app({"c": "wait in setup"})) as f, anyio.create_task_group() as tasks:
        tasks.start_soon(f.conduct)
        await until(lambda: len(roles.SEEN) == 3)
        await anyio.sleep(0.1)
        assert sorted(roles.SEEN) == ["a/part is set up", "b/part is set up", "c/part is set up"]
        roles.GATE[0].set()
    heard = sorted(seen for seen in roles.SEEN if "heard" in seen)
    assert heard == [f"{name}/part heard a/part: hello" for name in NODES]


async def test_it_can_be_told_to_stop_and_what_is_not_resumable_is_given_up(
    roles: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rolecall.fleet.course.DRAIN_S", 0.1)
    async with fleet(app({"a": "wait"})) as f, anyio.create_task_group() as tasks:
        endings: list[Ending] = []

        async def run() -> None:
            endings.append(await f.conduct())

        tasks.start_soon(run)
        await until(lambda: "a/part runs" in roles.SEEN)
        f.stop.set()
    assert [(ending.status, ending.returned) for ending in endings] == [("stopped", {})]


# ---------------------------------------------------------------------------------------------- deployment


@pytest.mark.parametrize("why", ["refused", "cannot be made"])
async def test_a_deployment_that_fails_on_one_node_is_rolled_back(roles: Any, why: str) -> None:
    does = {"b": "fail to be made"} if why == "cannot be made" else {}
    policies = {"b": ImportPolicy(("other",))} if why == "refused" else {}
    async with fleet(app(does), policies) as f:
        with pytest.raises(ConfigError) as raised:
            await f.conduct()
        says = {
            "refused": "node b: app 'parts': roles.b.part.class: node 'b' does not import 'conducted_roles:Part', "
            "only other and what is in them. Whoever starts the node decides that.",
            "cannot be made": "node b: b/part: its options do not fit Part: it takes no such option.",
        }
        assert str(raised.value) == says[why]
        assert isinstance(raised.value.__cause__, ConfigError)
        assert f.hosted() == {name: [] for name in NODES}
        assert roles.SEEN == []


async def test_a_deployment_is_rolled_back_while_it_is_under_way(roles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()

    def slow(made: rc.App, nodes: Sequence[str]) -> Deployment:
        if nodes == ("c",):
            gate.wait(5)
        return deployment(made, nodes)

    monkeypatch.setattr("rolecall.fleet.agent.deployment", slow)
    async with fleet(app({"b": "fail to be made"})) as f, anyio.create_task_group() as tasks:

        async def finish_deploying() -> None:
            await until(lambda: f.conductor._closing)
            await anyio.sleep(0.05)
            gate.set()

        tasks.start_soon(finish_deploying)
        with pytest.raises(ConfigError, match="node b: b/part"):
            await f.conduct()
        assert f.hosted() == {name: [] for name in NODES}


async def test_a_deployment_whose_fifth_node_fails_is_rolled_back_on_the_other_five(roles: Any) -> None:
    names = [f"n{number}" for number in range(1, 7)]
    async with fleet(app({"n5": "fail to be made"}, names=names, start="n1/part.run")) as f:
        with pytest.raises(ConfigError, match=r"node n5: n5/part: its options do not fit Part"):
            await f.conduct()
        assert f.hosted() == {name: [] for name in names}
        assert roles.SEEN == []
        assert all(cast(Any, node.native.role)._app is None for node in f.nodes.values())  # they take the next one
        said = [line for line in f.lines if line.startswith("info deployment")]
        assert len(said) == 1 and "n5 could not take its roles" in said[0]


async def test_the_progress_of_a_deployment_is_told(roles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "PROGRESS_S", 0.0)
    async with fleet(app()) as f:
        await f.conduct()
    one, two, done = [line for line in f.lines if line.startswith("info deployment")]
    assert one.startswith("info deployment: 1 of 3 nodes have their roles, ") and one.endswith(" the last")
    assert two.startswith("info deployment: 2 of 3 nodes have their roles, ")
    assert done.startswith("info deployment: 3 nodes have their 3 roles, after 0.")


async def test_a_node_serves_one_application_at_a_time(roles: Any) -> None:
    async with fleet(app()) as f:
        await f.conduct()
        again = await f.conductor.agents.call(Agent.deploy, Order(application=f.application))
        assert [[deployed.role for deployed in roles] for roles in again.values()] == [[f"{n}/part"] for n in NODES]
        with pytest.raises(rc.QuorumMissed, match=r"node '.' has the application 'parts' already"):
            await f.conductor.agents.call(Agent.deploy, Order(application=f.application))
        await f.conductor.agents.call(Agent.finish)


# ---------------------------------------------------------------------------------------------- losses


async def test_a_node_that_is_lost_fails_the_application(roles: Any) -> None:
    async with fleet(app({"a": "wait"})) as f, anyio.create_task_group() as tasks:

        async def lose() -> None:
            await until(lambda: "a/part runs" in roles.SEEN)
            f.conductor.lose("b", "it was switched off")
            f.conductor.lose("b", "which is known")

        tasks.start_soon(lose)
        with pytest.raises(ApplicationFailed, match=r"node b failed in the run: NodeLost: .* it was switched off") as e:
            await f.conduct()
        assert isinstance(e.value.__cause__, NodeLost)


async def test_the_others_learn_of_a_node_that_is_lost_and_not_missed(roles: Any) -> None:
    async with fleet(app({"a": "wait"}, on_failure="continue")) as f, anyio.create_task_group() as tasks:

        async def lose() -> None:
            await until(lambda: "a/part runs" in roles.SEEN)
            f.conductor.lose("b", "it was switched off")
            await until(lambda: not any("b/part" in f.nodes[name].directory.roles for name in ("a", "c")))
            roles.GATE[0].set()

        tasks.start_soon(lose)
        ending = await f.conduct()
        assert ending.returned == {"a/part.run": roles.Word("hello")}
        assert set(ending.states) == {"a/part", "c/part"}
        assert "error b: the node is lost: it was switched off" in f.lines


async def test_the_others_learn_of_a_role_that_has_ended(roles: Any) -> None:
    async with fleet(app({"a": "wait"}, on_failure="continue")) as f, anyio.create_task_group() as tasks:

        async def end() -> None:
            await until(lambda: "a/part runs" in roles.SEEN)
            await f.nodes["b"].instances[-1].fail("it broke")
            part = f.nodes["a"].instances[-1].role
            await until(lambda: list(part.parts) == ["a/part", "c/part"])
            roles.GATE[0].set()

        tasks.start_soon(end)
        await f.conduct()


async def test_a_node_that_does_not_end_is_named(roles: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conductor_module, "FINISH_S", 0.2)
    monkeypatch.setattr("rolecall.runtime.life.TEARDOWN_S", 1.0)
    async with fleet(app({"b": "wait in teardown"})) as f:
        ending = await f.conduct()
        assert ending.status == "ok"
        assert "warning b: has not stopped its roles in time, and is ended" in f.lines


# ---------------------------------------------------------------------------------------------- joining


@asynccontextmanager
async def at_work(f: Fleet, roles: Any) -> AsyncIterator[list[Ending]]:
    """Have a fleet's run wait in its start call until the block is left; then the ending is in the list."""
    endings: list[Ending] = []

    async def run() -> None:
        endings.append(await f.conduct())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await until(lambda: "a/part runs" in roles.SEEN)
        yield endings
        roles.GATE[0].set()


def parts(f: Fleet, name: str) -> list[str]:
    return list(cast(Any, f.nodes[name].instances[-1].role).parts)


async def test_a_node_that_comes_later_gets_its_roles_and_is_known(roles: Any) -> None:
    async with fleet(app({"a": "wait"}, later=["d"])) as f:
        async with at_work(f, roles) as endings:
            assert parts(f, "a") == ["a/part", "b/part", "c/part"]
            await f.join("d")
            await until(lambda: "info d: has joined: part" in f.lines)
            assert all(parts(f, name) == ["a/part", "b/part", "c/part", "d/part"] for name in "abcd")
            part = cast(Any, f.nodes["b"].instances[-1].role)
            assert await part.parts[rc.RoleId("d/part")].members() == parts(f, "d")
        assert set(endings[0].states) == {"a/part", "b/part", "c/part", "d/part"}
        assert f.hosted() == {name: [] for name in "abcd"}
        assert "d/part heard a/part: hello" not in roles.SEEN  # that was before


async def test_one_that_is_there_in_time_starts_with_the_others(roles: Any) -> None:
    async with fleet(app(later=["d"])) as f:
        await f.join("d")
        await f.conductor.all_joined(["d"])
        await f.conduct()
        assert "d/part heard a/part: hello" in roles.SEEN


@pytest.mark.parametrize("why", ["refused", "cannot be made"])
async def test_one_that_cannot_take_its_roles_is_no_reason_to_end(roles: Any, why: str) -> None:
    does = {"a": "wait"} | ({"d": "fail to be made"} if why == "cannot be made" else {})
    async with fleet(app(does, later=["d"])) as f:
        async with at_work(f, roles) as endings:
            await f.join("d", ImportPolicy(("other",)) if why == "refused" else POLICY)
            await until(lambda: any(line.startswith("error d: could not join: ") for line in f.lines))
            assert parts(f, "a") == ["a/part", "b/part", "c/part"]
        assert endings[0].status == "ok"


async def test_a_node_that_was_lost_comes_back_as_a_new_incarnation(roles: Any) -> None:
    async with fleet(app({"a": "wait"}, on_failure="continue")) as f:
        async with at_work(f, roles) as endings:
            former = f.nodes["b"].incarnation
            f.conductor.lose("b", "it was switched off")
            await until(lambda: parts(f, "a") == ["a/part", "c/part"])
            await f.join("b")
            await until(lambda: "info b: has joined: part" in f.lines)
            assert f.nodes["b"].incarnation != former
            assert parts(f, "a") == parts(f, "b") == ["a/part", "b/part", "c/part"]
        assert set(endings[0].states) == {"a/part", "b/part", "c/part"}


# ---------------------------------------------------------------------------------------------- agents


async def test_only_the_conductor_may_conduct(roles: Any) -> None:
    class Stranger(rc.Role):
        agents: rc.Group[Agent] = rc.many()

    async with fleet(app()) as f:
        await f.all_there()
        stranger = f.node.host(Hosting(id=rc.RoleId("conductor/stranger"), role_class=Stranger))
        targets = {**f.node.options.role_relationships, "stranger": {"agents": Target(("a/node",))}}
        f.node.configure(NodeOptions(role_relationships=targets))
        await stranger.start()
        order = Order(application=f.application)
        with pytest.raises(rc.QuorumMissed, match=r"conductor/stranger \(through node conductor\) may not call a/node"):
            await stranger.role.agents.call(Agent.deploy, order)
        f.nodes["a"].network.bind(stranger.id, "conductor")  # known, and still not the manager
        with pytest.raises(rc.QuorumMissed, match="open only to the members of the relationship 'manager'"):
            await stranger.role.agents.call(Agent.deploy, order)


async def test_a_record_that_cannot_travel_holds_up_no_other(roles: Any) -> None:
    async with fleet(app({"a": "wait"})) as f, anyio.create_task_group() as tasks:

        async def log() -> None:
            await until(lambda: "a/part runs" in roles.SEEN)
            await f.nodes["b"].instances[-1].role.log_nonsense()
            roles.GATE[0].set()

        tasks.start_soon(log)
        await f.conduct()
    assert [r.values["fine"] for r in f.records if isinstance(r, Metric) and "fine" in r.values] == [1, 2]
    assert any("a record cannot be reported" in line and "nonsense" in line for line in f.lines)
