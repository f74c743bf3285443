"""The native role of a node in a process of its own: it does what a conductor says, and reports what happens."""

from __future__ import annotations

import asyncio
import logging
from abc import abstractmethod
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from rolecall.core.channels import service, task
from rolecall.core.context import caller
from rolecall.core.errors import ConfigError, LifecycleError, NotEncodable, RolecallError, RoleLost
from rolecall.core.ids import RoleId
from rolecall.core.records import Metric
from rolecall.core.role import Role
from rolecall.core.topics import Topic
from rolecall.fleet.app import App, Node, RoleSpec
from rolecall.fleet.deployment import Deployment, deployment
from rolecall.fleet.modelling import pace_of
from rolecall.fleet.node_role import NodeRole
from rolecall.fleet.portable import ImportPolicy, portable, received
from rolecall.fleet.relaying import Parcel, Relays
from rolecall.fleet.reports import Outgoing, Report, Reported, RoleEnded, RoleFailed
from rolecall.fleet.structure import calls
from rolecall.fleet.values import imported, plain
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.endpoints import RoleProxy, start_task
from rolecall.runtime.node import NodeOptions
from rolecall.runtime.relations import Target

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance
    from rolecall.runtime.links import Links

__all__ = ("Agent", "Chief", "Deployed", "Order", "Roster", "managed_by")

logger = logging.getLogger(__name__)

ASSIGNED = "assigned"
"""The name of the application that roles are in which are assigned to a node without one."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What a conductor has deployed: an application, as `portable` made data of it.

    `elapsed_s` is how long ago the run began. With `alone` it is no conductor that wants this, but who operates the
    node; there is no run then, and the application ends with its last role.
    """

    application: dict[str, Any]
    elapsed_s: float = 0.0
    checked: bool = False
    alone: bool = False


class Deployed(msgspec.Struct, frozen=True):
    """A role that was deployed, and whether it has a main routine."""

    role: RoleId
    has_main: bool


class Roster(msgspec.Struct, frozen=True):
    """Which roles are on which nodes, and where the nodes listen."""

    roles: dict[str, list[RoleId]]
    contacts: dict[str, str]


class Chief(Role):
    """What an agent asks of its conductor."""

    @service(allow="agents", concurrent=True)
    @abstractmethod
    async def announce(self, role: RoleId, heard: int) -> None:
        """Have all nodes know of a role that is new on the caller's; returns when they do.

        `heard` is how many records the caller has reported before.
        """

    @service(allow="agents", concurrent=True)
    @abstractmethod
    async def introduce(self, node: str) -> None:
        """Have another node dial the caller, which it cannot be dialled by; raises what that raises."""

    @service(allow="agents", concurrent=True)
    @abstractmethod
    async def relay(self, node: str, parcels: list[Parcel]) -> None:
        """Carry parcels from the caller to another node; returns when that has taken them."""


