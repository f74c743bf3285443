"""The conductor: has the agents of nodes deploy an application, start it and end it; the same wherever they are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import msgspec

from rolecall.core.channels import service
from rolecall.core.context import caller
from rolecall.core.declarations import declarations
from rolecall.core.errors import (
    ApplicationFailed,
    CallerError,
    LifecycleError,
    NodeLost,
    NotAllowed,
    QuorumMissed,
    RemoteError,
    RolecallError,
)
from rolecall.core.groups import Group
from rolecall.core.ids import RoleId
from rolecall.core.records import DEPLOYMENT, Audited, LogLine, Observer
from rolecall.core.relationships import many
from rolecall.core.role import Role
from rolecall.fleet.agent import Agent, Chief, Deployed, Order, Roster
from rolecall.fleet.announcements import Announcements
from rolecall.fleet.course import Course, Ending, failure_of
from rolecall.fleet.deployment import Deployment
from rolecall.fleet.management import Management
from rolecall.fleet.relaying import Parcel
from rolecall.fleet.reports import Logged, Report, Reported, RoleEnded, RoleFailed
from rolecall.fleet.structure import calls
from rolecall.runtime.auditing import facts_of
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.links import Links
from rolecall.wire import decode, encode

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from rolecall.fleet.app import Call
    from rolecall.runtime.instance import RoleInstance

__all__ = ("Conductor", "Plan")

FINISH_S = 30.0
"""How long nodes may take to stop their roles."""
LAST_REPORTS_S = 5.0
PROGRESS_S = 1.0
"""How often the progress of a deployment is told."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What a conductor has to do: an application, also as `portable` made data of it, and when the run began.

    `addresses` are those of nodes that others reach elsewhere than the nodes themselves say.
    """

    deployed: Deployment
    application: dict[str, Any]
    course: Course
    observers: list[Observer]
    began_s: float
    checked: bool = False
    addresses: Mapping[str, str] = {}


class Conductor(Chief):
    """Conducts one run; its node has a link to each node of the application, whose agents are `agents`."""

    agents: Group[Agent] = many()

    def __init__(self, plan: Plan, links: Links) -> None:
        self._plan, self._links = plan, links
        self._app, self._course = plan.deployed.app, plan.course
        self._ending = Ending(returned={}, states={})
        self._present: dict[str, list[RoleId]] = {}
        """The nodes that have the application, with the roles that live there."""
        self._mains: list[RoleId] = []
        self._lost: dict[str, str] = {}
        self._heard: Counter[RoleId] = Counter()
        self._news = anyio.Condition()
        self._working: TaskGroup | None = None
        self._admitting = anyio.Lock()
        self._closing = False
        self._announcements = Announcements(self._announce)

    async def setup(self) -> None:
        host = cast("RoleInstance", self._host)
        host.spawn(self._announcements.flow, f"{self.id}: announcements")
        host.node.auditor = self._audit

    async def teardown(self) -> None:
        self._announcements.close()

    async def conduct(self, joined: Callable[[], Coroutine[Any, Any, None]]) -> Ending:
        """Run the application from the moment that all nodes have joined to its end.

        Raises:
            ApplicationFailed: a node or a role failed; its error is the cause.
            CallerError: the application does not fit together.
        """
        try:
            for phase in (joined, self._deploy, self._bind, self._start, self._work, self._keep_states):
                await self._do(phase)
        finally:
            with anyio.CancelScope(shield=True):
                await self._finish()
        await self._verify()
        return self._ending

    async def _do(self, phase: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do one thing after the other, unless the application fails meanwhile."""
        async with anyio.create_task_group() as tasks:

            async def give_up() -> None:
                await self._course.failed.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(give_up)
            try:
                await phase()
            except Exception as error:
                self._course.end(error)
            tasks.cancel_scope.cancel()
        if self._course.failure is not None:
            raise self._course.failure

    # ------------------------------------------------------------------------------------------ deploying

    async def _deploy(self) -> None:
        """Have all nodes that are there import and host their roles side by side."""
        total, began_s, said_s = len(self.agents), anyio.current_time(), anyio.current_time()
        done = 0
        try:
            async for agent, deployed in self.agents.call(Agent.deploy, self._order()).as_completed():
                self._take_in(agent.home, deployed)
                done += 1
                if anyio.current_time() - said_s >= PROGRESS_S and done < total:
                    said_s = anyio.current_time()
                    self._say("info", DEPLOYMENT, f"{done} of {total} nodes have their roles, {agent.home} the last")
        except QuorumMissed as missed:
            agent, error = next(iter(missed.failures.items()))
            others = f"; what {done} other nodes had is undone" if done else ""
            self._say("info", DEPLOYMENT, f"{agent.home} could not take its roles{others}")
            raise _not_deployed(agent.home, error) from error
        roles = sum(map(len, self._present.values()))
        took_s = anyio.current_time() - began_s
        self._say("info", DEPLOYMENT, f"{total} nodes have their {roles} roles, after {took_s:.2f} s")

    def _order(self) -> Order:
        plan = self._plan
        elapsed_s = anyio.current_time() - plan.began_s
        return Order(application=plan.application, elapsed_s=elapsed_s, checked=plan.checked)

    def _take_in(self, node: str, deployed: Sequence[Deployed]) -> list[RoleId]:
        """Take note of the roles of a node; return those that have a main routine."""
        self._present[node] = [found.role for found in deployed]
        mains = [found.role for found in deployed if found.has_main]
        self._mains += mains
        return mains

    async def _bind(self) -> None:
        """Tell every node who is where."""
        await self.agents.call(Agent.bind, self._roster(self._present))

    def _roster(self, nodes: Iterable[str]) -> Roster:
        roles = {node: [RoleId.of(node, NATIVE), *self._present[node]] for node in nodes}
        return Roster(roles, {**self._links.contacts, **self._plan.addresses})

    async def _start(self) -> None:
        """Have all roles set up side by side; return when they are ready and hear each other."""
        failed = await self._set_up([role for roles in self._present.values() for role in roles])
        for role, error in failed:
            if role.home not in self._lost:
                self._course.not_set_up(role, error)
        gone = {role for role, _ in failed}
        self._mains = [role for role in self._mains if role not in gone]

    async def _set_up(self, roles: Iterable[RoleId]) -> list[tuple[RoleId, Exception]]:
        """Have roles set up side by side; return those that could not be."""
        failed: list[tuple[RoleId, Exception]] = []

        async def start(role: RoleId) -> None:
            try:
                await self._agent(role.home).set_up(role)
            except Exception as error:
                failed.append((role, error))

        async with anyio.create_task_group() as tasks:
            for role in list(roles):
                tasks.start_soon(start, role)
        return failed

    # ------------------------------------------------------------------------------------------ joining

    def joined(self, node: str) -> None:
        """Take note that there is a link to a node; one that comes while others work gets its roles now."""
        self._lost.pop(node, None)
        self._audit("join", who=node)
        self._links.network.bind(RoleId.of(node, NATIVE), node)
        if self._working is not None and not self._closing:
            self._working.start_soon(self._admit, node)

    async def all_joined(self, nodes: Sequence[str]) -> None:
        """Wait until there is a link to each of some nodes."""
        while missing := [node for node in nodes if RoleId.of(node, NATIVE) not in self.agents]:
            await self.agents.wait(len(self.agents) + len(missing))

    def management(self, join: Callable[[str], Coroutine[Any, Any, None]] | None) -> Management:
        """Return what manages the nodes there are; `join` starts one that comes later."""
        plan = self._plan
        return Management(
            lambda: self._app.name,
            lambda: [agent.home for agent in self.agents],
            lambda name: self.agents[RoleId.of(name, NATIVE)],
            observers=plan.observers,
            stop=self._course.stop,
            join=join,
            audit=self._audit,
        )

    async def admitted(self, node: str) -> None:
        """Wait until a node that has joined has its roles, or could not take them."""
        async with self._admitting:
            pass

    async def _admit(self, node: str) -> None:
        """Have a node take its place among those at work; what it cannot do does not end the run."""
        async with self._admitting:
            if node in self._present:
                return
            try:
                mains = self._take_in(node, await self._agent(node).deploy(self._order()))
                await self._announcements.add("bind", self._roster([node]))
                await self._agent(node).bind(self._roster(self._present))
                for role, error in await self._set_up(self._present[node]):
                    raise failure_of(role, "setup", error)
            except Exception as error:
                await self._send_off(node, error)
                return
        self._say("info", node, f"has joined: {', '.join(role.name for role in self._present[node]) or 'no role'}")
        self._course.more(len(mains))
        for role in mains:
            await self._routine(role, "main", partial(self._main, role))

    async def _send_off(self, node: str, error: Exception) -> None:
        """Give up a node that could not join."""
        self._say("error", node, f"could not join: {error}")
        for role in self._present.pop(node, []):
            self._tell("lose_role", role, "its node could not join")
        if node not in self._lost:
            try:
                await self._agent(node).finish()
            except RolecallError as problem:
                self._say("warning", node, f"could not undo what it had begun: {problem}")

    # ------------------------------------------------------------------------------------------ work

    async def _work(self) -> None:
        """Start what is to be started and wait for the end the application asks for."""
        started = calls(self._app)
        self._course.begin(len(started) + len(self._mains))
        async with anyio.create_task_group() as tasks:
            self._working = tasks
            for node in [agent.home for agent in self.agents if agent.home not in self._present]:
                tasks.start_soon(self._admit, node)  # it came while the others were being deployed
            for number, call in enumerate(started):
                tasks.start_soon(self._routine, RoleId(call.role), call.channel, partial(self._call, number, call))
            for role in list(self._mains):
                tasks.start_soon(self._routine, role, "main", partial(self._main, role))
            await self._course.over()
            self._working = None
            if self._course.stopped:
                await self._drain()
            tasks.cancel_scope.cancel()

    async def _routine(self, role: RoleId, phase: str, run: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have a routine run, and judge how it ends; a node that is lost has been judged."""
        try:
            await run()
        except RolecallError as error:
            if role.home not in self._lost and not (phase != "main" and self._course.stop.is_set()):
                self._course.fail(role, phase, error)
        except Exception as error:
            self._course.fail(role, phase, error)
        finally:
            self._course.routine_ended()

    async def _main(self, role: RoleId) -> None:
        await self._agent(role.home).run_main(role)

    async def _call(self, number: int, call: Call) -> None:
        role = RoleId(call.role)
        result = await self._agent(role.home).call_started(number)
        declared = declarations(self._role_class(role))
        hint = declared.channels[call.channel].signature(declared.role_class).result
        self._ending.returned[call.call] = _as(result, hint, call.call)

    async def _drain(self) -> None:
        self._ending.status = "stopped"
        await self.agents.call(Agent.drain)
        await self._course.drained()

    async def _keep_states(self) -> None:
        found: dict[RoleId, Any] = {}
        for states in (await self.agents.call(Agent.states)).values():
            found.update(states)
        for node, roles in self._app.roles.items():
            for name in roles:
                role = RoleId.of(node, name)
                state = declarations(self._role_class(role)).state
                if state is not None and role in found:
                    self._ending.states[role] = _as(found.pop(role), state.type, f"{role}: state")
        self._ending.states.update(
            {str(role): state for role, state in found.items()}
        )  # of roles that were assigned: their classes are the nodes' own

    # ------------------------------------------------------------------------------------------ the end

    async def _finish(self) -> None:
        """Have all roles stopped; return when the nodes have reported all that happened."""
        self._closing, self._working = True, None
        if not self.agents:
            return
        sent: dict[RoleId, int] = {}
        try:
            sent.update(await self.agents.within(deadline_s=FINISH_S).call(Agent.finish))
        except QuorumMissed:
            pass  # those who have not answered are named below
        for agent in self.agents:
            if agent not in sent:
                self._say("warning", agent.home, "has not stopped its roles in time, and is ended")
        with anyio.move_on_after(LAST_REPORTS_S):
            for agent, count in sent.items():
                await self._caught_up(agent, count)

    async def _caught_up(self, agent: RoleId, count: int) -> None:
        """Wait until a node has been heard as often as that."""
        async with self._news:
            while self._heard[agent] < count and agent.home not in self._lost:
                await self._news.wait()

    async def _verify(self) -> None:
        if self._plan.checked:
            for agent in self.agents:
                await self.agents[agent].verify()

    # ------------------------------------------------------------------------------------------ what happens

    def lose(self, node: str, why: str) -> None:
        """Take a node for lost: tell the others, and judge what that means to the application."""
        self._links.part(node, why)
        if self._closing or node in self._lost:
            return
        self._lost[node] = why
        self._audit("leave", who=node, why=why)
        self._present.pop(node, None)
        self._tell("lose_node", node, why)
        if self._course.tolerates_node(node):
            self._say("error", node, f"the node is lost: {why}")
        else:
            self._course.end(failure_of(f"node {node}", "the run", NodeLost(f"{node}/{NATIVE}", why, "unknown")))

    @agents.on(Agent.reported, capacity=1024)
    async def heard(self, agent: RoleId, report: Report) -> None:
        """Pass on what a node reports."""
        for record in report.records:
            self._take(agent.home, record)
        self._heard[agent] += len(report.records)
        async with self._news:
            self._news.notify_all()

    @service(allow="agents", concurrent=True)
    async def announce(self, role: RoleId, heard: int) -> None:
        home = caller().home
        if role.home != home:
            raise NotAllowed(caller(), f"{self.id}.announce of {role}", "roles of that node")
        await self._caught_up(caller(), heard)  # a former life of the role has ended before this one begins
        self._present.setdefault(home, []).append(role)
        await self._announcements.add("bind", Roster({home: [role]}, {}))

    @service(allow="agents", concurrent=True)
    async def introduce(self, node: str) -> None:
        asker = caller().home
        address = self._links.contacts.get(asker)
        if address is None:
            raise LifecycleError(f"node {asker!r} listens nowhere, so {node!r} cannot dial it.")
        await self._agent(node).dial(asker, address)

    @service(allow="agents", concurrent=True)
    async def relay(self, node: str, parcels: list[Parcel]) -> None:
        # Nothing is awaited before the call is made: so parcels stay in order.
        await self._agent(node).relayed(caller().home, parcels)

    def _take(self, node: str, record: Reported) -> None:
        if isinstance(record, RoleEnded):
            if record.role in self._present.get(node, ()):
                self._present[node].remove(record.role)
            if not self._closing:
                self._tell("lose_role", record.role, record.why)
        elif isinstance(record, RoleFailed):
            error = RemoteError(record.kind, record.message, f"{record.role}.main")
            self._course.fail(record.role, "main", error, record.policy)
        elif isinstance(record, Logged):
            _log(node, record)
        else:
            for observer in self._plan.observers:
                observer(record)

    def _tell(self, channel: str, *what: Any) -> None:
        """Have all agents know something, soon."""
        if not self._closing:
            _ = self._announcements.add(channel, *what)

    async def _announce(self, channel: str, what: tuple[Any, ...]) -> None:
        try:
            await self.agents.call(getattr(Agent, channel), *what)
        except RolecallError as error:
            if not self._closing:
                self._say("warning", self.id, f"not every node could be told ({channel} {what[0]}): {error}")

    def _say(self, level: str, source: str, text: str) -> None:
        for observer in self._plan.observers:
            observer(LogLine(anyio.current_time() - self._plan.began_s, level, source, text))

    # ------------------------------------------------------------------------------------------ inside

    def _audit(self, event: str, **what: Any) -> None:
        record = Audited(anyio.current_time() - self._plan.began_s, self.id.home, event, facts_of(what))
        for observer in self._plan.observers:
            observer(record)

    def _agent(self, node: str) -> Agent:
        role = RoleId(f"{node}/{NATIVE}")
        if node in self._lost:
            raise NodeLost(role, self._lost[node], "none")
        return self.agents[role]

    def _role_class(self, role: RoleId) -> type[Role]:
        found = (h.role_class for h in self._plan.deployed.hostings.get(role.home, ()) if h.id == role)
        return next(found, Agent)


def _not_deployed(node: str, error: BaseException) -> Exception:
    """Return what to raise when a node could not deploy: what the user configured wrongly keeps its type."""
    if isinstance(error, CallerError):
        return error.rebuilt(f"node {node}: {error}", error.facts)
    return ApplicationFailed(f"node {node}", "deployment", error)


def _as(value: Any, hint: Any, where: str) -> Any:
    """Return a value that came without its type as one of the declared type; arrays are not copied."""
    return decode(encode(value, where=where), hint, where=where)


def _log(node: str, logged: Logged) -> None:
    """Log what was logged on a node, as if it had been here."""
    logger = logging.getLogger(logged.logger)
    if logger.isEnabledFor(logged.level):
        text = logged.text if logged.logger.startswith(("rolecall.node", "rolecall.role")) else f"{node}: {logged.text}"
        logger.handle(logger.makeRecord(logged.logger, logged.level, node, 0, "%s", (text,), None))
