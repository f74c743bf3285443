"""The native role of a node of an application: what its managers can have it do, from role classes to contacts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from rolecall.core.channels import service
from rolecall.core.errors import LifecycleError
from rolecall.core.ids import RoleId
from rolecall.core.topics import Topic
from rolecall.fleet.app import App, RoleSpec
from rolecall.fleet.deployment import one_more
from rolecall.runtime.native import MANAGER, Native, Related, RoleInfo, RoleStatus, check_target
from rolecall.runtime.relations import Target

if TYPE_CHECKING:
    from rolecall.runtime.instance import Hosting, RoleInstance
    from rolecall.runtime.links import Links

__all__ = ("Contact", "LinkInfo", "NodeRole", "NodeStatus", "OnFailed", "Related", "RoleInfo", "RoleStatus")

OnFailed = Callable[[RoleId, "str | None", Exception], None]
"""Told of a role that was assigned and whose main routine failed, with what its specification says about failures."""


class Contact(msgspec.Struct, frozen=True):
    """A node listens at an address."""

    node: str
    address: str


class LinkInfo(msgspec.Struct, frozen=True):
    """A link: to which life of which node, where that listens, and how much has gone over it."""

    node: str
    incarnation: int
    address: str | None
    connected: bool
    sent_bytes: int
    received_bytes: int


class NodeStatus(msgspec.Struct, frozen=True):
    """What a node is doing; `roles` are those there are, `ended` the last ones that were."""

    name: str
    incarnation: int
    up_s: float
    application: str | None
    roles: list[RoleInfo]
    ended: list[RoleInfo]
    links: list[LinkInfo]
    counters: dict[str, int]
    dead_letters: int


class NodeRole(Native):
    """The management of a node, as a role: `<node>/node`, on every engine.

    Its services are open to the members of the node's relationship `manager` and to nobody else.
    """

    assigned = Topic(RoleInfo)
    met = Topic(Contact)
    links: Links | None = None

    def __init__(self, app: App | None = None, on_failed: OnFailed | None = None) -> None:
        super().__init__()
        self._app, self._on_failed = app, on_failed
        self._policies: dict[RoleId, str | None] = {}

    @property
    def application(self) -> str | None:
        """The name of the application that the node has a part in, if there is one."""
        return self._app.name if self._app is not None else None

    # ------------------------------------------------------------------------------------------ assigning

    @service(allow=MANAGER, concurrent=True)
    async def assign(
        self,
        spec: RoleSpec,
        name: str,
        relationships: dict[str, list[str]] | None = None,
        start: bool = True,
    ) -> RoleId:
        """Have a new role on this node; return its id once it is ready and others know of it.

        Its main routine, if it has one, is started then. What the application says for roles of its name holds;
        `relationships` are set besides. With `start=False` the role waits for `start`, and its messages with it.
        Over the wire, classes travel as `module:QualName`, and the node imports them if its operator allows.

        Raises:
            ConfigError: the name is taken or cannot be used, or a class or factory cannot be imported or may not.
            LifecycleError: the node has no application.
            RolecallError: whatever loading its elements or its `setup()` raised; the role is gone then.
        """
        app, role = self._require_app(), RoleId(f"{self._node.name}/{name}")
        self._audit("assign", role=role, role_class=str(spec.class_))
        await self._admit(app, role, spec)
        hosting, targets = await anyio.to_thread.run_sync(one_more, app, role, spec)
        for relationship, patterns in (relationships or {}).items():
            for pattern in patterns:
                check_target(pattern, role, relationship)
            targets[relationship] = Target(tuple(patterns))
        await anyio.lowlevel.checkpoint()  # the thread does not notice that nobody wants this any more
        instance = self._host_one(hosting, targets)
        self._policies[role] = spec.on_failure
        await self._announce(instance)
        if start:
            await self._begin(instance)
        return role

    def _host_one(self, hosting: Hosting, targets: dict[str, Target]) -> RoleInstance:
        if self._node.directory.get(hosting.id) is None:  # else it is refused, and keeps what it has
            self._node.relate_all(hosting.id.name, targets)
        return self._node.host(hosting)

    @service(allow=MANAGER, concurrent=True)
    async def start(self, role: RoleId) -> None:
        """Start a role that was assigned with `start=False`: set it up, then begin its main routine."""
        self._audit("start", role=role)
        await self._begin(self._instance(role))

    async def _begin(self, instance: RoleInstance) -> None:
        await instance.start()
        await self._heard()
        if instance.has_main:
            instance.start_main(partial(self._main_ended, instance))

    def _main_ended(self, instance: RoleInstance, error: Exception | None) -> None:
        if error is None:
            return
        why = f"its main routine failed: {type(error).__name__}: {error}"
        self._node.spawn(lambda: instance.fail(why), f"fail {instance.id}")
        self._tell_failed(instance.id, error)

    # ------------------------------------------------------------------------------------------ where it is

    @service(allow=MANAGER)
    async def status(self) -> NodeStatus:
        """Return what the node is doing."""
        node = self._node
        return NodeStatus(
            name=node.name,
            incarnation=node.incarnation,
            up_s=anyio.current_time() - node.opened_s,
            application=self.application,
            roles=self._infos(),
            ended=self._ended_infos(),
            links=self._link_infos(),
            counters=self._counted(),
            dead_letters=node.buried,
        )

    @service(allow=MANAGER)
    async def contacts(self) -> dict[str, str]:
        """Return where other nodes listen, as far as this one knows; none where all are in one process."""
        return self.links.contacts if self.links is not None else {}

    @service(allow=MANAGER)
    async def meet(self, contacts: dict[str, str]) -> None:
        """Take note of where other nodes listen; a link is made when there is something to send."""
        self._audit("meet", contacts=contacts)
        if self.links is None:
            raise LifecycleError(f"node {self._node.name!r} has no links: its nodes are all in one process.")
        self.links.meet(contacts)
        for name, address in contacts.items():
            self._runtime.topic(NodeRole.met.topic).publish(Contact(name, address))

    def _link_infos(self) -> list[LinkInfo]:
        links = self.links.exchange.links.values() if self.links is not None else ()
        return [
            LinkInfo(
                link.peer.name,
                link.peer.incarnation,
                link.peer.address,
                link.connected,
                link.sent_bytes,
                link.received_bytes,
            )
            for link in links
        ]

    # ------------------------------------------------------------------------------------------ to be extended

    async def _admit(self, app: App, role: RoleId, spec: RoleSpec) -> None:
        """Raise `ConfigError` where a role may not be imported here."""

    async def _announce(self, instance: RoleInstance) -> None:
        """Have all nodes know of a new role; a directory that all share knows by itself."""
        info = next(info for info in self._infos() if info.role == instance.id)
        self._runtime.topic(NodeRole.assigned.topic).publish(info)

    async def _heard(self) -> None:
        """Wait until the subscriptions made so far are acknowledged."""

    def _tell_failed(self, role: RoleId, error: Exception) -> None:
        """Have whoever judges failures know of one in a main routine."""
        if self._on_failed is not None:
            self._on_failed(role, self._policies.get(role), error)
        else:
            self._node.say("error", role, f"failed in main: {type(error).__name__}: {error}")

    def _require_app(self) -> App:
        if self._app is None:
            raise LifecycleError(f"node {self._node.name!r} has no application.")
        return self._app
