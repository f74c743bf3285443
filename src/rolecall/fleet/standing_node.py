"""A node that somebody started: it waits for a conductor, serves its application, and then waits for the next."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import anyio
import anyio.to_thread
import msgspec

from rolecall.core.errors import RolecallError
from rolecall.fleet.access import CONDUCTOR, LIMITS, Access
from rolecall.fleet.agent import Agent, managed_by
from rolecall.fleet.alone import deploy_alone
from rolecall.fleet.audit import Audit
from rolecall.fleet.management import Management
from rolecall.fleet.node_role import NodeRole
from rolecall.fleet.portable import ImportPolicy
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.endpoints import RoleProxy
from rolecall.runtime.links import Links
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.watchdog import Watchdog
from rolecall.wire.addresses import parse_address
from rolecall.wire.exchange import ExchangeLimits

if TYPE_CHECKING:
    from grpclib._typing import IServable
    from grpclib.events import RecvRequest

__all__ = ("PACKAGES", "StandingNode", "StandingNodeConfig")

logger = logging.getLogger(__name__)

PACKAGES = ("rolecall.architectures", "rolecall.learn")
"""What any application may have imported."""
JOIN_PAUSE_S = 1.0
"""How long a node waits before it tries again to reach a conductor that is not there (yet)."""


class StandingNodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator of a node says.

    `listen` is where it listens, `join` where a conductor does (`host:port`); one of them at least. `packages` are
    those an application may have imported besides `PACKAGES`. `audit` is the file of the audit log.
    """

    name: str
    listen: str | None = None
    join: str | None = None
    access: Access = Access()
    packages: tuple[str, ...] = ()
    limits: ExchangeLimits = LIMITS
    audit: Path | None = None


Admin: TypeAlias = (
    "Callable[[Management], tuple[Sequence[IServable], Callable[[RecvRequest], Coroutine[Any, Any, None]] | None]]"
)
"""Makes the administrative services of one life of a node, and what looks at each request for them."""


class StandingNode:
    """Serves one application after another, each in a life of its own: a new incarnation that knows no former roles.

    `on_listening` is called once, with the address (None if it does not listen); `admin` at the beginning of each life,
    for what else is to be served where the node listens.
    """

    def __init__(
        self,
        config: StandingNodeConfig,
        on_listening: Callable[[str | None], None],
        admin: Admin = lambda management: ((), None),
    ) -> None:
        self._config, self._on_listening, self._admin = config, on_listening, admin
        self._address = parse_address(config.listen) if config.listen is not None else None
        if config.join is not None:
            parse_address(config.join)
        self._tls, self._secret = config.access.tls(config.name), config.access.secret()
        self._policy = ImportPolicy((*PACKAGES, *config.packages), strict=True)
        self._announced = False
        self._write: Callable[..., None] = lambda event, **what: None

    async def serve(self, stop: anyio.Event) -> None:
        """Serve until `stop` is set; what runs here then is stopped.

        Raises:
            ConfigError: it cannot listen there, or may not, or the audit log cannot be written.
        """
        audit = await self._open_audit()
        path = list(sys.path)
        try:
            while not stop.is_set():
                await self._live(stop)
                sys.path[:] = path
        finally:
            if audit is not None:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(audit.close)

    async def _open_audit(self) -> Audit | None:
        if self._config.audit is None:
            return None
        audit = await anyio.to_thread.run_sync(Audit, self._config.audit, self._config.name)
        self._write = audit.write
        return audit

    async def _live(self, stop: anyio.Event) -> None:
        """Serve one conductor, from before it comes until it is gone."""
        config, over = self._config, anyio.Event()

        def lost(peer: str, why: str) -> None:
            if peer == CONDUCTOR.home:
                logger.info("%s: the conductor is gone: %s", config.name, why)
                if not agent.alone:
                    over.set()
            self._write("leave", who=peer, why=why)

        def joined(peer: str) -> None:
            if peer == CONDUCTOR.home:  # maybe not the first in this life, where nobody conducts what runs here
                links.network.bind(CONDUCTOR, CONDUCTOR.home, listed=False)
            self._write("join", who=peer)

        options = NodeOptions(role_relationships={NATIVE: {"manager": managed_by(CONDUCTOR, {})}})
        native = (Agent, {"conductor": CONDUCTOR, "policy": self._policy})
        async with Node(config.name, options=options, native=native) as node:
            agent = cast(Agent, node.native.role)
            node.auditor = self._write
            services, check_request = self._admin(self._management(node, agent, stop))
            async with Links(
                node,
                secret=self._secret,
                tls=self._tls,
                on_lost=lost,
                limits=config.limits,
                on_joined=joined,
                on_refused=lambda remote, why: self._write("deny", who=remote, why=why),
                on_unknown=agent.reach,
                services=services,
                check_request=check_request,
            ) as links:
                agent.links = links
                links.network.bind(CONDUCTOR, CONDUCTOR.home, listed=False)
                await self._listen(links)
                address = links.exchange.me.address
                self._write("begin", incarnation=node.incarnation, address=address, join=config.join)
                with Watchdog(lambda blockage: node.say("warning", blockage.task, str(blockage))):
                    await self._wait(links, stop, over)
        self._write("end", incarnation=node.incarnation)

    def _management(self, node: Node, agent: Agent, stop: anyio.Event) -> Management:
        """Return what manages this node alone, in its own name."""
        own = cast(NodeRole, RoleProxy(node.native, node.native_id, NodeRole))
        alone = cast(Agent, RoleProxy(node.native, node.native_id, Agent))
        return Management(
            lambda: agent.application,
            lambda: [node.name],
            lambda name: own,
            observers=node.observers,
            stop=stop,
            audit=self._write,
            deploy=lambda application: deploy_alone(alone, node.name, application),
        )

    async def _listen(self, links: Links) -> None:
        address = None
        if self._address is not None:
            address = await links.exchange.listen(*self._address)
            self._address = parse_address(address)  # the port that was chosen is kept
        if not self._announced:
            self._announced = True
            self._on_listening(address)

    async def _wait(self, links: Links, stop: anyio.Event, over: anyio.Event) -> None:
        """Wait until the conductor has come and gone, or this node is stopped."""
        async with anyio.create_task_group() as tasks:

            async def until(event: anyio.Event) -> None:
                await event.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(until, stop)
            tasks.start_soon(until, over)
            if self._config.join is not None:
                tasks.start_soon(self._join, links, self._config.join)

    async def _join(self, links: Links, address: str) -> None:
        """Dial the conductor until there is one."""
        said = ""
        while CONDUCTOR.home not in links.exchange.links:
            try:
                await links.exchange.dial(address, CONDUCTOR.home)
            except RolecallError as error:
                if str(error) != said:  # the same again and again is said once
                    said = str(error)
                    logger.info("%s: no conductor yet: %s", self._config.name, said)
                await anyio.sleep(JOIN_PAUSE_S)