class Agent(NodeRole):
    """Manages a node for a conductor, which is in its relationship `manager`.

    `policy` says what an application may have imported here.
    """

    reported = Topic(Report)

    def __init__(self, conductor: RoleId, policy: ImportPolicy) -> None:
        super().__init__()
        self._conductor, self._policy = conductor, policy
        self._deployed: list[RoleInstance] = []
        self._turn = anyio.Lock()
        self._flows = self._alone = False
        self._assigning = 0
        self._records = Outgoing()
        self._relays: Relays | None = None

    @property
    def alone(self) -> bool:
        """Whether there is an application here that no conductor has deployed."""
        return self._alone

    @property
    def linked(self) -> Links:
        """The links of the node, which whoever makes it has set."""
        if self.links is None:
            raise LifecycleError(f"node {self._node.name!r} has no links yet.")
        return self.links

    # ------------------------------------------------------------------------------------------ deploying

    @service(allow="manager")
    async def deploy(self, order: Order) -> list[Deployed]:
        """Import and host the roles of an application that are on this node; `bind`, then `start` them.

        Raises:
            ConfigError: the application is wrong, or names what this node does not import.
            LifecycleError: there is an application here already.
        """
        async with self._turn:
            self._begin_reporting()
            self._audit("deploy", application=order.application.get("name"))
            if self._app is not None:
                raise LifecycleError(self._occupied(self._app))
            await self._check(order.application)
            await self._records.count_anew()
            await self._take(order)
        return [Deployed(instance.id, instance.has_main) for instance in self._deployed]

    async def _take(self, order: Order) -> None:
        self._app, self._alone = received(order.application), order.alone
        deployed = await anyio.to_thread.run_sync(deployment, self._app, (self._node.name,))
        await anyio.lowlevel.checkpoint()  # the thread does not notice that nobody wants this any more
        self._host_all(order, deployed)

    def _occupied(self, app: App) -> str:
        name = self._node.name
        hint = f" It ends with its last role: `rolecall stop '{name}/*'`." if self._alone else ""
        return f"node {name!r} has the application {app.name!r} already.{hint}"

    @service(allow="manager", concurrent=True)
    async def assign(
        self,
        spec: RoleSpec,
        name: str,
        relationships: dict[str, list[str]] | None = None,
        start: bool = True,
    ) -> RoleId:
        """Have a new role on this node, as `NodeRole.assign` says; without an application, in one of its own."""
        async with self._turn:
            if self._app is None:
                app = App(name=ASSIGNED, nodes={self._node.name: Node()}).expanded()
                await self._take(Order(application=portable(app), alone=True))
            self._assigning += 1
        try:
            return await super().assign(spec, name, relationships, start)
        finally:
            self._assigning -= 1
            self._end_alone()

    def _end_alone(self) -> None:
        """Be free for another application once nothing is left of one that nobody conducts."""
        if self._alone and not self._assigning and all(instance is self._runtime for instance in self._node.instances):
            self._app, self._alone = None, False
            self._deployed.clear()

    async def _check(self, application: dict[str, Any], source: str | None = None) -> None:
        name, what = self._node.name, source or "an application"
        try:
            self._policy.check(application, name, source)
            await anyio.to_thread.run_sync(self._policy.check_origins, application, name, source)
        except ConfigError as error:
            logger.warning("%s: refused %s of %s: %s", name, what, caller(), error)
            self._audit("deny", what=what, why=str(error))
            raise

    def _host_all(self, order: Order, deployed: Deployment) -> None:
        name = self._node.name
        self._node.began_s = anyio.current_time() - order.elapsed_s
        self._node.configure(self._options(deployed.app, deployed.relationships[name], order.checked))
        if deployed.app.shape:
            self.linked.exchange.pace_by(pace_of(deployed.app, name))
        with self._node.directory.bulk():
            for hosting in deployed.hostings[name]:
                self._deployed.append(self._node.host(hosting))
        hosted = ", ".join(instance.id.name for instance in self._deployed) or "no role"
        logger.info("%s: %s deployed the application %r: %s", name, self._conductor, deployed.app.name, hosted)

    def _options(self, app: App, relationships: dict[str, dict[str, Target]], checked: bool) -> NodeOptions:
        own = relationships.get(NATIVE, {})
        return NodeOptions(
            seed=app.seed or 0,
            checked=checked,
            compute_threads=app.limits.compute_threads,
            mailbox=app.limits.mailbox_messages,
            mailbox_bytes=app.limits.mailbox_bytes,
            role_relationships={**relationships, NATIVE: {**own, "manager": managed_by(self._conductor, own)}},
        )

    @service(allow="manager")
    async def bind(self, roster: Roster) -> None:
        """Take note of who is where."""
        with self._node.directory.bulk():
            for home, roles in roster.roles.items():
                if home != self._node.name:
                    for role in roles:
                        self.linked.network.bind(role, home)
        self.linked.meet({home: at for home, at in roster.contacts.items() if home != self._node.name})

    @service(allow="manager", concurrent=True)
    async def dial(self, node: str, address: str) -> None:
        """Make a link to a node that cannot make one itself."""
        self.linked.meet({node: address})
        await self.linked.exchange.dial(address, node)

    @service(allow="manager", concurrent=True)
    async def relayed(self, node: str, parcels: list[Parcel]) -> None:
        """Take what another node has sent by way of the conductor."""
        self._relays_of(self.linked).taken(node, parcels)

    def reach(self, peer: str) -> bool:
        """Find a way to a node that has said of no address: it dials this one, or the conductor carries messages."""
        if peer == self._conductor.home or self.links is None:
            return False
        self._runtime.spawn(partial(self._find_way, peer), f"{self.id}: a way to {peer}")
        return True

    async def _find_way(self, peer: str) -> None:
        linked = self.linked
        if linked.exchange.me.address is not None:
            try:
                await self._chief.introduce(peer)
                return
            except RolecallError as error:
                logger.info("%s: %s cannot dial this node, so messages are relayed: %s", self._node.name, peer, error)
        if peer not in linked.exchange.links:
            self._relays_of(linked).open(peer)

    def _relays_of(self, linked: Links) -> Relays:
        if self._relays is None:
            self._relays = Relays(linked.network, self._carry, self._runtime.spawn, linked.part)
        return self._relays

    async def _carry(self, peer: str, parcels: list[Parcel]) -> None:
        await self._chief.relay(peer, parcels)

    @service(allow="manager")
    async def lose_role(self, role: RoleId, why: str) -> None:
        """Take note that a role on another node has ended."""
        self.linked.network.unbind(role, RoleLost(role, why, "none"))

    @service(allow="manager")
    async def lose_node(self, node: str, why: str) -> None:
        """Take note that another node is gone."""
        if self._relays is not None:
            self._relays.close(node)
        self.linked.part(node, why)

    # ------------------------------------------------------------------------------------------ working

    @service(allow="manager", concurrent=True)
    async def set_up(self, role: RoleId) -> None:
        """Set a deployed role up; returns when it is ready and its subscriptions are acknowledged."""
        await self._instance(role).start()
        await self._heard()

    @task(allow="manager", concurrent=True)
    async def run_main(self, role: RoleId) -> None:
        """Run the main routine of a role; raises the error it ends with, and then fails the role."""
        instance = self._instance(role)
        ended: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        instance.start_main(lambda error: None if ended.done() else ended.set_result(error))
        error = await asyncio.shield(ended)
        if error is not None:
            why = f"its main routine failed: {type(error).__name__}: {error}"
            self._node.spawn(lambda: instance.fail(why), f"fail {role}")
            raise error

    @task(allow="manager", concurrent=True)
    async def call_started(self, number: int) -> Any:
        """Make one of the application's start calls, in the name of this node, and return its result."""
        app = self._require_app()
        call = calls(app)[number]
        arguments = imported(call.with_, f"start {call.call}", tuple(app.import_from))
        dispatcher = self._node.local_dispatcher(RoleId(call.role), call.channel)
        handle = await start_task(self._runtime, dispatcher, (), arguments)
        return await handle.result()

    async def _admit(self, app: App, role: RoleId, spec: RoleSpec) -> None:
        wanted = App(name=app.name, nodes={role.home: Node()}, roles={role.home: {role.name: spec}})
        await self._check(portable(wanted), f"assign {role}")

    async def _announce(self, instance: RoleInstance) -> None:
        await super()._announce(instance)
        if not self._alone:
            await self._chief.announce(instance.id, await self._records.all_sent())

    async def _heard(self) -> None:
        await self.linked.network.subscribed()

    def _tell_failed(self, role: RoleId, error: Exception) -> None:
        if self._alone:
            super()._tell_failed(role, error)
        else:
            self.report(RoleFailed(role, self._policies.get(role), type(error).__name__, str(error)))

    @property
    def _chief(self) -> Chief:
        return cast(Chief, RoleProxy(self._runtime, self._conductor, Chief))

    # ------------------------------------------------------------------------------------------ ending

    @service(allow="manager")
    async def drain(self) -> None:
        """Let main routines and resumable tasks end at their next safe point."""
        for instance in self._node.instances:
            instance.drain()

    @service(allow="manager")
    async def states(self) -> dict[RoleId, Any]:
        """Return the declared state of every role that has one."""
        found = {instance.id: instance.state_value() for instance in self._node.instances}
        return {role: state for role, state in found.items() if state is not None}

    @service(allow="manager")
    async def finish(self) -> int:
        """Stop all roles; return how many records have been reported, once all have been.

        A conductor that could not deploy here ends what it has begun elsewhere, and nothing here.
        """
        if self._alone and caller() != self.id:
            return await self._records.all_sent()
        self._audit("finish", application=self.application)
        async with self._turn:  # what is just being deployed as well
            self._node.directory.closing = True
            for instance in reversed(self._node.instances):
                if instance is not self._runtime:
                    await instance.stop()
            self._node.directory.closing = False
            self._app, self._alone = None, False
            self._deployed.clear()
        return await self._records.all_sent()

    @service(allow="manager")
    async def verify(self) -> None:
        """Raise the first change to a value after it was handed over, in a checked run."""
        checker = self._node.checker
        if checker is not None:
            checker.look()
            for violation in checker.violations:
                raise violation

    # ------------------------------------------------------------------------------------------ reporting

    async def setup(self) -> None:
        self._node.observers.append(self.report)

    def report(self, record: Reported) -> None:
        """Have a record reported, after those before it; only on the event loop."""
        if isinstance(record, Metric):
            record = Metric(record.time_s, record.role, {name: plain(value) for name, value in record.values.items()})
        self._records.add(record)

    def _begin_reporting(self) -> None:
        if not self._flows:
            self._flows = True
            self._runtime.spawn(partial(self._records.flow, self._report), f"{self.id}: reports")

    def role_ended(self, instance: RoleInstance) -> None:
        super().role_ended(instance)
        if instance is not self._runtime:
            self.report(RoleEnded(instance.id, instance.why_lost))
            self._end_alone()

    async def _report(self, records: list[Reported]) -> int:
        """Have records known to whoever listens; return how many could be sent."""
        if dropped := self._records.take_dropped():
            self._node.say("warning", self.id, f"{dropped:,} records came too fast to be reported")
        try:
            await self.reported.emit(Report(records))
        except NotEncodable as error:
            if len(records) > 1:
                return sum([await self._report([record]) for record in records])
            self._node.say("error", self.id, f"a record cannot be reported: {error}")
            return 0
        return len(records)


def managed_by(conductor: str, configured: Mapping[str, Target]) -> Target:
    """Return the relationship `manager`: the conductor, and whom the application names."""
    target, seen = configured.get("manager"), {"manager"}
    while target is not None and target.alias is not None and target.alias not in seen:
        seen.add(target.alias)
        target = configured.get(target.alias)
    return Target((conductor, *(target.patterns if target is not None else ())))
