"""What stands for a role at the other end of a relationship, and the calls made through it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Iterable, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar

from rolecall.core.context import CURRENT, Handling
from rolecall.core.declarations import Declarations, declarations
from rolecall.core.ends import (
    Endpoint,
    InboxEnd,
    ItemStream,
    Outcome,
    StreamEndpoint,
    Subscription,
    TaskEndpoint,
    TaskHandle,
    TopicEnd,
)
from rolecall.core.errors import DeadlineExceeded, NotAChannel, Refused, Superseded
from rolecall.core.ids import RoleId
from rolecall.core.inboxes import Inbox
from rolecall.core.policies import EventOverflow
from rolecall.core.topics import Topic
from rolecall.runtime.calls import Invocation, Reports, outlive, stopped
from rolecall.runtime.deadlines import effective_deadline
from rolecall.runtime.items import Items
from rolecall.runtime.requests import call, request

if TYPE_CHECKING:
    from rolecall.runtime.calls import Port
    from rolecall.runtime.instance import RoleInstance

__all__ = ("RoleProxy", "start_task")

P = ParamSpec("P")
T = TypeVar("T")
STREAM_WINDOW = 16


class RoleProxy:
    """Stands for a role; its attributes are the channels that the declared class has."""

    def __init__(self, host: RoleInstance, role: RoleId | None, role_class: type) -> None:
        self.__dict__["_made_of"] = (host, role, declarations(role_class))

    def __getattr__(self, name: str) -> Any:
        host, role, declared = self.__dict__["_made_of"]
        if name.startswith("__"):
            raise AttributeError(name)
        end = _make_end(host, role, declared, name)
        self.__dict__[name] = end
        return end

    def __setattr__(self, name: str, value: Any) -> None:
        raise NotAChannel(_described(*self.__dict__["_made_of"][1:]), name, [])

    def __repr__(self) -> str:
        return f"<{_described(*self.__dict__['_made_of'][1:])}>"


def _described(role: RoleId | None, declared: Declarations) -> str:
    return f"{role or 'any role'} ({declared.role_class.__name__})"


def _make_end(host: RoleInstance, role: RoleId | None, declared: Declarations, name: str) -> Any:
    to = role if role is not None else RoleId("")
    if name in declared.channels:
        kind = {"service": CallEndpoint, "task": StartEndpoint, "stream": ReadEndpoint}[declared.channels[name].kind]
        return kind(host, to, name, declared)
    if name in declared.topics:
        return RemoteTopic(host, to, declared.topics[name])
    if name in declared.inboxes:
        return RemoteInbox(host, to, declared.inboxes[name])
    if name == "id":
        return to
    raise NotAChannel(_described(role, declared), name, declared.names)


class _Reach:
    """Finds where messages of a channel go, and keeps that while the role lives."""

    def __init__(self, host: RoleInstance, role: RoleId, name: str, declared: Declarations) -> None:
        self.host, self.role, self.name, self._declared = host, role, name, declared
        self._port: Port | None = None

    def reach(self) -> Port:
        """Return where messages of the channel go; raises what a call to it would."""
        if self._port is None or self._port.closed:
            self._port = self.host.node.dispatcher(self.role, self.name, self._declared)
        return self._port


class CallEndpoint(_Reach, Endpoint[P, T], Generic[P, T]):
    """A service of another role."""

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> T:
        invocation = call(self.host, self.reach(), args, kwargs)
        try:
            result: T = await invocation.future  # type: ignore[misc]
        except asyncio.CancelledError:
            await self.host.give_up(invocation)
            raise
        except DeadlineExceeded:
            await outlive(invocation.deadline)
            raise
        return result


class StartEndpoint(CallEndpoint[P, T], TaskEndpoint[P, T, Any], Generic[P, T]):
    """A task of another role."""

    async def start(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[T, Any]:
        return await start_task(self.host, self.reach(), args, kwargs)


class ReadEndpoint(_Reach, StreamEndpoint[P, T], Generic[P, T]):
    """A stream of another role."""

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ItemStream[T]:
        return Reader(self, args, kwargs, CURRENT.get(), effective_deadline(self.host.node.loop))


# ---------------------------------------------------------------------------------------------- tasks


async def start_task(
    host: RoleInstance, dispatcher: Port, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> TaskHandle[Any, Any]:
    """Start a task for a role and return its handle once the mailbox has admitted it."""
    invocation = request(host, dispatcher, args, kwargs, None, inf, reports=Reports())
    handle: Handle[Any] = Handle(host, invocation)
    if invocation.admission is not None:
        try:
            admitted = await invocation.admission
        except asyncio.CancelledError:
            invocation.cancel()
            raise
        if not admitted:
            await handle.result()
    return handle


class Handle(TaskHandle[T, Any], Generic[T]):
    """A started task, kept by the role that started it."""

    def __init__(self, host: RoleInstance, invocation: Invocation) -> None:
        self._invocation, self._host = invocation, host
        self._told = False
        self._reports = invocation.reports if invocation.reports is not None else Reports()
        host.started[invocation] = None
        future = invocation.future
        assert future is not None
        self._future: asyncio.Future[T] = future
        # The callback keeps the handle until the task has ended, whatever becomes of other references to it.
        future.add_done_callback(lambda done: self._host.started.pop(invocation, None))

    @property
    def role(self) -> RoleId:
        return self._invocation.dispatcher.role

    @property
    def done(self) -> bool:
        return self._future.done()

    async def result(self) -> T:
        if not self._future.done():
            await asyncio.wait([self._future])
        self._told = True
        if self._future.cancelled():
            raise self._host.cancelled_error(self._invocation)
        return self._future.result()

    async def cancel(self) -> Outcome:
        return await self._invocation.outcome()

    def __aiter__(self) -> AsyncIterator[Any]:
        return self._reports

    def __del__(self) -> None:
        if not self._told:
            _bury_failure(self._host, self._invocation)


# ---------------------------------------------------------------------------------------------- streams


class Reader(ItemStream[T], Generic[T]):
    """The reading end of a stream; chain and deadline are those of the call that made it."""

    def __init__(
        self,
        reach: _Reach,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        parent: Handling | None,
        deadline: float,
    ) -> None:
        self._reach, self._args, self._kwargs = reach, args, kwargs
        self._parent, self._deadline = parent, deadline
        self._items: Items[T] = Items(STREAM_WINDOW)
        self._invocation: Invocation | None = None
        self._over = False

    async def __anext__(self) -> T:
        if self._over:
            raise StopAsyncIteration
        if self._invocation is None:
            self._invocation = self._open()
        try:
            return await self._items.read()
        except StopAsyncIteration:
            if not self._over:  # else it was closed meanwhile
                self._over = True
                if (error := _failure(self._invocation)) is not None:
                    await outlive(self._deadline)
                    raise error from None
            raise

    async def aclose(self) -> None:
        if self._over:
            return
        self._over = True
        self._items.close()
        self._items.waiting.clear()
        if self._invocation is not None:
            _bury_failure(self._reach.host, self._invocation)
            self._invocation.cancel()
            await stopped(self._invocation)

    def __del__(self) -> None:
        if self._invocation is not None and not self._over:
            host = self._reach.host
            host.node.on_loop(self._invocation.cancel)
            _bury_failure(host, self._invocation)

    def _open(self) -> Invocation:
        host = self._reach.host
        invocation = request(
            host, self._reach.reach(), self._args, self._kwargs, self._parent, self._deadline, items=self._items
        )
        host.started[invocation] = None
        if invocation.future is not None:
            invocation.future.add_done_callback(lambda done: host.started.pop(invocation, None))
        self._parent = None
        return invocation


def _failure(invocation: Invocation) -> BaseException | None:
    """Return the error that a task or stream ended with, if it has."""
    future = invocation.future
    return None if future is None or not future.done() or future.cancelled() else future.exception()


def _bury_failure(host: RoleInstance, invocation: Invocation) -> None:
    """Keep the error of a task or stream that nobody asked for, unless it is a normal answer."""
    error, dispatcher = _failure(invocation), invocation.dispatcher
    if error is not None and not isinstance(error, Refused | Superseded):
        host.node.on_loop(host.node.bury, dispatcher.kind, dispatcher.role, dispatcher.name, error)


# ----------------------------------------------------------------------------------------- topics and inboxes


class RemoteTopic(TopicEnd[T], Generic[T]):
    """A topic of another role: to subscribe to."""

    def __init__(self, host: RoleInstance, role: RoleId, topic: Topic[T]) -> None:
        self._host, self._role, self._topic, self.name = host, role, topic, topic.name

    async def emit(self, item: T, /) -> None:
        raise NotAChannel(str(self._role), f"{self.name}.emit", [f"{self.name}.subscribe"])

    def subscribe(
        self, *, where: Mapping[str, Any] | None = None, capacity: int = 64, overflow: EventOverflow = "wait"
    ) -> Subscription[T]:
        return self._host.subscribe("", (self._role,), self._topic, where or {}, capacity, overflow)


class RemoteInbox(InboxEnd[T], Generic[T]):
    """An inbox of another role: to put into."""

    def __init__(self, host: RoleInstance, role: RoleId, inbox: Inbox[T]) -> None:
        self._host, self._role, self._inbox, self.name = host, role, inbox, inbox.name

    async def put(self, item: T, /) -> None:
        await self._host.put(self._role, self._inbox, item)

    async def take(self, key: Hashable = None, *, source: RoleId | None = None) -> T:
        raise self._not_ours("take")

    async def collect(self, sources: Iterable[RoleId], *, key: Hashable = None) -> dict[RoleId, T]:
        raise self._not_ours("collect")

    def drain(self) -> list[tuple[RoleId, T]]:
        raise self._not_ours("drain")

    def __len__(self) -> int:
        raise self._not_ours("len")

    def _not_ours(self, what: str) -> NotAChannel:
        return NotAChannel(str(self._role), f"{self.name}.{what}", [f"{self.name}.put"])
