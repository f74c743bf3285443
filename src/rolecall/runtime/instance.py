"""The runtime's half of a role: its channels at work, and what it asks of its node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from rolecall.core.annotations import type_name
from rolecall.core.channels import Bound
from rolecall.core.context import Handling, chain
from rolecall.core.deadlines import note_cut
from rolecall.core.declarations import declarations
from rolecall.core.ends import GroupCall, Subscription, TaskHandle
from rolecall.core.errors import (
    ConfigError,
    LifecycleError,
    NotAChannel,
    NotAllowed,
    RelationshipError,
    RolecallError,
    RoleLost,
    WrongType,
)
from rolecall.core.groups import Group, Within
from rolecall.core.ids import RoleId
from rolecall.core.inboxes import Inbox
from rolecall.core.on_use import NONE_YET, OnUse
from rolecall.core.policies import MAILBOX_BYTES, MAILBOX_MESSAGES, ChannelOptions, EventOverflow
from rolecall.core.randomness import generator
from rolecall.core.records import Metric
from rolecall.core.role import Role
from rolecall.core.signatures import accepted_classes
from rolecall.core.state import State
from rolecall.core.status import Status
from rolecall.core.topics import Topic
from rolecall.runtime.buffers import Admission, admitted
from rolecall.runtime.calls import RUNNING, Invocation, stopped
from rolecall.runtime.dispatcher import Dispatcher
from rolecall.runtime.elements import ElementSource, load_elements, save_elements
from rolecall.runtime.endpoints import start_task
from rolecall.runtime.group_calls import LocalGroupCall
from rolecall.runtime.inboxes import OwnInbox
from rolecall.runtime.life import RoleLife
from rolecall.runtime.relations import Relations
from rolecall.runtime.snapshots import RoleSnapshot, put_back, take_snapshot
from rolecall.runtime.topics import OwnTopic, Taken
from rolecall.wire import size_bytes

if TYPE_CHECKING:
    from rolecall.runtime.calls import Port
    from rolecall.runtime.node import Node

__all__ = ("Hosting", "RoleInstance")

_NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})  # one for all


class Hosting(msgspec.Struct, frozen=True, kw_only=True):
    """What to host: a role class with what fills it, and what an earlier instance left behind."""

    id: RoleId
    role_class: type[Role]
    options: Mapping[str, Any] = _NOTHING
    elements: Mapping[str, ElementSource] = _NOTHING
    snapshot: RoleSnapshot[Any, Any] | None = None


class _Dispatchers(dict[str, "Dispatcher"]):
    """The dispatchers of a role that there are; that of a channel is made when it is asked for."""

    __slots__ = ("_instance",)

    def __init__(self, instance: RoleInstance) -> None:
        super().__init__()
        self._instance = instance

    def __missing__(self, name: str) -> Dispatcher:
        made = self[name] = self._instance.channel_dispatcher(name)
        return made


class RoleInstance(RoleLife):
    """One life of a role on a node; implements `core.host.Host` for it."""

    __slots__ = (
        "_inboxes", "_late_", "_topics", "declared", "dispatchers", "draws_", "hosting", "relations", "seed",
        "singles", "started_", "watchers_",
    )  # fmt: skip

    started = OnUse(dict[Invocation, None])  # in order: they are ended in turn
    watchers = OnUse(dict[Taken[Any], None])
    draws = OnUse(dict[str, int])
    _late = OnUse(dict[str, dict[RoleId, Any]])

    def __init__(self, node: Node, hosting: Hosting) -> None:
        super().__init__(node, hosting.id)
        self.hosting = hosting
        self.seed = node.options.seed
        self.declared = declarations(hosting.role_class)
        self.dispatchers = _Dispatchers(self)
        self.singles: dict[str, Any] = NONE_YET
        self.role = self._construct()
        self.relations = Relations(self)
        self._topics: dict[str, OwnTopic[Any]] = NONE_YET
        self._inboxes: dict[str, OwnInbox[Any]] = NONE_YET

    def _construct(self) -> Role:
        cls = self.hosting.role_class
        missing = sorted(getattr(cls, "__abstractmethods__", ()))
        if missing:
            raise ConfigError(
                str(self.id), f"{type_name(cls)} is abstract: it does not implement {', '.join(missing)}",
                hint="Name a class that does",
            )  # fmt: skip
        try:
            role = cls(**self.hosting.options)
        except TypeError as error:
            raise ConfigError(str(self.id), f"its options do not fit {type_name(cls)}: {error}") from error
        role._host = self
        return role

    def channel_dispatcher(self, name: str) -> Dispatcher:
        """Return what serves a channel from now on; it is made when the first message comes."""
        channel = self.declared.channels[name]
        handler = channel.handler.__get__(self.role)
        return Dispatcher(self, name, channel.kind, handler, self._options(channel.options))

    def _options(self, options: ChannelOptions) -> ChannelOptions:
        limits = self.node.options
        changes: dict[str, Any] = {}
        if limits.mailbox is not None and options.mailbox == MAILBOX_MESSAGES:
            changes["mailbox"] = limits.mailbox
        if limits.mailbox_bytes is not None and options.mailbox_bytes == MAILBOX_BYTES:
            changes["mailbox_bytes"] = limits.mailbox_bytes
        return msgspec.structs.replace(options, **changes) if changes else options

    def add_dispatcher(self, name: str, kind: str, handler: Callable[..., Any], options: ChannelOptions) -> Dispatcher:
        """Add a channel, or the queue of an event handler."""
        key = name if kind != "event" else f"on:{name}:{len(self.dispatchers)}"
        made = self.dispatchers[key] = Dispatcher(self, name, kind, handler, options)
        return made

    # ------------------------------------------------------------------------------------------ its life

    async def _prepare(self) -> None:
        await load_elements(self)
        if self.hosting.snapshot is not None:
            put_back(self, self.hosting.snapshot)
        self.relations.listen()

    async def _save(self) -> None:
        await save_elements(self)

    @property
    def running(self) -> list[Invocation]:
        return [call for dispatcher in self.dispatchers.values() for call in dispatcher.running]

    def _wake(self) -> None:
        for dispatcher in self.dispatchers.values():
            dispatcher.wake()

    def _let_go(self, why: str, error_class: type[RoleLost]) -> None:
        for invocation in list(self.started):
            invocation.cancel()
        for dispatcher in self.dispatchers.values():
            dispatcher.close(why, error_class)
        for inbox in self._inboxes.values():
            inbox.buffer.close(self.lost_error("none"))
        for watcher in list(self.watchers):
            watcher.leave()
        self.relations.forget()

    def _be_gone(self) -> None:
        self.node.directory.remove(self)
        self.node.lost(self)

    # ------------------------------------------------------------------------------------------ messages

    def admits(self, invocation: Invocation) -> bool:
        """Whether a message may be handled now: while pausing, only what a running handler waits for."""
        if self.takes_work or self.status is not Status.PAUSING:
            return self.takes_work
        return any(map(self._runs, chain(invocation.parent)))

    def _runs(self, call: Handling) -> bool:
        if not isinstance(call, Invocation) or call.state != RUNNING:
            return False
        return isinstance(call.dispatcher, Dispatcher) and call.dispatcher.instance is self

    def require_allowed_to(self, dispatcher: Port) -> None:
        """Raise `NotAllowed` unless this role may send messages to a channel, as far as is known here."""
        if isinstance(dispatcher, Dispatcher):  # a role on another node looks itself
            dispatcher.instance.require_allowed(self.id, dispatcher.name)

    def require_allowed(self, caller: RoleId, channel: str) -> None:
        """Raise `NotAllowed` unless a role may call a channel of this one; it may always call its own."""
        relationship = self.dispatchers[channel].options.allow
        if relationship is None or caller == self.id:
            return
        try:
            allowed = self.relations.names(relationship)
        except RelationshipError:  # not configured here
            allowed = ()
        if caller not in allowed:
            self.node.audit("deny", who=caller, channel=f"{self.id}.{channel}", why=f"not in {relationship!r}")
            raise NotAllowed(caller, f"{self.id}.{channel}", relationship)

    async def give_up(self, *invocations: Invocation) -> None:
        """Cancel calls and wait, 1 s in all, until their handlers have stopped."""
        for invocation in invocations:
            note_cut(invocation.where)
            invocation.cancel()
        await stopped(*invocations)

    def cancelled_error(self, invocation: Invocation) -> RolecallError:
        """Return the error for whoever asks for the result of a cancelled task."""
        return LifecycleError(f"{invocation.where}: the task was cancelled; it has no result.")

    async def put(self, role: RoleId, inbox: Inbox[Any], item: Any) -> None:
        """Put a message into the inbox of a role; wait while it is full."""
        admission = self._offer(role, inbox, item)
        if admission is not None:
            await admitted([admission])

    async def group_put(self, attribute: str, ids: tuple[RoleId, ...], name: str, item: Any) -> None:
        """Put a message into the inbox of several roles."""
        inbox = declarations(self.relations.role_class(attribute)).inboxes[name]
        lost: list[RolecallError] = []
        waiting = []
        for role in ids:
            try:
                waiting.append(self._offer(role, inbox, item))
            except RoleLost as error:
                lost.append(error)
        await admitted([admission for admission in waiting if admission is not None])
        if lost:
            raise lost[0]

    def _offer(self, role: RoleId, inbox: Inbox[Any], item: Any) -> Admission | None:
        remote, name = self.node.directory.remote(role), inbox.name
        if remote is not None:
            if not isinstance(item, accepted_classes(inbox.type)):
                raise WrongType(f"{role}.{name}: message", type_name(inbox.type), type_name(type(item)))
            return remote.box(inbox).offer(self.id, item)
        instance = self.node.directory.find(role)
        declared = instance.declared.inboxes.get(name)
        if declared is None:
            raise NotAChannel(f"{role} ({instance.declared.role_class.__name__})", name, instance.declared.names)
        end = instance.inbox(declared)
        if not isinstance(item, end.accepted):
            raise WrongType(f"{role}.{name}: message", type_name(declared.type), type_name(type(item)))
        if self.node.checker is not None:
            item = self.node.checker.put(self, instance, declared, item)
        return end.buffer.offer(self.id, item, size_bytes(item))

    def source_lost(self, role: RoleId, error: RoleLost) -> None:
        """Fail what waits for a message of a role that is gone."""
        for watcher in list(self.watchers):
            watcher.lose(role, error)
        for inbox in self._inboxes.values():
            inbox.buffer.lose(role, error)

    # ------------------------------------------------------------------------------------------ Host

    def group(self, attribute: str) -> Group[Any]:
        return self.relations.group(attribute)

    def single(self, attribute: str) -> Any:
        return self.relations.single(attribute)

    def proxy(self, attribute: str, role: RoleId | None) -> Any:
        return self.relations.proxy(attribute, role)

    async def wait_for_members(self, attribute: str, count: int) -> Group[Any]:
        return await self.relations.wait(attribute, count)

    def group_call(self, attribute: str, calls: Mapping[RoleId, Bound[Any, Any]], within: Within) -> GroupCall[Any]:
        return LocalGroupCall(self, attribute, calls, within)

    def subscribe(
        self, attribute: str, ids: tuple[RoleId, ...], topic: Topic[Any], where: Mapping[str, Any],
        capacity: int, overflow: EventOverflow,
    ) -> Subscription[Any]:  # fmt: skip
        return Taken(self, ids, topic, where, capacity, overflow)

    def used_topic(self, topic: Topic[Any]) -> OwnTopic[Any] | None:
        """Return a topic if anybody has asked for it yet, and so may be subscribed to it."""
        return self._topics.get(topic.name)

    def topic(self, topic: Topic[Any]) -> OwnTopic[Any]:
        found = self._topics.get(topic.name)
        if found is None:
            if self._topics is NONE_YET:
                self._topics = {}
            found = self._topics[topic.name] = OwnTopic(self, topic)
        return found

    def inbox(self, inbox: Inbox[Any]) -> OwnInbox[Any]:
        found = self._inboxes.get(inbox.name)
        if found is None:
            if self._inboxes is NONE_YET:
                self._inboxes = {}
            found = self._inboxes[inbox.name] = OwnInbox(self, inbox)
        return found

    async def compute(self, function: Callable[..., Any], args: tuple[Any, ...], cost: float | None) -> Any:
        return await self.node.computing.run(self.id, function, args, cost)

    def draw(self, purpose: str, step: int | None) -> np.random.Generator:
        if step is None:
            step = self.draws[purpose] = self.draws.get(purpose, 0) + 1
            purpose = f"{purpose}/next"
        return generator(self.seed, self.id, purpose, step)

    async def start_own(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> TaskHandle[Any, Any]:
        return await start_task(self, self.dispatchers[name], args, kwargs)

    def leave(self) -> None:
        self.node.stop_soon(self)

    def record(self, values: dict[str, float | int | str]) -> None:
        self.node.on_loop(self.node.observe, Metric(self.node.time_s, self.id, values))

    @property
    def logger(self) -> logging.Logger:
        """A logger that carries the role's name; logging keeps it for ever, and so there is none until it is used."""
        return logging.getLogger("rolecall.role").getChild(str(self.id))

    # ------------------------------------------------------------------------------------------ late answers

    def late_answer(self, channel: str, role: RoleId, keep: bool) -> Callable[[asyncio.Future[Any]], None]:
        """Return a callback that keeps or drops an answer that came after its group call had ended."""

        def arrived(future: asyncio.Future[Any]) -> None:
            if future.cancelled():
                return
            error = future.exception()
            if error is not None:
                self.node.bury("late answer", role, channel, error)
            elif keep:
                self._late.setdefault(channel, {})[role] = future.result()

        return arrived

    def take_late(self, channel: str) -> dict[RoleId, Any]:
        """Return and forget the late answers kept for a channel."""
        return self._late.pop(channel, {})

    # ------------------------------------------------------------------------------------------ state

    def state_value(self) -> Any:
        """Return the declared state as it is, or None."""
        state: State[Any] | None = self.declared.state
        return None if state is None else state.read(self.role)

    def snapshot(self) -> RoleSnapshot[Any, Any]:
        """Return what another instance of the role could go on from."""
        return take_snapshot(self)
