"""Topics between nodes: the emitter's end of a subscription from elsewhere, and the subscriber's."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeAlias

from rolecall.core.conditions import Conditions, compile_conditions
from rolecall.core.errors import RolecallError
from rolecall.core.ids import RoleId
from rolecall.core.topics import Topic
from rolecall.runtime.buffers import Admission
from rolecall.runtime.wire_errors import from_wire
from rolecall.wire import Segment, decode, size_bytes
from rolecall.wire import frames as f
from rolecall.wire.limits import LinkOverflow

if TYPE_CHECKING:
    from rolecall.runtime.network import Network
    from rolecall.runtime.topics import Sink

__all__ = ("RemoteTopic", "WireSink")

_Kept: TypeAlias = tuple[list[Segment], asyncio.Future[None] | None]

WINDOW = 16
"""Events that may be on their way to a subscriber that has not yet taken them in."""
GRANT = 8
"""Events that are taken in before credit is given for so many more: one message for all of them."""


class WireSink:
    """A subscriber on another node, at the topic: sends what it has credit for, keeps a bounded number beyond."""

    __slots__ = (
        "_credit", "_event", "_kept", "_network", "_peer", "capacity", "condition", "overflow", "subscriber", "topic",
    )  # fmt: skip

    def __init__(self, network: Network, peer: str, frame: f.Subscribe) -> None:
        self._network, self._peer, self._event = network, peer, f.Event(frame.id)
        self.topic = topic = network.node.local_topic(RoleId(frame.to), frame.topic)
        subscriber = RoleId(frame.subscriber)
        remote = network.node.directory.remote(subscriber)
        self.subscriber = remote.id if remote is not None else subscriber
        self.overflow, self.capacity = frame.overflow, max(1, frame.capacity)
        where, declared = dict(frame.where), topic.declaration.type
        self.condition: Conditions | None = compile_conditions(where, declared, None, self.where) if where else None
        self._credit = WINDOW
        self._kept: list[_Kept] | None = None

    @property
    def where(self) -> str:
        """What it is, for errors."""
        return f"{self.subscriber}: subscription to {self.topic.name}"

    def offer(self, source: RoleId, item: Any, size: int) -> Admission | None:
        """Send an event, or keep it; return its wait when its emitter must wait."""
        segments = self._network.encoded(item, self)
        if self._credit > 0 and not self._kept and self._forward(segments):
            return None
        if self.overflow == "wait":
            return self._wait(segments)
        kept = self._keep((segments, None))
        while len(kept) > (1 if self.overflow == "latest" else self.capacity):
            kept.pop(0)
        return None

    def _keep(self, entry: _Kept) -> list[_Kept]:
        if self._kept is None:
            self._kept = []
        self._kept.append(entry)
        return self._kept

    def grant(self, count: int) -> None:
        """Let so many more go."""
        self._credit += count
        while self._credit > 0 and self._kept:
            segments, waiting = self._kept[0]
            try:
                if not self._forward(segments):
                    return
            except RolecallError as error:
                self._network.node.bury("event", self.topic.role, self.topic.name, error)
            self._kept.pop(0)
            if waiting is not None and not waiting.done():
                waiting.set_result(None)

    def close(self) -> None:
        """Let go whoever waits: the subscriber has left."""
        for _, waiting in self._kept or ():
            if waiting is not None and not waiting.done():
                waiting.set_result(None)
        self._kept = None

    def _wait(self, segments: list[Segment]) -> Admission:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry: _Kept = (segments, future)
        self._keep(entry)
        return Admission(future, partial(self._withdraw, entry))

    def _withdraw(self, entry: _Kept) -> None:
        self._kept = [kept for kept in self._kept or () if kept is not entry]

    def _forward(self, segments: list[Segment]) -> bool:
        """Send an event; return False where the link has no room, and go on when it has."""
        try:
            self._network.send(self._peer, self._event, segments, compress=self.topic.declaration.compress)
        except LinkOverflow:
            self._network.when_room(self._peer, partial(self.grant, 0))
            return False
        self._credit -= 1
        return True


class RemoteTopic:
    """A topic of a role on another node, at its subscribers: what `OwnTopic` is where the role is."""

    __slots__ = ("_home", "_network", "_role", "_subscriptions", "_where", "declaration")

    def __init__(self, network: Network, role: RoleId, home: str, topic: Topic[Any]) -> None:
        self._network, self._role, self._home, self.declaration = network, role, home, topic
        self._where = f"{role}.{topic.name}: event"
        self._subscriptions: tuple[_Subscription, ...] = ()

    def attach(self, sink: Sink, condition: Conditions | None) -> None:
        """Subscribe a sink; its conditions are checked at the source."""
        number = self._network.number(self, self._home)
        self._subscriptions += (_Subscription(sink, number),)
        self._network.subscribing(number)
        where = list(getattr(condition, "where", {}).items())
        name = self.declaration.name
        frame = f.Subscribe(number, self._role, name, sink.subscriber, where, sink.capacity, sink.overflow)
        try:
            self._network.send(self._home, frame)
        except RolecallError:
            self.detach(sink, tell=False)
            raise

    def detach(self, sink: Sink, *, tell: bool = True) -> None:
        """End the subscription of a sink."""
        found = next((own for own in self._subscriptions if own.sink is sink), None)
        if found is not None:
            self._subscriptions = tuple(own for own in self._subscriptions if own is not found)
            self._network.forget(found.number)
            self._network.settled(found.number)
            if tell:
                self._network.send(self._home, f.Unsubscribe(found.number))

    def close(self) -> None:
        """Expect no more events: the role is gone."""
        for own in self._subscriptions:
            self._network.forget(own.number)
            self._network.settled(own.number)
        self._subscriptions = ()

    def event(self, number: int, segments: Sequence[memoryview]) -> None:
        """Pass an event to its sink, and give credit for another when it is taken in."""
        for own in self._subscriptions:
            if own.number == number:
                break
        else:
            return
        try:
            item = decode(segments, self.declaration.type, where=self._where)
        except RolecallError as error:
            self._network.node.bury("event", self._role, self.declaration.name, error)
            self._credit(own)
            return
        admission = own.sink.offer(self._role, item, size_bytes(item))
        if admission is None:
            self._credit(own)
        else:
            admission.future.add_done_callback(lambda _: self._credit(own))

    def subscribed(self, number: int) -> None:
        """Take note that the other side has a subscription."""
        self._network.settled(number)

    def failed(self, number: int, error: f.WireError) -> None:
        """Say that a subscription was refused."""
        self._network.settled(number)
        problem = from_wire(error)
        self._network.node.bury("subscription", self._role, self.declaration.name, problem)

    def _credit(self, own: _Subscription) -> None:
        own.owed += 1
        if own.owed >= GRANT and own in self._subscriptions:
            self._network.send(self._home, f.EventCredit(own.number, own.owed))
            own.owed = 0


class _Subscription:
    """A sink here with the number of its subscription, and how many events it has taken without giving credit."""

    __slots__ = ("number", "owed", "sink")

    def __init__(self, sink: Sink, number: int) -> None:
        self.sink, self.number, self.owed = sink, number, 0
