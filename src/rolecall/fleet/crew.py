"""The nodes that a conductor conducts: who is there, and how they get their roles, at the start or later."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, Final

import anyio

from rolecall.core.errors import ApplicationFailed, CallerError, NodeLost, QuorumMissed, RolecallError
from rolecall.core.groups import Group
from rolecall.core.ids import RoleId
from rolecall.core.records import DEPLOYMENT
from rolecall.fleet.agent import Agent, Deployed, Roster
from rolecall.fleet.course import failure_of
from rolecall.fleet.plan import Plan
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.links import Links

__all__ = ("Crew",)

PROGRESS_S: Final = 1.0
"""How often the progress of a deployment is told."""


class Crew:
    """Has agents deploy an application, bind to each other and set up their roles; for the event loop of its conductor.

    `agents` returns those that there are at the time.
    `present` are the nodes that have the application, with the roles that live there, `mains` the roles whose main
    routine the run waits for, `lost` the nodes that are gone, and why.
    """

    def __init__(self, plan: Plan, links: Links, agents: Callable[[], Group[Agent]]) -> None:
        self._plan, self._links, self._agents_now = plan, links, agents
        self.present: dict[str, list[RoleId]] = {}
        self.mains: list[RoleId] = []
        self.lost: dict[str, str] = {}

    @property
    def _agents(self) -> Group[Agent]:
        return self._agents_now()

    def agent(self, node: str) -> Agent:
        """Return the agent of a node; raise `NodeLost` where the node is gone."""
        role = RoleId.of(node, NATIVE)
        if node in self.lost:
            raise NodeLost(role, self.lost[node], "none")
        return self._agents[role]

    async def all_joined(self, nodes: Sequence[str]) -> None:
        """Wait until there is a link to each of some nodes."""
        while missing := [node for node in nodes if RoleId.of(node, NATIVE) not in self._agents]:
            await self._agents.wait(len(self._agents) + len(missing))

    def lose(self, node: str, why: str) -> None:
        """Take note that a node is gone, with its roles."""
        self.lost[node] = why
        self.present.pop(node, None)

    # ------------------------------------------------------------------------------------------ all at the start

    async def deploy(self) -> None:
        """Have all nodes that are there import and host their roles side by side.

        Raises:
            CallerError: the application does not fit a node; what the others have is theirs to undo with `finish`.
            ApplicationFailed: a node could not host its roles for another reason.
        """
        total, began_s, said_s = len(self._agents), anyio.current_time(), anyio.current_time()
        done = 0
        try:
            async for agent, deployed in self._agents.call(Agent.deploy, self._plan.order).as_completed():
                self._take_in(agent.home, deployed)
                done += 1
                if anyio.current_time() - said_s >= PROGRESS_S and done < total:
                    said_s = anyio.current_time()
                    self._say(f"{done} of {total} nodes have their roles, {agent.home} the last")
        except QuorumMissed as missed:
            agent, error = next(iter(missed.failures.items()))
            others = f"; what {done} other nodes had is undone" if done else ""
            self._say(f"{agent.home} could not take its roles{others}")
            raise _not_deployed(agent.home, error) from error
        roles = sum(map(len, self.present.values()))
        self._say(f"{total} nodes have their {roles} roles, after {anyio.current_time() - began_s:.2f} s")

    async def bind(self) -> None:
        """Tell every node who is where."""
        await self._agents.call(Agent.bind, self._roster(self.present))

    async def set_up(self) -> None:
        """Have all roles set up side by side; return when they are ready and hear each other."""
        failed = await self._set_up([role for roles in self.present.values() for role in roles])
        for role, error in failed:
            if role.home not in self.lost:
                self._plan.course.not_set_up(role, error)
        gone = {role for role, _ in failed}
        self.mains = [role for role in self.mains if role not in gone]

    # ------------------------------------------------------------------------------------------ one that joins

    async def admit(self, node: str, known: Callable[[Roster], Coroutine[Any, Any, None]]) -> list[RoleId]:
        """Have a node take its place among those at work; return which of its roles have a main routine.

        `known` has all nodes know of a roster. Raises whatever a role or the node could not do; `send_off` undoes it.
        """
        mains = self._take_in(node, await self.agent(node).deploy(self._plan.order))
        await known(self._roster([node]))
        await self.agent(node).bind(self._roster(self.present))
        for role, error in await self._set_up(self.present[node]):
            raise failure_of(role, "setup", error)
        names = ", ".join(role.name for role in self.present[node]) or "no role"
        self._plan.say("info", node, f"has joined: {names}")
        return mains

    async def send_off(self, node: str, error: Exception) -> list[RoleId]:
        """Give up a node that could not join; return the roles that others may know of."""
        self._plan.say("error", node, f"could not join: {error}")
        roles = self.present.pop(node, [])
        if node not in self.lost:
            try:
                await self.agent(node).finish()
            except RolecallError as problem:
                self._plan.say("warning", node, f"could not undo what it had begun: {problem}")
        return roles

    # ------------------------------------------------------------------------------------------ inside

    def _take_in(self, node: str, deployed: Sequence[Deployed]) -> list[RoleId]:
        """Take note of the roles of a node; return those that have a main routine."""
        self.present[node] = [found.role for found in deployed]
        mains = [found.role for found in deployed if found.has_main]
        self.mains += mains
        return mains

    def _roster(self, nodes: Iterable[str]) -> Roster:
        roles = {node: [RoleId.of(node, NATIVE), *self.present[node]] for node in nodes}
        return Roster(roles, {**self._links.contacts, **self._plan.addresses})

    async def _set_up(self, roles: Iterable[RoleId]) -> list[tuple[RoleId, Exception]]:
        """Have roles set up side by side; return those that could not be."""
        failed: list[tuple[RoleId, Exception]] = []

        async def start(role: RoleId) -> None:
            try:
                await self.agent(role.home).set_up(role)
            except Exception as error:
                failed.append((role, error))

        async with anyio.create_task_group() as tasks:
            for role in list(roles):
                tasks.start_soon(start, role)
        return failed

    def _say(self, text: str) -> None:
        self._plan.say("info", DEPLOYMENT, text)


def _not_deployed(node: str, error: BaseException) -> Exception:
    """Return what to raise when a node could not deploy: what the user configured wrongly keeps its type."""
    if isinstance(error, CallerError):
        return error.rebuilt(f"node {node}: {error}", error.facts)
    return ApplicationFailed(f"node {node}", "deployment", error)
