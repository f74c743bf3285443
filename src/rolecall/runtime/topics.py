"""Topics at their source: who subscribes, under which conditions, and how an event reaches them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from rolecall.core.annotations import type_name
from rolecall.core.conditions import Conditions, compile_conditions
from rolecall.core.ends import Subscription, TopicEnd
from rolecall.core.errors import LifecycleError, RolecallError, RoleLost, WrongType
from rolecall.core.ids import RoleId
from rolecall.core.policies import EventOverflow, check_queue
from rolecall.core.signatures import accepted_classes
from rolecall.core.topics import Topic
from rolecall.runtime.buffers import Admission, Buffer, admitted
from rolecall.runtime.calls import PARKED, Invocation
from rolecall.runtime.dispatcher import Dispatcher
from rolecall.wire import size_bytes

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance
    from rolecall.runtime.remote_topics import RemoteTopic

__all__ = ("HandlerSink", "OwnTopic", "Sink", "Taken")

T = TypeVar("T")


class Sink(Protocol):
    """Where the events of a topic go: to whom, and how many may wait there."""

    subscriber: RoleId
    capacity: int
    overflow: EventOverflow

    @property
    def where(self) -> str:
        """What it is, for errors."""

    def offer(self, source: RoleId, item: Any, size: int) -> Admission | None:
        """Hand over an event of `size` bytes; return its wait when there is no room."""


class HandlerSink:
    """Events go to a handler, through a mailbox of its own."""

    def __init__(self, dispatcher: Dispatcher, overflow: EventOverflow = "wait") -> None:
        self._dispatcher, self._latest = dispatcher, overflow == "latest"
        self.where, self.subscriber = dispatcher.where, dispatcher.role
        self.capacity, self.overflow = dispatcher.options.mailbox, overflow

    def offer(self, source: RoleId, item: Any, size: int) -> Admission | None:
        dispatcher = self._dispatcher
        if dispatcher.closed:
            return None
        if self._latest:
            self._forget(source)
        invocation = Invocation(dispatcher, source, (source, item), {})
        invocation.bytes = size
        dispatcher.submit(invocation)
        if invocation.state != PARKED or invocation.admission is None:
            return None
        return Admission(invocation.admission, invocation.cancel)

    def leave(self, source: RoleId) -> None:
        """Let a source go that waits for room: the role listens to it no more."""
        for invocation in [parked for parked in self._dispatcher.parked if parked.caller == source]:
            invocation.cancel()

    def _forget(self, source: RoleId) -> None:
        for invocation in [waiting for waiting in self._dispatcher.mailbox if waiting.caller == source]:
            invocation.cancel()


class OwnTopic(TopicEnd[T], Generic[T]):
    """A role's own topic: its subscriptions and their conditions."""

    def __init__(self, instance: RoleInstance, topic: Topic[T]) -> None:
        self._instance, self._topic, self.name = instance, topic, topic.name
        self.declaration = topic
        self._accepted = accepted_classes(topic.type)
        self._sinks: dict[Sink, Conditions | None] = {}

    @property
    def role(self) -> RoleId:
        """Whose topic it is."""
        return self._instance.id

    def attach(self, sink: Sink, condition: Conditions | None) -> None:
        """Add a subscriber."""
        self._sinks[sink] = condition

    def detach(self, sink: Sink) -> None:
        """Remove a subscriber."""
        self._sinks.pop(sink, None)

    async def emit(self, item: T, /) -> None:
        if not isinstance(item, self._accepted):
            where = f"{self._instance.id}.{self.name}: event"
            raise WrongType(where, type_name(self._topic.type), type_name(type(item)))
        checker = self._instance.node.checker
        if checker is not None:
            item = checker.emitted(self._instance, self._topic, item)
        waiting = self._offer(item)
        if waiting:
            await admitted(waiting)

    def publish(self, item: T) -> None:
        """Emit without waiting for those whose queues are full; for the runtime's own topics."""
        self._offer(item)

    def _offer(self, item: T) -> list[Admission]:
        """Hand an event to every subscriber at once, and return the waits of those whose queues are full."""
        if not self._sinks:
            return []
        source, size = self._instance.id, size_bytes(item)
        waits = [
            sink.offer(source, item, size)
            for sink, condition in list(self._sinks.items())
            if condition is None or self._holds(condition, item, sink)
        ]
        return [wait for wait in waits if wait is not None]

    def _holds(self, condition: Conditions, item: T, sink: Sink) -> bool:
        """Check a condition; one that cannot be checked is its subscriber's fault, not the emitter's."""
        try:
            return condition(item)
        except Exception as error:
            problem = RolecallError(f"the condition of {sink.where} failed: {type(error).__name__}: {error}")
            self._instance.node.bury("event", self._instance.id, self.name, problem)
            return False

    def subscribe(
        self, *, where: Mapping[str, Any] | None = None, capacity: int = 64, overflow: EventOverflow = "wait"
    ) -> Subscription[T]:
        return self._instance.subscribe("", (self._instance.id,), self._topic, where or {}, capacity, overflow)


