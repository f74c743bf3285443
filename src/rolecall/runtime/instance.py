"""The runtime's half of a role: its channels at work, its life, and what it asks of its node."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import msgspec
import numpy as np

from rolecall.core.annotations import type_name
from rolecall.core.channels import Bound
from rolecall.core.context import CURRENT, Handling
from rolecall.core.deadlines import note_cut
from rolecall.core.declarations import declarations
from rolecall.core.ends import GroupCall, Subscription, TaskHandle
from rolecall.core.errors import (
    ConfigError,
    LifecycleError,
    NodeLost,
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
from rolecall.core.place import context_of
from rolecall.core.policies import MAILBOX_BYTES, MAILBOX_MESSAGES, ChannelOptions, EventOverflow
from rolecall.core.randomness import generator
from rolecall.core.records import Metric, StatusChange
from rolecall.core.role import Role
from rolecall.core.safe_points import Parked, is_parked
from rolecall.core.signatures import accepted_classes
from rolecall.core.state import State
from rolecall.core.status import Status
from rolecall.core.topics import Topic
from rolecall.runtime.buffers import Admission, admitted
from rolecall.runtime.calls import CANCEL_WAIT_S, ENDED, RUNNING, Invocation, stopped
from rolecall.runtime.dispatcher import Dispatcher
from rolecall.runtime.elements import ElementSource, load_elements, save_elements
from rolecall.runtime.endpoints import start_task
from rolecall.runtime.group_calls import LocalGroupCall
from rolecall.runtime.inboxes import OwnInbox
from rolecall.runtime.relations import Relations
from rolecall.runtime.signals import Signal
from rolecall.runtime.snapshots import RoleSnapshot, put_back, take_snapshot
from rolecall.runtime.topics import OwnTopic, Taken
from rolecall.wire import size_bytes

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from rolecall.runtime.calls import Port
    from rolecall.runtime.node import Node

__all__ = ("Hosting", "RoleInstance")

TEARDOWN_S = 10.0
_SMALL = frozenset((int, float, bool, type(None)))


class Hosting(msgspec.Struct, frozen=True, kw_only=True):
    """What to host: a role class with what fills it, and what an earlier instance left behind."""

    id: RoleId
    role_class: type[Role]
    options: Mapping[str, Any] = {}
    elements: Mapping[str, ElementSource] = {}
    snapshot: RoleSnapshot[Any, Any] | None = None


class _Dispatchers(dict[str, "Dispatcher"]):
    """The dispatchers of a role that there are; that of a channel is made when it is asked for."""

    def __init__(self, instance: RoleInstance) -> None:
        super().__init__()
        self._instance = instance

    def __missing__(self, name: str) -> Dispatcher:
        made = self[name] = self._instance.channel_dispatcher(name)
        return made


class RoleInstance:
    """One life of a role on a node; implements `core.host.Host` for it."""

    def __init__(self, node: Node, hosting: Hosting) -> None:
        self.node, self.hosting, self.id = node, hosting, hosting.id
        self.seed = node.options.seed
        self.declared = declarations(hosting.role_class)
        self.status = Status.DECLARED
        self.since_s = node.time_s
        self.takes_work = False
        self.draining = False
        self.node_lost = False
        self.why_lost = "it has stopped"
        self.started: dict[Invocation, None] = {}  # in order: they are ended in turn
        self.watchers: dict[Taken[Any], None] = {}
        self.dispatchers = _Dispatchers(self)
        self.role = self._construct()
        self.relations = Relations(self)
        self._topics: dict[str, OwnTopic[Any]] = {}
        self._inboxes: dict[str, OwnInbox[Any]] = {}
        self._late: dict[str, dict[RoleId, Any]] = {}
        self.draws: dict[str, int] = {}
        self._context = context_of(node.name)
        self._tasks: TaskGroup | None = None
        self._begun = False
        self._early: list[tuple[Callable[[], Coroutine[Any, Any, Any]], str]] = []
        self._end = Signal()
        self._ended = Signal()
        self._resumed = Signal()
        self._over = Signal()
        self._starting: anyio.CancelScope | None = None

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

    # ------------------------------------------------------------------------------------------ life

    def begin(self) -> None:
        """Have a task that keeps those of the role; it comes with the first of them, if nobody begins before."""
        if not self._begun:
            self._begun = True
            self._context.run(self.node.spawn, self.live, str(self.id))

    async def live(self) -> None:
        """Keep the tasks of the role until it ends; nothing of a role outlives this.

        A cancellation of what is around the node does not reach them: the node stops its roles then, in order.
        """
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.cancel_scope.shield = True
                early, self._early = self._early, []
                for function, name in early:
                    self.spawn(function, name)
                await self._end.wait()
                self._tasks.cancel_scope.cancel()
        finally:
            self._ended.set()

    async def start(self) -> None:
        """Load elements, restore state, subscribe and set up; afterwards the role handles messages.

        Raises:
            Exception: whatever loading or `setup()` raised; the role is `failed` then.
        """
        await anyio.lowlevel.checkpoint()
        if self.status is not Status.DECLARED:
            raise LifecycleError(f"{self.id} cannot start: it is {self.status.value}.")
        self._enter(Status.STARTING)
        try:
            with anyio.CancelScope() as self._starting:
                await load_elements(self)
                if self.hosting.snapshot is not None:
                    put_back(self, self.hosting.snapshot)
                self.relations.listen()
                await self.role.setup()
        except Exception as error:
            await self.fail(f"setup failed: {error}")
            raise
        if self._end.is_set():
            raise self.lost_error("none")
        self._enter(Status.READY)
        self._take_work()

    @property
    def logger(self) -> logging.Logger:
        """A logger that carries the role's name; logging keeps it for ever, and so there is none until it is used."""
        return logging.getLogger("rolecall.role").getChild(str(self.id))

    @property
    def has_main(self) -> bool:
        """Whether the role has a main routine of its own."""
        return type(self.role).main is not Role.main

    def start_main(self, ended: Callable[[Exception | None], None]) -> None:
        """Start the main routine and tell when it has ended, and with which error if it failed."""

        async def run() -> None:
            failure: Exception | None = None
            try:
                await self.role.main()
            except Exception as error:
                failure = error
            except BaseException as error:
                if not is_parked(error):
                    raise
            finally:
                ended(failure)

        self.spawn(run, f"{self.id}.main")

    async def pause(self) -> None:
        """Stop taking new work and wait until the running handlers have ended or reached their safe point."""
        if self.status is not Status.READY:
            raise LifecycleError(f"{self.id} cannot pause: it is {self.status.value}.")
        self.takes_work = False
        self._resumed = Signal()
        self._enter(Status.PAUSING)
        try:
            await self._quiet()
        except BaseException:  # whoever wanted the pause does not any more
            if self._is(Status.PAUSING):
                self._go_on()
            raise
        if not self._is(Status.PAUSING):
            raise self.lost_error("none")
        self._enter(Status.PAUSED)

    async def _quiet(self) -> None:
        """Wait until no message is being handled."""
        while self._is(Status.PAUSING) and (running := self.running):
            if running[0].state == ENDED:
                await anyio.lowlevel.checkpoint()  # its worker is about to let go of it
            else:
                await asyncio.wait([running[0].let_go()])

    @property
    def running(self) -> list[Invocation]:
        """The messages that are being handled, on all channels."""
        return [call for dispatcher in self.dispatchers.values() for call in dispatcher.running]

    async def resume(self) -> None:
        """Take work again."""
        if self.status is not Status.PAUSED:
            raise LifecycleError(f"{self.id} cannot resume: it is {self.status.value}.")
        self._go_on()

    def _go_on(self) -> None:
        self._enter(Status.RESUMING)
        self._enter(Status.READY)
        self._take_work()
        self._resumed.set()

    async def stop(self) -> None:
        """End the role: what waits is lost, what runs is cancelled, `teardown()` runs, elements are saved."""
        if self.status is Status.STOPPING:
            await self._over.wait()
        if self.status.over:
            return
        was_set_up = self.status not in (Status.DECLARED, Status.STARTING)
        self._enter(Status.STOPPING)
        with anyio.CancelScope(shield=True):  # begun, it is done: who asked may have gone
            await self._end_tasks("it has stopped")
            if was_set_up:
                await self._tear_down()
        if not self.status.over:
            self._enter(Status.STOPPED)

    async def fail(self, why: str) -> None:
        """End the role because it cannot go on."""
        if not self._end.is_set():
            self._enter(Status.FAILED)
            with anyio.CancelScope(shield=True):
                await self._end_tasks(why)

    def lose(self, why: str, error_class: type[RoleLost]) -> None:
        """End at once and without teardown, as in a crash."""
        self.node_lost = error_class is not RoleLost
        self._close(why, error_class)
        self._enter(Status.FAILED)

    async def _end_tasks(self, why: str) -> None:
        self._close(why, RoleLost)
        if not self._begun:
            self._ended.set()
        with anyio.move_on_after(CANCEL_WAIT_S):
            await self._ended.wait()
        if not self._ended.is_set():
            busy = ", ".join(dict.fromkeys(call.where for call in self.running)) or "a task of its own"
            self.node.say("warning", self.id, f"does not stop before {busy} does, which was cancelled")
            await self._ended.wait()

    def _close(self, why: str, error_class: type[RoleLost]) -> None:
        if self._end.is_set():
            return
        self.why_lost, self.takes_work = why, False
        if self._starting is not None:
            self._starting.cancel()
        for invocation in list(self.started):
            invocation.cancel()
        for dispatcher in self.dispatchers.values():
            dispatcher.close(why, error_class)
        for inbox in self._inboxes.values():
            inbox.buffer.close(self.lost_error("none"))
        for watcher in list(self.watchers):
            watcher.leave()
        self.relations.forget()
        self._end.set()
        self.node.directory.remove(self)
        self.node.lost(self)
        self._resumed.set()

    async def _tear_down(self) -> None:
        try:
            with anyio.move_on_after(TEARDOWN_S) as scope:
                await self.role.teardown()
                await save_elements(self)
            if scope.cancelled_caught:
                raise TimeoutError(f"it took more than {TEARDOWN_S:g} s and was cancelled")
        except Exception as error:
            self.node.bury("teardown", self.id, "teardown", error)

    def _is(self, status: Status) -> bool:
        return self.status is status

    def _enter(self, status: Status) -> None:
        self.status, self.since_s = status, self.node.time_s
        if status.over:
            self._over.set()
        self.node.status_changed(StatusChange(self.node.time_s, self.id, status.value))

    def _take_work(self) -> None:
        self.takes_work = True
        for dispatcher in self.dispatchers.values():
            dispatcher.wake()

    def admits(self, invocation: Invocation) -> bool:
        """Whether a message may be handled now: while pausing, only what a running handler waits for."""
        if self.takes_work or self.status is not Status.PAUSING:
            return self.takes_work
        parent: Handling | None = invocation.parent
        while parent is not None:
            if isinstance(parent, Invocation) and parent.dispatcher.instance is self and parent.state == RUNNING:
                return True
            parent = parent.parent
        return False

    def lost_error(self, effect: str) -> RoleLost:
        """Return the error for those who reach for this role after its end."""
        return (NodeLost if self.node_lost else RoleLost)(self.id, self.why_lost, effect)

    def spawn(self, function: Callable[[], Coroutine[Any, Any, Any]], name: str) -> None:
        """Start a task of the role, in a context of its own: nothing of the caller's leaks into it."""
        if self._tasks is not None:
            _ = self._context.run(functools.partial(self._tasks.start_soon, function, name=name))
            return
        self._early.append((function, name))
        self.begin()

    # ------------------------------------------------------------------------------------------ messages

    def request(
        self,
        dispatcher: Port,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parent: Handling | None,
        deadline: float,
        *,
        reports: Any = None,
        items: Any = None,
        shared: Any = None,
    ) -> Invocation:
        """Check and submit a message of this role; never waits."""
        instance = dispatcher.instance
        dispatcher.signature.check(args, kwargs)
        if dispatcher.options.allow is not None:
            self._require_allowed(dispatcher)
        future = self.node.loop.create_future()
        invocation = Invocation(dispatcher, self.id, args, kwargs, future=future, parent=parent, deadline=deadline)
        invocation.reports, invocation.items = reports, items
        if instance.node.checker is not None:
            instance.node.checker.passed(invocation, shared)
        invocation.bytes = _bytes_of(args, kwargs)
        dispatcher.submit(invocation)
        return invocation

    def _require_allowed(self, dispatcher: Port) -> None:
        instance = dispatcher.instance  # a role on another node looks itself
        if isinstance(instance, RoleInstance):
            instance.require_allowed(self.id, dispatcher.name)

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

    def topic(self, topic: Topic[Any]) -> OwnTopic[Any]:
        found = self._topics.get(topic.name)
        if found is None:
            found = self._topics[topic.name] = OwnTopic(self, topic)
        return found

    def inbox(self, inbox: Inbox[Any]) -> OwnInbox[Any]:
        found = self._inboxes.get(inbox.name)
        if found is None:
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

    async def safe_point(self) -> None:
        handling = CURRENT.get()
        resumable = isinstance(handling, Invocation) and handling.dispatcher.options.resumable
        if self.draining and (resumable or handling is None):
            raise Parked
        if self.status not in (Status.PAUSING, Status.PAUSED):
            await anyio.lowlevel.checkpoint()  # a routine may await nothing else
            return
        if resumable:
            raise Parked
        if handling is None:
            await self._resumed.wait()
            await self.safe_point()

    def drain(self) -> None:
        """End the main routine and the resumable tasks at their next safe point, for good."""
        self.draining = True

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


def _bytes_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return about how many bytes arguments hold; plain numbers count as nothing."""
    size = 0
    for value in args:
        if type(value) not in _SMALL:
            size += size_bytes(value)
    for value in kwargs.values():
        size += size_bytes(value)
    return size
