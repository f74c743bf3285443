"""What one other node asks of the roles here: its calls, messages and subscriptions, and how they are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

import anyio

from rolecall.core.context import Handling
from rolecall.core.errors import NotAllowed, RolecallError
from rolecall.core.ids import RoleId
from rolecall.core.on_use import NONE_YET
from rolecall.runtime.calls import Answer, Invocation, Reports, portable
from rolecall.runtime.dispatcher import Dispatcher
from rolecall.runtime.items import Items
from rolecall.runtime.lines import InLine
from rolecall.runtime.remote import DistantHandling
from rolecall.runtime.remote_topics import WireSink
from rolecall.runtime.wire_errors import to_wire
from rolecall.wire import ArgsCodec, Segment, decode, encode, size_bytes
from rolecall.wire import frames as f
from rolecall.wire.limits import LinkOverflow

if TYPE_CHECKING:
    from rolecall.runtime.network import Network

__all__ = ("Inbound",)

_REPLY: Final = f.Reply


class Inbound:
    """The requests of one peer that are under way here."""

    __slots__ = ("_lines", "_lost", "_network", "_peer", "_running", "_sinks")

    def __init__(self, network: Network, peer: str) -> None:
        self._network, self._peer = network, peer
        self._lines: dict[tuple[str, str, str], _Line] = NONE_YET
        self._running: dict[int, Invocation] = NONE_YET
        self._sinks: dict[int, WireSink] = NONE_YET
        self._lost = False

    def lose(self) -> None:
        """Cancel everything: nobody is there to take the answers."""
        self._lost = True
        for invocation in list(self._running.values()):
            invocation.cancel()
        for number in list(self._sinks):
            self.unsubscribe(number)
        for line in self._lines.values():
            line.withdraw()
            if (promised := line.redeem()) is not None:
                promised.make_way()

    # ------------------------------------------------------------------------------------------ calls

    def call(self, frame: f.Call, segments: Sequence[memoryview]) -> None:
        """Take a call in its turn, or answer that there is no room."""
        line = self._line(frame.caller, frame.to, frame.channel)
        if not line.is_next(frame.order):
            self._send(f.Full(frame.id))
            return
        promised = line.redeem()
        size = _bytes_of(segments)
        try:
            dispatcher = self._dispatcher(line, frame.channel)
            remaining_s = frame.remaining_s
            if remaining_s is not None and remaining_s <= 0:
                self._send(f.Cancelled(frame.id))
            elif promised is None and self._must_wait(dispatcher, frame, size):
                self._send(f.Full(frame.id))
                dispatcher.when_room(size, partial(self._promise, dispatcher, frame, line, size))
                return
            else:
                self._submit(dispatcher, line, frame, segments, size, promised=promised is not None)
        except RolecallError as error:
            self._send(f.Failed(frame.id, to_wire(error, f"{frame.to}.{frame.channel}")))
        if promised is not None:
            promised.make_way()
        if line.took():
            self._send(f.Ready(frame.to, frame.channel, frame.caller))

    def cancel(self, number: int) -> None:
        """Stop a handler; the answer says when it has stopped."""
        invocation = self._running.get(number)
        if invocation is not None:
            invocation.stop()

    def credit(self, number: int, count: int) -> None:
        """Let the writer of a stream go on."""
        invocation = self._running.get(number)
        if invocation is not None and isinstance(invocation.items, _WireItems):
            invocation.items.grant(count)

    def _dispatcher(self, line: _Line, channel: str) -> Dispatcher:
        self._require_bound(line.caller, line.to, channel)
        found: Dispatcher = self._network.node.local_dispatcher(line.to, channel)
        if found.guarded:
            found.instance.require_allowed(line.caller, channel)
        return found

    def _submit(
        self,
        dispatcher: Dispatcher,
        line: _Line,
        frame: f.Call,
        segments: Sequence[memoryview],
        size: int,
        *,
        promised: bool,
    ) -> None:
        args, kwargs = ArgsCodec.of(dispatcher.signature).decode(segments)
        parent = _chain(frame.chain)
        deadline = inf if (remaining_s := frame.remaining_s) is None else anyio.current_time() + remaining_s
        invocation = Invocation(dispatcher, line.caller, args, kwargs, parent=parent, deadline=deadline)
        invocation.bytes = size  # what `must_wait` was asked for, so that it is never parked here
        number: int = frame.id
        invocation.answer = _Answer(self, number, dispatcher)
        if (kind := frame.kind) != "call":
            self._prepare(invocation, number, kind, frame.window)
        if self._running is NONE_YET:
            self._running = {}
        self._running[number] = invocation
        try:
            dispatcher.submit(invocation, promised=promised)
        except RolecallError:
            del self._running[number]
            raise
        if kind == "start":
            self._send(f.Admitted(number))

    def _prepare(self, invocation: Invocation, number: int, kind: f.CallKind, window: int) -> None:
        """Have what a task reports, or a stream yields, go to the peer."""
        compress = invocation.dispatcher.options.compress
        if kind == "stream":
            when_room = partial(self._network.when_room, self._peer)
            invocation.items = _WireItems(window, partial(self._item, number, compress), when_room)
        else:
            invocation.reports = _WireReports(partial(self._progress, number, compress))

    def finished(self, number: int, dispatcher: Dispatcher, result: Any) -> None:
        """Answer with the result of a handler."""
        self._running.pop(number, None)
        try:
            segments = encode(result, where=dispatcher.where + ": result")
            self._send(_REPLY(number), segments, compress=dispatcher.options.compress)
        except RolecallError as problem:  # it cannot travel, or is too large
            self._send(f.Failed(number, to_wire(problem, dispatcher.where)))

    def failed(self, number: int, where: str, error: Exception) -> None:
        """Answer with what went wrong."""
        self._running.pop(number, None)
        self._send(f.Failed(number, to_wire(portable(error, where), where)))

    def cancelled(self, number: int) -> None:
        """Answer that there will be no result."""
        self._running.pop(number, None)
        self._send(f.Cancelled(number))

    def _item(self, number: int, compress: bool, item: Any) -> None:
        self._send(f.Item(number), encode(item, where="item"), compress=compress)

    def _progress(self, number: int, compress: bool, report: Any) -> None:
        try:
            self._send(f.Progress(number), encode(report, where="progress"), compress=compress)
        except LinkOverflow:  # of many reports the newest count, and the link is full
            pass

    def _must_wait(self, dispatcher: Dispatcher, frame: f.Call, size: int) -> bool:
        if not dispatcher.must_wait(size):
            return False
        if (parent := _chain(frame.chain)) is not None:
            dispatcher.refuse_cycle(parent)
        return True

    def _promise(self, dispatcher: Dispatcher, frame: f.Call, line: InLine, size: int) -> bool:
        if self._lost:
            return False
        line.promised, line.promised_bytes = dispatcher, size
        self._send(f.Ready(frame.to, frame.channel, frame.caller))
        return True

    # ------------------------------------------------------------------------------------------ inboxes and topics

    def put(self, frame: f.Put, segments: Sequence[memoryview]) -> None:
        """Put a message into an inbox in its turn, or answer that there is no room."""
        line = self._line(frame.caller, frame.to, frame.inbox)
        if not line.is_next(frame.order):
            self._send(f.Full(frame.id))
            return
        promised = line.redeem()
        try:
            if not self._put(frame, segments, line, promised=promised is not None):
                self._send(f.Full(frame.id))
                return
            self._send(f.Admitted(frame.id))
        except RolecallError as error:
            self._send(f.Failed(frame.id, to_wire(error, f"{frame.to}.{frame.inbox}")))
        line.withdraw()
        if promised is not None:
            promised.make_way()
        if line.took():
            self._send(f.Ready(frame.to, frame.inbox, frame.caller))

    def _put(self, frame: f.Put, segments: Sequence[memoryview], line: _Line, *, promised: bool) -> bool:
        self._require_bound(line.caller, line.to, frame.inbox)
        end = self._network.node.local_inbox(line.to, frame.inbox)
        if not segments:  # its sender has left, and the line goes on
            return True
        item = decode(segments, end.declaration.type, where=f"{line.to}.{frame.inbox}: message")
        size = size_bytes(item)
        if end.buffer.take_in(line.caller, item, size, promised=promised):
            return True
        if line.asked is None:
            ready = partial(self._send, f.Ready(frame.to, frame.inbox, frame.caller))
            line.ask(end.buffer, size, ready)
        return False

    def subscribe(self, frame: f.Subscribe) -> None:
        """Send the events of a topic to the peer from now on."""
        try:
            self._require_bound(RoleId(frame.subscriber), frame.to, frame.topic)
            sink = WireSink(self._network, self._peer, frame)
            sink.topic.attach(sink, sink.condition)
        except RolecallError as error:
            self._send(f.Failed(frame.id, to_wire(error, f"{frame.to}.{frame.topic}")))
        else:
            if self._sinks is NONE_YET:
                self._sinks = {}
            self._sinks[frame.id] = sink
            self._send(f.Subscribed(frame.id))

    def unsubscribe(self, number: int) -> None:
        """End a subscription."""
        sink = self._sinks.pop(number, None)
        if sink is not None:
            sink.topic.detach(sink)
            sink.close()

    def event_credit(self, number: int, count: int) -> None:
        """Let more events of a subscription come."""
        if number in self._sinks:
            self._sinks[number].grant(count)

    # ------------------------------------------------------------------------------------------ both

    def _line(self, caller: str, to: str, name: str) -> _Line:
        line = self._lines.get((caller, to, name))
        if line is None:
            if self._lines is NONE_YET:
                self._lines = {}
            line = self._lines[caller, to, name] = _Line(RoleId(caller), RoleId(to))
        return line

    def _require_bound(self, caller: RoleId, to: str, name: str) -> None:
        """Raise unless the peer holds the role it speaks for."""
        if not self._network.speaks_for(self._peer, caller):
            where = f"{to}.{name}"
            self._network.node.audit("deny", who=self._peer, channel=where, why=f"it does not hold {caller}")
            raise NotAllowed(f"{caller} (through node {self._peer})", where, "roles of that node")

    def _send(self, frame: f.Frame, segments: Sequence[Segment] = (), *, compress: bool = False) -> None:
        if not self._lost:  # another life of the peer would take it for an answer to a request of its own
            self._network.send(self._peer, frame, segments, compress=compress)


class _Line(InLine):
    """The messages of one role to one channel or inbox here."""

    __slots__ = ("caller", "to")

    def __init__(self, caller: RoleId, to: RoleId) -> None:
        super().__init__()
        self.caller, self.to = caller, to


class _Answer(Answer):
    """The answer to a call of another node."""

    __slots__ = ("_dispatcher", "_inbound", "_number")

    def __init__(self, inbound: Inbound, number: int, dispatcher: Dispatcher) -> None:
        super().__init__()
        self._inbound, self._number, self._dispatcher = inbound, number, dispatcher

    def finish(self, result: Any) -> None:
        self.given = True
        self._inbound.finished(self._number, self._dispatcher, result)

    def fail(self, error: Exception) -> None:
        self.given = True
        self._inbound.failed(self._number, self._dispatcher.where, error)

    def cancel(self) -> None:
        self.given = True
        self._inbound.cancelled(self._number)


def _bytes_of(segments: Sequence[memoryview]) -> int:
    return len(segments[0]) if len(segments) == 1 else sum(map(len, segments))


def _chain(keys: list[str]) -> Handling | None:
    parent: Handling | None = None
    for key in reversed(keys):
        parent = DistantHandling(key, parent)
    return parent


class _WireReports(Reports):
    """Progress reports that go to the node that started the task."""

    def __init__(self, send: Any) -> None:
        super().__init__()
        self._send = send

    def add(self, report: Any) -> None:
        self._send(report)


class _WireItems(Items[Any]):
    """The items of a stream on their way to another node: as many as it gave credit for."""

    def __init__(
        self, window: int, send: Callable[[Any], None], when_room: Callable[[Callable[[], None]], None]
    ) -> None:
        super().__init__(window)
        self._send, self._when_room, self._credit = send, when_room, window
        self._go_on: asyncio.Future[None] | None = None

    def grant(self, count: int) -> None:
        """Let so many more go."""
        self._credit += count
        if self._go_on is not None and not self._go_on.done():
            self._go_on.set_result(None)

    async def write(self, item: Any) -> None:
        while self._credit <= 0 or not self._sent(item):
            self._go_on = asyncio.get_running_loop().create_future()
            await self._go_on
        self._credit -= 1

    def _sent(self, item: Any) -> bool:
        """Send an item; return False where the link has no room, and go on when it has."""
        try:
            self._send(item)
        except LinkOverflow:
            self._when_room(partial(self.grant, 0))
            return False
        return True
