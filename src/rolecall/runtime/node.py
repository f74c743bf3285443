"""A node: hosts roles on the running event loop and gives them what they share."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import secrets
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, cast

import anyio
import msgspec

from rolecall.core.declarations import Declarations
from rolecall.core.errors import ConfigError, NodeLost, NotAChannel, RolecallError
from rolecall.core.ids import RoleId
from rolecall.core.on_use import OnUse
from rolecall.core.place import context_of
from rolecall.core.records import Audited, DeadLetter, LogLine, Observer, Record, StatusChange
from rolecall.core.topics import Topic
from rolecall.runtime.auditing import facts_of
from rolecall.runtime.computing import Computing, Threads
from rolecall.runtime.directory import NATIVE, Directory
from rolecall.runtime.dispatcher import Dispatcher
from rolecall.runtime.instance import Hosting, RoleInstance
from rolecall.runtime.native import Native, RoleStatus
from rolecall.runtime.relations import Target
from rolecall.runtime.signals import Signal
from rolecall.runtime.topics import OwnTopic

if TYPE_CHECKING:
    from rolecall.runtime.checking import Checker
    from rolecall.runtime.inboxes import OwnInbox
    from rolecall.runtime.network import Network
    from rolecall.runtime.remote import RemoteChannel
    from rolecall.runtime.remote_topics import RemoteTopic

__all__ = ("Node", "NodeOptions")

DEAD_LETTERS = 1000


class NodeOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the roles of a node have in common.

    `mailbox` and `mailbox_bytes` replace the defaults of channels that set none of their own.
    """

    seed: int = 0
    checked: bool = False
    compute_threads: int | None = None
    mailbox: int | None = None
    mailbox_bytes: int | None = None
    relationships: Mapping[str, Target] = MappingProxyType({})
    role_relationships: Mapping[str, Mapping[str, Target]] = MappingProxyType({})


