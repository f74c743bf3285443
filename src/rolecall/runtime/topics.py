"""Topics at their source: who subscribes, under which conditions, and how an event reaches them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from rolecall.core.annotations import type_name
from rolecall.core.conditions import Condition, compile_conditions
from rolecall.core.ends import Subscription, TopicEnd
from rolecall.core.errors import RoleLost, WrongType
from rolecall.core.ids import RoleId
from rolecall.core.policies import Overflow
from rolecall.core.signatures import accepted_classes
from rolecall.core.topics import Topic
from rolecall.runtime.buffers import Buffer
from rolecall.runtime.calls import PARKED, Invocation
from rolecall.runtime.dispatcher import Dispatcher

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("HandlerSink", "OwnTopic", "Sink", "Taken")

T = TypeVar("T")


class Sink(Protocol):
    """Where the events of a topic go."""

    def offer(self, source: RoleId, item: Any) -> asyncio.Future[None] | None:
        """Hand over an event; return what to wait for when there is no room."""


class HandlerSink:
    """Events go to a handler, through a mailbox of its own."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def offer(self, source: RoleId, item: Any) -> asyncio.Future[None] | None:
        dispatcher = self._dispatcher
        if dispatcher.closed:
            return None
        invocation = Invocation(dispatcher, source, (source, item), {})
        dispatcher.submit(invocation)
        return invocation.admission if invocation.state == PARKED else None


class OwnTopic(TopicEnd[T], Generic[T]):
    """A role's own topic: its subscriptions and their conditions."""

    def __init__(self, instance: RoleInstance, topic: Topic[T]) -> None:
        self._instance, self._topic, self.name = instance, topic, topic.name
        self._accepted = accepted_classes(topic.type)
        self._sinks: dict[Sink, Condition | None] = {}

    def attach(self, sink: Sink, condition: Condition | None) -> None:
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
        full = [waiting for sink in self._accepting(item) if (waiting := sink.offer(self._instance.id, item))]
        for admission in full:
            await admission

    def publish(self, item: T) -> None:
        """Emit without waiting for those whose queues are full; for the runtime's own topics."""
        for sink in self._accepting(item):
            sink.offer(self._instance.id, item)

    def _accepting(self, item: T) -> list[Sink]:
        return [sink for sink, condition in self._sinks.items() if condition is None or condition(item)]

    def subscribe(
        self, *, where: Mapping[str, Any] | None = None, capacity: int = 64, overflow: Overflow = "wait"
    ) -> Subscription[T]:
        return self._instance.subscribe(
            "", (self._instance.id,), self._topic, where or {}, capacity, overflow
        )


class Taken(Subscription[T], Generic[T]):
    """A subscription whose events wait until the role takes them."""

    def __init__(
        self, host: RoleInstance, sources: tuple[RoleId, ...], topic: Topic[T], where: Mapping[str, Any],
        capacity: int, overflow: Overflow,
    ) -> None:  # fmt: skip
        self._host, self._sources, self._topic = host, sources, topic
        self._buffer: Buffer[T] = Buffer(capacity, overflow)
        place = f"{host.id}: subscription to {topic.name}"
        self._condition = compile_conditions(where, topic.type, host.role, place) if where else None

    def offer(self, source: RoleId, item: T) -> asyncio.Future[None] | None:
        """Take in an event; called by the topics subscribed to."""
        return self._buffer.offer(source, item)

    def lose(self, source: RoleId, error: RoleLost) -> None:
        """Fail those who wait for an event of a role that is gone."""
        self._buffer.lose(source, error)

    async def __aenter__(self) -> Self:
        for source in self._sources:
            self._host.node.topic(source, self._topic.name).attach(self, self._condition)
        self._host.watchers.add(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._host.watchers.discard(self)
        for source in self._sources:
            topic = self._host.node.find_topic(source, self._topic.name)
            if topic is not None:
                topic.detach(self)
        for admission, *_ in self._buffer.parked:  # emitters must not wait for a reader that has left
            if not admission.done():
                admission.set_result(None)
        self._buffer.parked.clear()

    async def take(self, *, source: RoleId | None = None) -> tuple[RoleId, T]:
        return await self._buffer.take(None, source)

    async def collect(self, sources: Any) -> dict[RoleId, T]:
        wanted = list(sources)
        self._host.node.require_alive(wanted)
        return await self._buffer.collect(wanted)

    def drain(self) -> list[tuple[RoleId, T]]:
        return self._buffer.drain()

    def __len__(self) -> int:
        return len(self._buffer)
