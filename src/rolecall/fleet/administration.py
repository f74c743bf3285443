"""The administrative service of a node or of a run: what programs in any language, the command line among them, ask.

Import this module where it is needed only: `wire.admin` takes a while.
"""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager
from math import inf
from typing import TYPE_CHECKING, Any, cast, get_args

import anyio
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rolecall.core.errors import (
    CallerError,
    DeadlineExceeded,
    LifecycleError,
    NotAChannel,
    NotAllowed,
    RolecallError,
    RoleLost,
    UnknownRole,
    nearest,
)
from rolecall.core.ids import RoleId
from rolecall.core.patterns import is_pattern, matches
from rolecall.fleet import yaml_tree
from rolecall.fleet.app import RoleSpec
from rolecall.fleet.journal import LEVELS, Journal
from rolecall.fleet.marks import Marks
from rolecall.fleet.shapes import role_of
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.native import How
from rolecall.wire import admin as a
from rolecall.wire.peers import Peer, printable
from rolecall.wire.plain import as_json

if TYPE_CHECKING:
    from rolecall.fleet.management import Management
    from rolecall.fleet.node_role import NodeRole, RoleInfo

__all__ = ("Administration",)

logger = logging.getLogger(__name__)

_STATUSES: tuple[tuple[type[Exception], Status], ...] = (
    (DeadlineExceeded, Status.DEADLINE_EXCEEDED),
    (TimeoutError, Status.DEADLINE_EXCEEDED),
    (NotAllowed, Status.PERMISSION_DENIED),
    (UnknownRole, Status.NOT_FOUND),
    (NotAChannel, Status.NOT_FOUND),
    (LifecycleError, Status.FAILED_PRECONDITION),
    (CallerError, Status.INVALID_ARGUMENT),
    (RoleLost, Status.UNAVAILABLE),
    (RolecallError, Status.ABORTED),
)
_TEXT_MAX = 4_000
_PAST_MAX = 10_000


class Administration(a.AdminService):
    """Answers for all nodes that `management()` has at the time; give `admission.check` to the listener as well."""

    def __init__(
        self, management: Callable[[], Management], journal: Journal, me: Callable[[], Peer], admission: a.Admission
    ) -> None:
        super().__init__(me, admission)
        self._managing, self._journal = management, journal

    @property
    def _management(self) -> Management:
        return self._managing()

    async def hello(self, hello_request: a.HelloRequest) -> a.HelloReply:
        """Say who is here."""
        reply = await super().hello(hello_request)
        reply.nodes, reply.application = list(self._management.names), self._management.application or ""
        return reply

    async def status(self, status_request: a.StatusRequest) -> a.StatusReply:
        """Say what runs on a node."""
        with _answered():
            found = await self._node(status_request.node).status()
            pattern = status_request.roles
            return a.StatusReply(
                node=found.name,
                incarnation=found.incarnation,
                up_s=found.up_s,
                application=found.application or "",
                roles=[_role(role) for role in found.roles if _matches(pattern, role.role)],
                ended=[_role(role) for role in found.ended if _matches(pattern, role.role)],
                links=[
                    a.LinkStatus(
                        peer=link.node,
                        peer_incarnation=link.incarnation,
                        address=link.address or "",
                        connected=link.connected,
                        sent_bytes=link.sent_bytes,
                        received_bytes=link.received_bytes,
                    )
                    for link in found.links
                ],
                counters=[a.Counter(name=name, value=value) for name, value in sorted(found.counters.items())],
                dead_letters=found.dead_letters,
            )

    async def call(self, call_request: a.CallRequest) -> a.CallReply:
        """Call a channel of a role."""
        with _answered():
            arguments = _arguments(call_request.arguments)
            role, deadline_s = RoleId(call_request.role), call_request.deadline_s
            with anyio.move_on_after(deadline_s or inf):
                result = await self._home(role).call(role, call_request.channel, arguments)
                return a.CallReply(result=json.dumps(as_json(result)))
            raise DeadlineExceeded(f"{role}.{call_request.channel}", deadline_s)

    async def stream(self, call_request: a.CallRequest) -> AsyncIterator[a.CallReply]:
        """Call a channel of a role, and send what comes."""
        with _answered():
            arguments = _arguments(call_request.arguments)
            role, deadline_s = RoleId(call_request.role), call_request.deadline_s
            async with aclosing(self._home(role).read(role, call_request.channel, arguments)) as items:
                async for item in _until(items, deadline_s or inf, f"{role}.{call_request.channel}"):
                    yield a.CallReply(result=json.dumps(as_json(item)))

    async def assign(self, assign_request: a.AssignRequest) -> a.AssignReply:
        """Create a role on a node."""
        with _answered():
            name = assign_request.name
            relationships = {key: list(ids.roles) for key, ids in assign_request.relationships.items()}
            node = self._node(assign_request.node)
            role = await node.assign(_spec(assign_request.role, name), name, relationships)
            return a.AssignReply(role=role)

    async def logs(self, logs_request: a.LogsRequest) -> AsyncIterator[a.LogLine]:
        """Send the log, and go on with it."""
        with _answered():
            level = logs_request.level or "info"
            if level not in LEVELS:
                raise CallerError(f"There is no level {level!r}.{nearest(level, LEVELS)} Levels: {', '.join(LEVELS)}.")
            past = min(logs_request.past, _PAST_MAX)
            async for line in self._journal.read(logs_request.source, level, past=past, follow=logs_request.follow):
                yield a.LogLine(time_s=line.time_s, level=line.level, source=line.source, text=line.text)

    async def deploy(self, deploy_request: a.DeployRequest) -> a.DeployReply:
        """Start the roles that an application has on the node; where one cannot be, stop the others again."""
        with _answered():
            tree = yaml_tree.read(deploy_request.application, "the application").tree
            if not isinstance(tree, dict):
                raise CallerError("The application is no mapping with the key 'name'.")
            return a.DeployReply(roles=list(await self._management.deploy(tree)))

    async def pause(self, roles_request: a.RolesRequest) -> a.RolesReply:
        """Let roles finish what they do and take nothing new."""
        with _answered():
            return a.RolesReply(roles=await self._each(roles_request.roles, lambda home, role: home.pause(role)))

    async def resume(self, roles_request: a.RolesRequest) -> a.RolesReply:
        """Let paused roles go on."""
        with _answered():
            return a.RolesReply(roles=await self._each(roles_request.roles, lambda home, role: home.resume(role)))

    async def relate(self, relate_request: a.RelateRequest) -> a.RelateReply:
        """Have a relationship name others."""
        with _answered():
            asked = relate_request
            home, slash, _ = asked.of.partition("/")
            node, role = self._management.node(self._name(home)), RoleId(asked.of) if slash else None
            if asked.alias:
                if asked.roles or asked.how:
                    raise CallerError("An alias stands for another relationship, and names no roles itself.")
                await node.alias(asked.relationship, asked.alias, role)
            else:
                await node.relate(asked.relationship, list(asked.roles), role, _how(asked.how))
            return a.RelateReply()

    async def stop(self, stop_request: a.StopRequest) -> a.StopReply:
        """Stop roles, or everything."""
        with _answered():
            pattern, reason = stop_request.roles, printable(stop_request.reason[:_TEXT_MAX])
            logger.info("asked to stop %s%s", pattern or "everything", f": {reason}" if reason else "")
            if not pattern:
                self._management.stop.set()
                return a.StopReply()
            return a.StopReply(roles=await self._each(pattern, lambda home, role: home.stop(role)))

    # ------------------------------------------------------------------------------------------ finding

    def _name(self, name: str) -> str:
        names = self._management.names
        if not name and len(names) != 1:
            raise CallerError(f"Say which node; there are {len(names)}: {', '.join(names)}.")
        return name or names[0]

    def _node(self, name: str) -> NodeRole:
        return self._management.node(self._name(name))

    def _home(self, role: RoleId) -> NodeRole:
        return self._management.home(role)

    async def _each(self, pattern: str, act: Callable[[NodeRole, RoleId], Awaitable[None]]) -> list[str]:
        """Have something done to the roles that match, one after the other, by their nodes; return which those are."""
        roles = await self._meant(pattern)
        for role in roles:
            await act(self._home(role), role)
        return list(roles)

    async def _meant(self, pattern: str) -> list[RoleId]:
        """Return the roles that match; raise `UnknownRole` where none does."""
        roles = [role async for role in self._roles(pattern)]
        if not roles:
            raise UnknownRole(pattern, [role async for role in self._roles("*/*")])
        return roles

    async def _roles(self, pattern: str) -> AsyncIterator[RoleId]:
        """Yield the roles that match, those of the nodes themselves left out."""
        if not is_pattern(pattern):
            yield RoleId(pattern)
            return
        for name in self._management.names:
            for found in await self._management.node(name).roles():
                if found.role.name != NATIVE and matches(pattern, found.role):
                    yield found.role


