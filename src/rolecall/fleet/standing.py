"""The engine `nodes`: every node of an application is one that somebody started, and lives on afterwards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final, cast

import anyio
import anyio.to_thread

from rolecall.core.errors import ApplicationFailed, ConfigError, RolecallError
from rolecall.core.records import LogLine, Observer
from rolecall.fleet.access import CONDUCTOR, LIMITS, LISTEN, Access
from rolecall.fleet.conductor import Conductor
from rolecall.fleet.course import Course, Ending
from rolecall.fleet.deployment import Deployment
from rolecall.fleet.management import OnManagement
from rolecall.fleet.plan import Plan
from rolecall.fleet.portable import portable
from rolecall.fleet.structure import first_nodes
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.instance import Hosting
from rolecall.runtime.links import Links
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.relations import Target
from rolecall.wire.addresses import parse_address

__all__ = ("StandingEngine",)

logger = logging.getLogger(__name__)

SEEK_S: Final = 1.0
"""How long to wait before nodes that were not there are looked for again."""
JOIN_S: Final = 60.0
"""How long to wait for nodes that have no address to join."""


class StandingEngine:
    """Runs one application; the environment says how its nodes are reached, see `Access`."""

    def __init__(
        self,
        deployed: Deployment,
        observers: Sequence[Observer],
        *,
        checked: bool,
        stop: anyio.Event,
        on_management: OnManagement | None = None,
    ) -> None:
        self._on_management = on_management
        self._app, self._observers = deployed.app, list(observers)
        self._access = Access.of()
        self._began_s = anyio.current_time()
        self._addresses = _addresses(deployed, self._access)
        self._deployed, self._checked = deployed, checked
        self._course = Course(self._app, self._say, stop)

    async def run(self) -> Ending:
        """Run the application until it ends, is stopped or fails.

        Raises:
            ApplicationFailed: a node or a role failed, or a node could not be reached; its error is the cause.
            CallerError: the application does not fit together.
        """
        self._plan = await self._planned()
        agents = Target(tuple(f"{name}/{NATIVE}" for name in self._app.nodes))
        options = NodeOptions(role_relationships={CONDUCTOR.name: {"agents": agents}})
        async with Node(CONDUCTOR.home, options=options, began_s=self._began_s) as node:
            async with Links(
                node,
                secret=await anyio.to_thread.run_sync(self._access.secret),
                tls=self._access.tls(CONDUCTOR.home),
                on_joined=self._joined,
                on_lost=self._cut_off,
                on_refused=lambda remote, why: node.audit("deny", who=remote, why=why),
                limits=LIMITS,
            ) as links:
                self._node, self._links = node, links
                plan = {"plan": self._plan, "links": links}
                instance = node.host(Hosting(id=CONDUCTOR, role_class=Conductor, options=plan))
                await instance.start()
                self._conductor = cast(Conductor, instance.role)
                return await self._conductor.conduct(self._meet)

    async def _planned(self) -> Plan:
        """Make data of the application, which looks for modules in files."""
        application = await anyio.to_thread.run_sync(portable, self._app)
        application.pop("import_from", None)  # directories of this machine; nodes look where their operators say
        return Plan(
            deployed=self._deployed,
            application=application,
            course=self._course,
            observers=self._observers,
            began_s=self._began_s,
            checked=self._checked,
            addresses=self._addresses,
        )

    # ------------------------------------------------------------------------------------------ nodes

    async def _meet(self) -> None:
        """Dial the nodes that listen side by side, and wait for the others."""
        if self._access.listen is not None:
            address = await self._links.exchange.listen(*parse_address(self._access.listen))
            self._say("info", CONDUCTOR, f"waits for nodes to join at {address}")
        names = first_nodes(self._app)
        failed: list[tuple[str, RolecallError]] = []

        async def dial(name: str, address: str) -> None:
            try:
                await self._links.exchange.dial(address, name)
            except RolecallError as error:
                failed.append((name, error))

        async with anyio.create_task_group() as tasks:
            for name, address in self._addresses.items():
                if name in names:
                    tasks.start_soon(dial, name, address)
        for name, error in failed:
            raise ApplicationFailed(f"node {name}", "start", error) from error
        await self._all_joined(names)
        self._node.spawn(self._seek, "nodes that come later")
        if self._on_management is not None:
            self._on_management(self._conductor.management(None))

    async def _all_joined(self, names: Sequence[str]) -> None:
        with anyio.move_on_after(JOIN_S):
            await self._conductor.all_joined(names)
            return
        missing = next(name for name in names if name not in self._links.exchange.links)
        raise ApplicationFailed(f"node {missing}", "start", TimeoutError(f"it has not joined within {JOIN_S:g} s"))

    async def _seek(self) -> None:
        """Look from time to time for nodes that listen and are not there, or not any more."""
        while True:
            await anyio.sleep(SEEK_S)
            for name, address in self._addresses.items():
                if name not in self._links.exchange.links:
                    try:
                        await self._links.exchange.dial(address, name)
                    except RolecallError as error:  # it is not there (yet)
                        logger.debug("%s: %s", name, error)

    def _joined(self, peer: str) -> None:
        if peer in self._app.nodes:
            self._conductor.joined(peer)
        else:
            self._links.part(peer, "it is no node of this application")

    def _cut_off(self, peer: str, why: str) -> None:
        if peer in self._app.nodes:
            self._conductor.lose(peer, why)

    def _say(self, level: str, source: str, text: str) -> None:
        for observer in self._observers:
            observer(LogLine(anyio.current_time() - self._began_s, level, source, text))


def _addresses(deployed: Deployment, access: Access) -> dict[str, str]:
    """Return where the nodes of an application listen, those that join left out."""
    app = deployed.app
    if CONDUCTOR.home in app.nodes:
        where = app.marks.where(("nodes", CONDUCTOR.home))
        raise ConfigError(where, "this is the name of the node that conducts", hint="Choose another")
    found: dict[str, str] = {}
    for name, node in app.nodes.items():
        if node.address is not None:
            try:
                parse_address(node.address)
            except ConfigError as error:
                raise app.marks.error(("nodes", name, "address"), str(error)) from None
            found[name] = node.address
        elif access.listen is None:
            hint = f"Write `address: host:port`, or say with --listen ({LISTEN}) where the node can join"
            raise app.marks.error(("nodes", name), "it has no address, which the engine `nodes` needs", hint)
    return found
