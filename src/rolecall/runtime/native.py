"""The role that every node carries: its roles, whom they know, and what changes among them."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import msgspec

from rolecall.core.channels import service, stream
from rolecall.core.context import CURRENT, chain
from rolecall.core.errors import LifecycleError, NotAChannel, RelationshipError, UnknownRole
from rolecall.core.ids import RoleId
from rolecall.core.patterns import matches
from rolecall.core.records import DeadLetter
from rolecall.core.role import Role
from rolecall.core.status import Status
from rolecall.core.topics import Topic
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.endpoints import CallEndpoint, ReadEndpoint
from rolecall.runtime.relations import Target
from rolecall.wire import ArgsCodec

if TYPE_CHECKING:
    from rolecall.core.declarations import Declarations
    from rolecall.runtime.instance import RoleInstance
    from rolecall.runtime.node import Node

__all__ = ("MANAGER", "How", "Native", "Related", "RoleInfo", "RoleStatus", "check_target")

ENDED_ROLES = 100
"""How many of the roles that have ended a node remembers."""
MANAGER = "manager"

How: TypeAlias = Literal["replace", "add", "remove"]


class RoleStatus(msgspec.Struct, frozen=True):
    """The status of a role."""

    role: RoleId
    status: str


class RoleInfo(msgspec.Struct, frozen=True):
    """A role: its class (`module:QualName`), its status, since how many seconds, and why it has ended if it has."""

    role: RoleId
    class_: str
    status: str
    since_s: float
    why: str = ""


class Related(msgspec.Struct, frozen=True):
    """A relationship names others now; `role` is whose it is, None where it is the whole node's."""

    role: RoleId | None
    relationship: str
    targets: list[str]
    alias: str | None = None