class Node:
    """Hosts role instances. Enter it with `async with`; leaving it stops its roles.

    `native` is what manages it: `Native`, or a role that does more, with the options of its constructor.
    `computing` says where `compute` and the making of elements run, if not in worker threads.
    """

    __slots__ = (
        "_computing", "_dead_letters", "_instances", "_native", "_numbers", "_tasks", "_thread", "auditor", "began_s",
        "buried", "checker", "closing", "computing", "directory", "errors_", "incarnation", "logger", "loop", "name",
        "native", "native_id", "network", "observers", "opened_s", "options", "shared_elements_",
    )  # fmt: skip

    errors = OnUse(dict[str, int])
    shared_elements = OnUse(dict[Any, Any])

    def __init__(
        self, name: str, directory: Directory | None = None, options: NodeOptions | None = None,
        observers: Sequence[Observer] = (),
        *,
        began_s: float | None = None,
        native: tuple[type[Native], Mapping[str, Any]] = (Native, {}),
        computing: Computing | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self.native_id = RoleId(f"{name}/{NATIVE}")
        self.directory = directory or Directory()
        self.options = options or NodeOptions()
        self.observers = list(observers)
        self._dead_letters: deque[DeadLetter] | None = None
        self.buried = 0
        """How many dead letters there have been."""
        self.auditor: Callable[..., None] | None = None
        """Called with what `audit` is, in place of the observers; for a node that keeps a log of its own."""
        self.logger = logging.getLogger("rolecall.node")
        self.checker: Checker | None = None
        self._computing = computing
        self.configure(self.options)
        self.closing = Signal()
        self.incarnation = secrets.randbits(63)
        self.network: Network | None = None
        self.loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self.opened_s = self.loop.time()
        self.began_s = self.opened_s if began_s is None else began_s
        self._native = native
        self._tasks = anyio.create_task_group()
        self._instances: dict[RoleId, RoleInstance] = {}
        self._numbers = itertools.count(1)

    # ------------------------------------------------------------------------------------------ life

    async def __aenter__(self) -> Node:
        if self.name in self.directory.nodes:
            raise ConfigError(f"node {self.name!r}", "there is already a node of this name", hint="Choose another")
        await self._tasks.__aenter__()
        self.directory.nodes[self.name] = self
        role_class, options = self._native
        self.native = self.host(Hosting(id=self.native_id, role_class=role_class, options=options))
        try:
            await self.native.start()
        except BaseException as error:  # whoever wanted the node does not any more
            await self.__aexit__(type(error), error, error.__traceback__)
            raise
        return self

    def configure(self, options: NodeOptions) -> None:
        """Take the options of the roles that are hosted from now on."""
        self.options = options
        self.computing: Computing = self._computing or Threads(options.compute_threads or os.cpu_count() or 1)
        self.checker = None
        if options.checked:
            from rolecall.runtime.checking import Checker

            self.checker = Checker(self)

    async def __aexit__(self, *error: Any) -> bool | None:
        with anyio.CancelScope(shield=True):
            await self.stop()
        self.directory.nodes.pop(self.name, None)
        self._tasks.cancel_scope.cancel()
        if isinstance(error[1], asyncio.CancelledError):
            return await self._tasks.__aexit__(*error)
        await self._tasks.__aexit__(None, None, None)  # what is raised inside leaves as it is, not in a group
        return False

    def host(self, hosting: Hosting) -> RoleInstance:
        """Create a role instance; `start()` it then."""
        instance = RoleInstance(self, hosting)
        self.directory.add(instance)
        self._instances[instance.id] = instance
        return instance

    def spawn(self, function: Callable[[], Coroutine[Any, Any, None]], name: str) -> None:
        """Start a task of the node, in a context of its own; it must raise nothing."""
        _ = context_of(self.name).run(partial(self._tasks.start_soon, function, name=name))

    @property
    def instances(self) -> list[RoleInstance]:
        """The role instances, in the order they were created; the native role first."""
        return list(self._instances.values())

    async def stop(self) -> None:
        """Stop every role, the last created first."""
        for instance in reversed(self.instances):
            await instance.stop()

    def stop_soon(self, instance: RoleInstance) -> None:
        """Stop a role without waiting for it."""
        _ = self._tasks.start_soon(instance.stop, name=f"stop {instance.id}")

    def kill(self) -> None:
        """End the node as a crash would: no teardown, and every call to its roles ends with `NodeLost`."""
        with self.directory.bulk():
            for instance in self.instances:
                instance.lose(f"node {self.name} is gone", NodeLost)

    # ------------------------------------------------------------------------------------------ finding

    def dispatcher(self, role: RoleId, channel: str, declared: Declarations) -> Dispatcher | RemoteChannel:
        """Return the dispatcher of a channel of any role, which the caller knows as `declared` says.

        Raises:
            UnknownRole, RoleLost: the role is not there.
            NotAChannel: it has no such channel.
        """
        remote = self.directory.remote(role)
        if remote is None:
            return self.local_dispatcher(role, channel)
        if channel not in declared.channels:
            raise NotAChannel(f"{role} ({declared.role_class.__name__})", channel, declared.names)
        return remote.channel(declared.role_class, declared.channels[channel])

    def local_dispatcher(self, role: RoleId, channel: str) -> Dispatcher:
        """Return the dispatcher of a channel of a role of this process; raises as `dispatcher` does."""
        instance = self.directory.find(role)
        if channel not in instance.declared.channels:
            raise NotAChannel(f"{role} ({instance.declared.role_class.__name__})", channel, instance.declared.names)
        return instance.dispatchers[channel]

    def topic(self, role: RoleId, topic: Topic[Any]) -> OwnTopic[Any] | RemoteTopic:
        """Return a topic of any role; raises as `dispatcher` does."""
        remote = self.directory.remote(role)
        return self.local_topic(role, topic.name) if remote is None else remote.topic(topic)

    def local_inbox(self, role: RoleId, name: str) -> OwnInbox[Any]:
        """Return an inbox of a role of this process; raises as `dispatcher` does."""
        instance = self.directory.find(role)
        if name not in instance.declared.inboxes:
            raise NotAChannel(f"{role} ({instance.declared.role_class.__name__})", name, instance.declared.names)
        return instance.inbox(instance.declared.inboxes[name])

    def local_topic(self, role: RoleId, name: str) -> OwnTopic[Any]:
        """Return a topic of a role of this process; raises as `dispatcher` does."""
        instance = self.directory.find(role)
        if name not in instance.declared.topics:
            raise NotAChannel(f"{role} ({instance.declared.role_class.__name__})", name, instance.declared.names)
        return instance.topic(instance.declared.topics[name])

    def next_number(self) -> int:
        """Return a number that this node has given to nothing else."""
        return next(self._numbers)

    def require_alive(self, roles: Iterable[RoleId]) -> None:
        """Raise `RoleLost` for the first role that has ended."""
        for role in roles:
            loss = self.directory.loss(role)
            if loss is not None:
                raise loss

    def target(self, role_name: str, relationship: str) -> Target | None:
        """Return what a relationship names for a role of this node: its own setting, or the node's."""
        own = self.options.role_relationships.get(role_name, {})
        return own.get(relationship) or self.options.relationships.get(relationship)

    def patterns(self, role_name: str | None, relationship: str) -> tuple[str, ...]:
        """Return whom a relationship of a role, or of the node, names by itself: not what its alias does."""
        found = self.target(role_name, relationship) if role_name else self.options.relationships.get(relationship)
        return found.patterns if found is not None else ()

    def relate_all(self, role_name: str, targets: Mapping[str, Target]) -> None:
        """Give a role that is to come here its relationships."""
        own = {**self.options.role_relationships, role_name: targets}
        self.options = msgspec.structs.replace(self.options, role_relationships=own)

    def relate(self, role_name: str | None, relationship: str, target: Target) -> None:
        """Have a relationship of a role name others from now on, or that of all roles but the native one.

        Raises:
            RelationshipError: its alias is not configured, or leads back to itself.
        """
        before, options = self.options, self.options
        if role_name is not None:
            own = {**options.role_relationships.get(role_name, {}), relationship: target}
            changes: dict[str, Any] = {"role_relationships": {**options.role_relationships, role_name: own}}
        else:
            changes = {
                "relationships": {**options.relationships, relationship: target},
                "role_relationships": self._without_own(relationship),
            }
        self.options = msgspec.structs.replace(options, **changes)
        concerned = [
            i for i in self.instances if i.id.name == role_name or (role_name is None and i is not self.native)
        ]
        try:
            for instance in concerned:
                instance.relations.require(relationship)
        except RolecallError:
            self.options = before
            raise
        for instance in concerned:
            instance.relations.refresh()

    def _without_own(self, relationship: str) -> dict[str, dict[str, Target]]:
        """Return the relationships of roles without one that they are to take from the node; that of the node's own
        role stays what it is.
        """
        kept = self.target(NATIVE, relationship)
        own = {
            role: {name: target for name, target in targets.items() if name != relationship}
            for role, targets in self.options.role_relationships.items()
        }
        return own if kept is None else {**own, NATIVE: {**own.get(NATIVE, {}), relationship: kept}}

    def configured(self, role_name: str) -> list[str]:
        """Return the names of the relationships configured for a role of this node."""
        return sorted({*self.options.role_relationships.get(role_name, {}), *self.options.relationships})

    def lost(self, instance: RoleInstance) -> None:
        """Tell every role of the process that one is gone."""
        self._instances.pop(instance.id, None)
        if self.directory.closing:
            return
        cast(Native, self.native.role).role_ended(instance)
        error = instance.lost_error("none")
        for other in self.directory:
            other.source_lost(instance.id, error)

    # ------------------------------------------------------------------------------------------ telling

    @property
    def dead_letters(self) -> deque[DeadLetter]:
        """The last messages that could not be delivered or answered."""
        if self._dead_letters is None:  # it takes memory even while it is empty, and there may be thousands
            self._dead_letters = deque(maxlen=DEAD_LETTERS)
        return self._dead_letters

    @property
    def time_s(self) -> float:
        """Seconds since the run began (or the node, where nobody said when that was)."""
        return self.loop.time() - self.began_s

    def on_loop(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function on the event loop: now where this is its thread, else soon."""
        if threading.get_ident() == self._thread:
            function(*args)
        elif not self.loop.is_closed():
            self.loop.call_soon_threadsafe(function, *args)

    def status_changed(self, change: StatusChange) -> None:
        """Publish a change of status, through the native role and to the observers."""
        if change.role != self.native_id:
            if (topic := self.native.used_topic(Native.changed.topic)) is not None:
                topic.publish(RoleStatus(change.role, change.status))
            self.observe(change)

    def observe(self, record: Record) -> None:
        """Pass a record to the observers."""
        for observer in self.observers:
            observer(record)

    def audit(self, event: str, **what: Any) -> None:
        """Take note of what is done to the node, or refused: the event, and who, what and why by name."""
        if self.auditor is not None:
            self.auditor(event, **what)
        else:
            self.observe(Audited(self.time_s, self.name, event, facts_of(what)))

    def say(self, level: str, source: str, text: str) -> None:
        """Log a line, for observers and for the standard logging alike."""
        self.logger.log(logging.getLevelName(level.upper()), "%s: %s", source, text)
        self.observe(LogLine(self.time_s, level, source, text))

    def bury(self, kind: str, role: RoleId, channel: str, error: BaseException) -> None:
        """Keep what could not be delivered or answered."""
        reason = f"{type(error).__name__}: {error}"
        letter = DeadLetter(self.time_s, kind, role, channel, reason)
        self.dead_letters.append(letter)
        self.buried += 1
        self.logger.warning("dead letter: %s to %s.%s: %s", kind, role, channel, reason)
        self.observe(letter)

    def count_error(self, where: str, error: Exception) -> None:
        """Count an error of a handler; foreign types are logged with traceback, since callers see less."""
        self.errors[where] = self.errors.get(where, 0) + 1
        if not isinstance(error, RolecallError):
            self.logger.debug("%s raised", where, exc_info=error)