@contextmanager
def _answered() -> Iterator[None]:
    """Turn an error into the status that stands for it."""
    try:
        yield
    except GRPCError:
        raise
    except Exception as error:
        status = next((status for kind, status in _STATUSES if isinstance(error, kind)), Status.ABORTED)
        text = str(error) if isinstance(error, RolecallError) else f"{type(error).__name__}: {error}"
        raise GRPCError(status, text[:_TEXT_MAX]) from error


async def _until(items: AsyncIterator[Any], within_s: float, where: str) -> AsyncIterator[Any]:
    """Yield items until their end; raise `DeadlineExceeded` where that takes longer."""
    end_s = anyio.current_time() + within_s
    while True:
        with anyio.CancelScope(deadline=end_s) as scope:  # not around a yield, where it would be left elsewhere
            try:
                item = await anext(items)
            except StopAsyncIteration:
                return
        if scope.cancelled_caught:
            raise DeadlineExceeded(where, within_s)
        yield item


def _how(how: str) -> How:
    if how not in ("", *get_args(How)):
        raise CallerError(f"{how!r} is no way to change a relationship.{nearest(how, get_args(How))}")
    return cast(How, how or "replace")


def _role(info: RoleInfo) -> a.RoleStatus:
    return a.RoleStatus(
        role=info.role, class_path=info.class_, status=info.status, detail=info.why, since_s=info.since_s
    )


def _matches(pattern: str, role: str) -> bool:
    return not pattern or role == pattern or matches(pattern, role)


def _arguments(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text) if text else {}
    except ValueError as error:
        raise CallerError(f"The arguments are no JSON: {error}.") from None
    if not isinstance(found, dict):
        raise CallerError(f"The arguments are {type(found).__name__}, and should be an object, by name.")
    return found


def _spec(text: str, name: str) -> RoleSpec:
    document = yaml_tree.read(text, f"role {name!r}")
    return role_of(document.tree, Marks(f"role {name!r}", document.places))