class Taken(Subscription[T], Generic[T]):
    """A subscription whose events wait until the role takes them."""

    def __init__(
        self, host: RoleInstance, sources: tuple[RoleId, ...], topic: Topic[T], where: Mapping[str, Any],
        capacity: int, overflow: EventOverflow,
    ) -> None:  # fmt: skip
        self._host, self._sources, self._topic = host, sources, topic
        self.where = f"{host.id}: subscription to {topic.name}"
        check_queue(self.where, capacity, overflow)
        self._buffer: Buffer[T] = Buffer(capacity, overflow)
        self._condition = compile_conditions(where, topic.type, host.role, self.where) if where else None
        self.subscriber, self.capacity, self.overflow = host.id, capacity, overflow
        self._topics: list[OwnTopic[T] | RemoteTopic] = []
        self._lost: dict[RoleId, RoleLost] = {}
        self._entered = False

    def offer(self, source: RoleId, item: T, size: int) -> Admission | None:
        """Take in an event; called by the topics subscribed to."""
        return self._buffer.offer(source, item, size)

    def lose(self, source: RoleId, error: RoleLost) -> None:
        """Fail those who wait for an event of a role that is gone."""
        if source in self._sources:
            self._lost[source] = error
            self._buffer.lose(source, error)
            if len(self._lost) == len(self._sources):
                self._buffer.lose(None, error)

    def leave(self) -> None:
        """Listen no more; emitters must not wait for a reader that has left."""
        self._host.watchers.pop(self, None)
        for topic in self._topics:
            topic.detach(self)
        self._topics.clear()
        self._buffer.release()
        self._entered = False

    async def __aenter__(self) -> Self:
        try:
            for source in self._sources:
                topic = self._host.node.topic(source, self._topic)
                topic.attach(self, self._condition)
                self._topics.append(topic)
        except RolecallError:
            self.leave()
            raise
        self._host.watchers[self] = None
        self._entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    async def take(self, *, source: RoleId | None = None) -> tuple[RoleId, T]:
        if source is None:
            return await self._buffer.take(alive=self._require_any)
        return await self._buffer.take(None, source, self._require)

    async def collect(self, sources: Iterable[RoleId]) -> dict[RoleId, T]:
        return await self._buffer.collect(sources, None, self._require)

    async def __anext__(self) -> tuple[RoleId, T]:
        try:
            return await self.take()
        except RoleLost:
            raise StopAsyncIteration from None

    def _require(self, sources: Iterable[RoleId]) -> None:
        """Raise unless each of the sources can still emit to this subscription."""
        for source in sources:
            if source in self._lost:
                raise self._lost[source].copied()
            if source not in self._sources:
                raise LifecycleError(f"{self.where}: {source} is none of its sources.")
        self._require_entered()

    def _require_any(self, none: Iterable[RoleId]) -> None:
        """Raise unless one of the sources can still emit to this subscription."""
        if self._lost and len(self._lost) == len(self._sources):
            raise next(reversed(self._lost.values())).copied()
        self._require_entered()

    def _require_entered(self) -> None:
        if not self._entered:
            raise LifecycleError(f"{self.where}: no event will come. Use it inside `async with`.")

    def drain(self) -> list[tuple[RoleId, T]]:
        return self._buffer.drain()

    def __len__(self) -> int:
        return len(self._buffer)