class Native(Role):
    """The management of a node, as a role: `<node>/node`.

    Open to the members of the relationship `manager` only.
    """

    changed = Topic(RoleStatus)
    related = Topic(Related)

    def __init__(self) -> None:
        self._ended: deque[tuple[RoleInfo, float]] | None = None  # it takes memory, and there may be thousands
        self._roles_ended = self._messages_of_ended = 0

    # ------------------------------------------------------------------------------------------ who is here

    @service(allow=MANAGER)
    async def roles(self) -> list[RoleStatus]:
        """Return the roles of the node with their status."""
        return [RoleStatus(instance.id, instance.status.value) for instance in self._node.instances]

    @service(allow=MANAGER)
    async def counters(self) -> dict[str, int]:
        """Return what the node has counted since it began: messages handled, errors of handlers, dead letters."""
        return self._counted()

    @service(allow=MANAGER)
    async def dead_letters(self) -> list[DeadLetter]:
        """Return the last messages that could not be delivered or answered."""
        return list(self._node.dead_letters)

    @service(allow=MANAGER, concurrent=True)
    async def call(self, role: RoleId, channel: str, arguments: dict[str, Any]) -> Any:
        """Call a service or task of a role of this node, in the name of the node; return what it returns.

        The arguments are plain data and are converted to the declared types.

        Raises:
            UnknownRole: there is no such role here.
            NotAChannel: it has no such service or task.
            WrongArgument, WrongType: the arguments do not fit.
        """
        kind, declared, converted = self._meant(role, channel, arguments)
        if kind == "stream":
            callable_ = [name for name, found in declared.channels.items() if found.kind != "stream"]
            raise NotAChannel(str(role), f"{channel} (a stream)", callable_)
        endpoint: CallEndpoint[..., Any] = CallEndpoint(self._runtime, role, channel, declared)
        return await endpoint(**converted)

    @stream(allow=MANAGER, concurrent=True)
    async def read(self, role: RoleId, channel: str, arguments: dict[str, Any]) -> AsyncIterator[Any]:
        """Call any channel of a role of this node, as `call` does; yield the items of a stream, or the one result."""
        kind, declared, converted = self._meant(role, channel, arguments)
        if kind != "stream":
            called: CallEndpoint[..., Any] = CallEndpoint(self._runtime, role, channel, declared)
            yield await called(**converted)
            return
        endpoint: ReadEndpoint[..., Any] = ReadEndpoint(self._runtime, role, channel, declared)
        async with aclosing(endpoint(**converted)) as items:
            async for item in items:
                yield item

    def _meant(self, role: RoleId, channel: str, arguments: dict[str, Any]) -> tuple[str, Declarations, dict[str, Any]]:
        """Return the kind of a channel of a role here, what its class declares, and the arguments converted."""
        self._audit("call", role=role, channel=channel)
        instance = self._any_instance(role)
        dispatcher = self._node.local_dispatcher(role, channel)
        codec = ArgsCodec.of(dispatcher.signature)
        _, converted = codec.decode(codec.encode((), arguments))
        return dispatcher.kind, instance.declared, converted

    # ------------------------------------------------------------------------------------------ their lives

    @service(allow=MANAGER, concurrent=True)
    async def pause(self, role: RoleId) -> None:
        """Pause a role; returns when nothing of it runs."""
        self._audit("pause", role=role)
        instance = self._instance(role)
        waiting = self._waiting(instance)
        if waiting is not None:
            raise LifecycleError(f"{role} cannot be paused by a call for which its own handler {waiting} waits.")
        await instance.pause()

    @service(allow=MANAGER)
    async def resume(self, role: RoleId) -> None:
        """Let a paused role take work again."""
        self._audit("resume", role=role)
        await self._instance(role).resume()

    @service(allow=MANAGER, concurrent=True)
    async def stop(self, role: RoleId) -> None:
        """Stop a role; returns when it has stopped, or at once to a handler of the role itself."""
        self._audit("stop", role=role)
        instance = self._instance(role)
        if self._waiting(instance) is not None:
            self._node.stop_soon(instance)
        else:
            await instance.stop()

    def role_ended(self, instance: RoleInstance) -> None:
        """Take note that a role of the node has ended; for nodes that tell others."""
        status = "failed" if instance.status is Status.FAILED else "stopped"
        info = RoleInfo(instance.id, _class_name(instance), status, 0.0, instance.why_lost)
        if self._ended is None:
            self._ended = deque(maxlen=ENDED_ROLES)
        self._ended.append((info, self._node.time_s))
        self._roles_ended += 1
        self._messages_of_ended += _handled(instance)

    # ------------------------------------------------------------------------------------------ whom they know

    @service(allow=MANAGER)
    async def relate(
        self, relationship: str, targets: list[str], role: RoleId | None = None, how: How = "replace"
    ) -> None:
        """Have a relationship of a role, or of all roles of the node, name others from now on.

        `targets` are role ids and patterns, which stay live: who matches later is in. With "add" they come to those
        there are, with "remove" they are taken out, as they were given: not a role from among those of a pattern.

        Raises:
            UnknownRole: there is no such role here.
            RelationshipError: a target is no role id or pattern, what is to be removed is not there, or the managers
                of the node would be replaced.
        """
        self._guard(role, relationship, how)
        where = role or RoleId(self._node.name)
        for target in targets:
            check_target(target, where, relationship)
        there = self._node.patterns(role.name if role is not None else None, relationship)
        if how == "remove" and (absent := next((target for target in targets if target not in there), None)):
            problem = f"{absent} cannot be removed from what it names: {', '.join(there) or 'nobody'}"
            raise RelationshipError(where, relationship, problem)
        patterns = _merged(there, targets, how)
        self._set(role, relationship, Target(patterns))

    @service(allow=MANAGER)
    async def alias(self, relationship: str, of: str, role: RoleId | None = None) -> None:
        """Have a relationship of a role, or of all roles of the node, stand for another one of theirs.

        Raises:
            UnknownRole: there is no such role here.
            RelationshipError: the other is not configured, or leads back to this one.
        """
        self._guard(role, relationship, "replace")
        self._set(role, relationship, Target(alias=of))

    def _set(self, role: RoleId | None, relationship: str, target: Target) -> None:
        self._audit("relate", role=role, relationship=relationship, targets=target.patterns, alias=target.alias)
        self._node.relate(role.name if role is not None else None, relationship, target)
        change = Related(role, relationship, list(target.patterns), target.alias)
        self._runtime.topic(Native.related.topic).publish(change)

    def _guard(self, role: RoleId | None, relationship: str, how: How) -> None:
        """Raise where there is no such role, or the node would lose those who manage it."""
        if role is not None:
            self._any_instance(role)
        if role == self.id and relationship == MANAGER and how != "add":
            raise RelationshipError(role, relationship, "managers can be added to a node, and none taken away")

    # ------------------------------------------------------------------------------------------ inside

    @property
    def _runtime(self) -> RoleInstance:
        # The one role that knows which runtime hosts it: it is part of that runtime.
        return cast("RoleInstance", self._host)

    @property
    def _node(self) -> Node:
        return self._runtime.node

    def _any_instance(self, role: RoleId) -> RoleInstance:
        found: dict[RoleId, RoleInstance] = {instance.id: instance for instance in self._node.instances}
        if role not in found:
            raise UnknownRole(role, found)
        return found[role]

    def _instance(self, role: RoleId) -> RoleInstance:
        if role == self.id:
            raise LifecycleError(f"{role} is the node's own role; it lives as long as the node.")
        return self._any_instance(role)

    @staticmethod
    def _waiting(instance: RoleInstance) -> str | None:
        """Return which handler of a role waits for the current call, if one does."""
        handlers = {id(call) for call in instance.running}
        return next((call.where for call in chain(CURRENT.get()) if id(call) in handlers), None)

    def _audit(self, event: str, **what: Any) -> None:
        """Have the audit log know what is done here and who wants it."""
        handling = CURRENT.get()
        self._node.audit(event, who=handling.caller if handling is not None else self.id, **what)

    def _counted(self) -> dict[str, int]:
        node = self._node
        return {
            "messages": self._messages_of_ended + sum(map(_handled, node.instances)),
            "roles_ended": self._roles_ended,
            "errors": sum(node.errors.values()),
            "dead_letters": node.buried,
        }

    def _infos(self) -> list[RoleInfo]:
        """Return the roles there are."""
        now = self._node.time_s
        return [
            RoleInfo(instance.id, _class_name(instance), instance.status.value, now - instance.since_s)
            for instance in self._node.instances
        ]

    def _ended_infos(self) -> list[RoleInfo]:
        """Return the roles that have ended, the last one last."""
        now = self._node.time_s
        return [msgspec.structs.replace(info, since_s=now - at_s) for info, at_s in self._ended or ()]


def _class_name(instance: RoleInstance) -> str:
    made_of = instance.hosting.role_class
    return f"{made_of.__module__}:{made_of.__qualname__}"


def _handled(instance: RoleInstance) -> int:
    return sum(dispatcher.handled for dispatcher in instance.dispatchers.values())


def _merged(there: Iterable[str], targets: Iterable[str], how: How) -> tuple[str, ...]:
    if how == "add":
        return tuple(dict.fromkeys((*there, *targets)))
    if how == "remove":
        return tuple(target for target in there if target not in set(targets))
    return tuple(targets)


def check_target(target: str, where: RoleId, relationship: str) -> None:
    """Raise `RelationshipError` where a target of a relationship is neither a role id nor a pattern of them."""
    try:
        if target.count("/") == 1:
            matches(target, f"{where.home}/{NATIVE}")
            return
        problem = f"found {target!r}, expected node/role, such as client*/trainer"
    except ValueError as error:
        problem = str(error)
    raise RelationshipError(where, relationship, problem)
