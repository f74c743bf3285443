"""The conductor: has the agents of nodes deploy an application, start it and end it; the same wherever they are."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio

from rolecall.core.channels import service
from rolecall.core.context import caller
from rolecall.core.declarations import declarations
from rolecall.core.errors import (
    LifecycleError,
    NodeLost,
    NotAllowed,
    QuorumMissed,
    RemoteError,
    RolecallError,
)
from rolecall.core.groups import Group
from rolecall.core.ids import RoleId
from rolecall.core.records import Audited
from rolecall.core.relationships import many
from rolecall.core.role import Role
from rolecall.fleet.agent import Agent, Chief, Roster
from rolecall.fleet.announcements import Announcements
from rolecall.fleet.course import Ending, failure_of
from rolecall.fleet.crew import Crew
from rolecall.fleet.management import Management
from rolecall.fleet.plan import Plan
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

__all__ = ("Conductor",)

FINISH_S = 30.0
"""How long nodes may take to stop their roles."""
LAST_REPORTS_S = 5.0


class Conductor(Chief):
    """Conducts one run; its node has a link to each node of the application, whose agents are `agents`."""

    agents: Group[Agent] = many()

    def __init__(self, plan: Plan, links: Links) -> None:
        self._plan, self._links = plan, links
        self._app, self._course = plan.deployed.app, plan.course
        self._ending = Ending(returned={}, states={})
        self._heard: Counter[RoleId] = Counter()
        self._news = anyio.Condition()
        self._working: TaskGroup | None = None
        self._admitting = anyio.Lock()
        self._closing = False
        self._announcements = Announcements(self._announce)

    async def setup(self) -> None:
        host = cast("RoleInstance", self._host)
        self._crew = Crew(self._plan, self._links, lambda: self.agents)
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
        crew = self._crew
        try:
            for phase in (joined, crew.deploy, crew.bind, crew.set_up, self._work, self._keep_states):
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

    # ------------------------------------------------------------------------------------------ joining

    def joined(self, node: str) -> None:
        """Take note that there is a link to a node; one that comes while others work gets its roles now."""
        self._crew.lost.pop(node, None)
        self._audit("join", who=node)
        self._links.network.bind(RoleId.of(node, NATIVE), node)
        if self._working is not None and not self._closing:
            self._working.start_soon(self._admit, node)

    async def all_joined(self, nodes: Sequence[str]) -> None:
        """Wait until there is a link to each of some nodes."""
        await self._crew.all_joined(nodes)

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
            if node in self._crew.present:
                return
            try:
                mains = await self._crew.admit(node, self._know)
            except Exception as error:
                for role in await self._crew.send_off(node, error):
                    self._tell("lose_role", role, "its node could not join")
                return
        self._course.more(len(mains))
        for role in mains:
            await self._routine(role, "main", partial(self._main, role))

    async def _know(self, roster: Roster) -> None:
        """Have all nodes know who is where; returns when they do."""
        await self._announcements.add("bind", roster)

    # ------------------------------------------------------------------------------------------ work

    async def _work(self) -> None:
        """Start what is to be started and wait for the end the application asks for."""
        started = calls(self._app)
        self._course.begin(len(started) + len(self._crew.mains))
        async with anyio.create_task_group() as tasks:
            self._working = tasks
            for node in [agent.home for agent in self.agents if agent.home not in self._crew.present]:
                tasks.start_soon(self._admit, node)  # it came while the others were being deployed
            for number, call in enumerate(started):
                tasks.start_soon(self._routine, RoleId(call.role), call.channel, partial(self._call, number, call))
            for role in list(self._crew.mains):
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
            if role.home not in self._crew.lost and not (phase != "main" and self._course.stop.is_set()):
                self._course.fail(role, phase, error)
        except Exception as error:
            self._course.fail(role, phase, error)
        finally:
            self._course.routine_ended()

    async def _main(self, role: RoleId) -> None:
        await self._crew.agent(role.home).run_main(role)

    async def _call(self, number: int, call: Call) -> None:
        role = RoleId(call.role)
        result = await self._crew.agent(role.home).call_started(number)
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
                self._plan.say("warning", agent.home, "has not stopped its roles in time, and is ended")
        with anyio.move_on_after(LAST_REPORTS_S):
            for agent, count in sent.items():
                await self._caught_up(agent, count)

    async def _caught_up(self, agent: RoleId, count: int) -> None:
        """Wait until a node has been heard as often as that."""
        async with self._news:
            while self._heard[agent] < count and agent.home not in self._crew.lost:
                await self._news.wait()

    async def _verify(self) -> None:
        if self._plan.checked:
            for agent in self.agents:
                await self.agents[agent].verify()

    # ------------------------------------------------------------------------------------------ what happens

    def lose(self, node: str, why: str) -> None:
        """Take a node for lost: tell the others, and judge what that means to the application."""
        self._links.part(node, why)
        if self._closing or node in self._crew.lost:
            return
        self._crew.lose(node, why)
        self._audit("leave", who=node, why=why)
        self._tell("lose_node", node, why)
        if self._course.tolerates_node(node):
            self._plan.say("error", node, f"the node is lost: {why}")
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
        self._crew.present.setdefault(home, []).append(role)
        await self._announcements.add("bind", Roster({home: [role]}, {}))

    @service(allow="agents", concurrent=True)
    async def introduce(self, node: str) -> None:
        asker = caller().home
        address = self._links.contacts.get(asker)
        if address is None:
            raise LifecycleError(f"node {asker!r} listens nowhere, so {node!r} cannot dial it.")
        await self._crew.agent(node).dial(asker, address)

    @service(allow="agents", concurrent=True)
    async def relay(self, node: str, parcels: list[Parcel]) -> None:
        # Nothing is awaited before the call is made: so parcels stay in order.
        await self._crew.agent(node).relayed(caller().home, parcels)

    def _take(self, node: str, record: Reported) -> None:
        if isinstance(record, RoleEnded):
            if record.role in self._crew.present.get(node, ()):
                self._crew.present[node].remove(record.role)
            if not self._closing:
                self._tell("lose_role", record.role, record.why)
        elif isinstance(record, RoleFailed):
            error = RemoteError(record.kind, record.message, f"{record.role}.main")
            self._course.fail(record.role, "main", error, record.policy)
        elif isinstance(record, Logged):
            _log(node, record)
        else:
            self._plan.observe(record)

    def _tell(self, channel: str, *what: Any) -> None:
        """Have all agents know something, soon."""
        if not self._closing:
            _ = self._announcements.add(channel, *what)

    async def _announce(self, channel: str, what: tuple[Any, ...]) -> None:
        try:
            await self.agents.call(getattr(Agent, channel), *what)
        except RolecallError as error:
            if not self._closing:
                self._plan.say("warning", self.id, f"not every node could be told ({channel} {what[0]}): {error}")

    # ------------------------------------------------------------------------------------------ inside

    def _audit(self, event: str, **what: Any) -> None:
        self._plan.observe(Audited(self._plan.elapsed_s, self.id.home, event, facts_of(what)))

    def _role_class(self, role: RoleId) -> type[Role]:
        found = (h.role_class for h in self._plan.deployed.hostings.get(role.home, ()) if h.id == role)
        return next(found, Agent)


def _as(value: Any, hint: Any, where: str) -> Any:
    """Return a value that came without its type as one of the declared type; arrays are not copied."""
    return decode(encode(value, where=where), hint, where=where)


def _log(node: str, logged: Logged) -> None:
    """Log what was logged on a node, as if it had been here."""
    logger = logging.getLogger(logged.logger)
    if logger.isEnabledFor(logged.level):
        text = logged.text if logged.logger.startswith(("rolecall.node", "rolecall.role")) else f"{node}: {logged.text}"
        logger.handle(logger.makeRecord(logged.logger, logged.level, node, 0, "%s", (text,), None))
