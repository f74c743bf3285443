"""Roles on other nodes, as seen from here: their channels take messages as local ones do, and send them on a link."""

from __future__ import annotations

import asyncio
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any, Final

import anyio
import msgspec

from rolecall.core.channels import Channel
from rolecall.core.context import Handling, chain
from rolecall.core.errors import DeadlineExceeded, NodeLost, RolecallError, RoleLost
from rolecall.core.ids import RoleId
from rolecall.core.inboxes import Inbox
from rolecall.core.on_use import NONE_YET
from rolecall.core.policies import ChannelOptions
from rolecall.core.topics import Topic
from rolecall.runtime.calls import ENDED, PARKED, RUNNING, Invocation, Port
from rolecall.runtime.lines import OutLine
from rolecall.runtime.remote_inboxes import RemoteBox
from rolecall.runtime.remote_topics import RemoteTopic
from rolecall.runtime.wire_errors import from_wire
from rolecall.wire import ArgsCodec, Codec, decode
from rolecall.wire.frames import Call, CallKind, Cancel, Credit
from rolecall.wire.limits import LinkOverflow

if TYPE_CHECKING:
    from rolecall.runtime.network import Network
    from rolecall.runtime.node import Node

__all__ = ("DistantHandling", "RemoteChannel", "RemoteRole", "chain_keys")

REPEATS = 3
"""How often a message of an idempotent channel is sent again, to a later life of its role, and ..."""
REPEAT_WITHIN_S = 30.0
"""... how long it waits for that each time."""
KINDS: Final[Mapping[str, CallKind]] = {"service": "call", "task": "start", "stream": "stream"}


class RemoteRole:
    """A role that lives on another node."""

    __slots__ = ("_boxes", "_topics", "channels", "home", "id", "listed", "lost", "network")

    def __init__(self, network: Network, role: RoleId, home: str, *, listed: bool = True) -> None:
        self.network, self.id, self.home, self.listed = network, role, home, listed
        self.channels: dict[tuple[type, str], RemoteChannel] = NONE_YET
        self._boxes: dict[str, RemoteBox] = NONE_YET
        self._topics: tuple[RemoteTopic, ...] = ()  # few, and there may be many such roles
        self.lost: RoleLost | None = None

    @property
    def node(self) -> Node:
        """The node that sees it."""
        return self.network.node

    def channel(self, owner: type, declared: Channel[Any, Any]) -> RemoteChannel:
        """Return a channel of the role, typed as the class `owner` declares it."""
        key = (owner, declared.name)
        found = self.channels.get(key)
        if found is None:
            if self.channels is NONE_YET:
                self.channels = {}
            found = self.channels[key] = RemoteChannel(self, owner, declared)
        return found

    def topic(self, topic: Topic[Any]) -> RemoteTopic:
        """Return a topic of the role."""
        for known in self._topics:
            if known.declaration.name == topic.name:
                return known
        made = RemoteTopic(self.network, self.id, self.home, topic)
        self._topics += (made,)
        return made

    def when_room(self, go_on: Callable[[], None]) -> None:
        """Call a function once, when the link to the role's node has room again."""
        self.network.when_room(self.home, go_on)

    def box(self, inbox: Inbox[Any]) -> RemoteBox:
        """Return an inbox of the role."""
        if inbox.name not in self._boxes:
            if self._boxes is NONE_YET:
                self._boxes = {}
            self._boxes[inbox.name] = RemoteBox(self, inbox)
        return self._boxes[inbox.name]

    def ready(self, name: str, caller: RoleId) -> None:
        """Send what was kept for a channel or inbox."""
        for (_, channel), end in self.channels.items():
            if channel == name:
                end.ready(caller)
        if name in self._boxes:
            self._boxes[name].ready(caller)

    def lost_error(self, effect: str) -> RoleLost:
        """Return the error for those who reach for the role after it was lost."""
        lost = self.lost
        return NodeLost(self.id, f"node {self.home} is gone", effect) if lost is None else lost.copied()

    def lose(self, error: RoleLost) -> None:
        """End every message under way to the role."""
        self.lost = error
        for channel in self.channels.values():
            channel.close(type(error), error.why)
        for box in self._boxes.values():
            box.close(error)
        for topic in self._topics:
            topic.close()


class RemoteChannel(Port):
    """A channel of a role on another node; to its callers it is what a `Dispatcher` is."""

    __slots__ = (
        "_codec", "_compress", "_declared", "_kind", "_lines", "_network", "_patience", "_remote", "_results", "_to",
        "_under_way",
    )  # fmt: skip

    def __init__(self, remote: RemoteRole, owner: type, declared: Channel[Any, Any]) -> None:
        # Who may call, and what gives way when the mailbox is full, is decided where the role is.
        options: ChannelOptions = msgspec.structs.replace(declared.options, allow=None)
        super().__init__(remote.node, remote.id, declared.name, declared.kind, declared.signature(owner), options)
        self._remote, self._network, self._declared = remote, remote.network, (owner, declared)
        self._codec = ArgsCodec.of(self.signature)
        self._results: Codec[Any] | None = None
        self._to = str(remote.id)  # exactly a str, which takes no detour when it is encoded
        self._kind, self._compress = KINDS[declared.kind], options.compress
        self._lines: dict[RoleId, OutLine[Invocation]] = {}
        self._under_way: dict[int, Invocation] = {}
        self._patience: dict[Invocation, asyncio.TimerHandle] = {}  # for those to be sent again

    # ------------------------------------------------------------------------------------------ sending

    def submit(self, invocation: Invocation) -> None:
        """Send a message, or keep it while the other side is full or the link is; never waits.

        Raises:
            NodeLost: the other node is gone.
            NotEncodable: an argument cannot travel.
        """
        if self.closed:
            raise self._remote.lost_error("none")
        if not invocation.segments:
            invocation.segments = self._codec.encode(invocation.args, invocation.kwargs)
        self._submit(invocation)

    def _submit(self, invocation: Invocation) -> None:
        if not self._line(invocation.caller).submit(invocation):
            self._park(invocation)

    def forget(self, invocation: Invocation) -> None:
        """Drop a message that is kept here; one that has a number is sent empty, since the other side counts."""
        if invocation in self._patience:
            self._patience.pop(invocation).cancel()
            self._network.not_bound(self.role, invocation)
        else:
            self._line(invocation.caller).forget(invocation)
            invocation.segments = ()

    def interrupt(self, invocation: Invocation) -> None:
        """Have the handler cancelled; the message ends when the other side says that it has stopped."""
        if self._under_way.get(invocation.call_id) is invocation:
            self._network.send(self._remote.home, Cancel(invocation.call_id))

    def _line(self, caller: RoleId) -> OutLine[Invocation]:
        line = self._lines.get(caller)
        if line is None:
            line = self._lines[caller] = OutLine(self._send, self._unsendable, self._remote.when_room)
        return line

    def _park(self, invocation: Invocation) -> None:
        invocation.state = PARKED
        if invocation.admission is None:
            invocation.admission = asyncio.get_running_loop().create_future()

    def _send(self, invocation: Invocation, order: int) -> None:
        home = self._remote.home
        number = self._network.number(self, home, invocation.call_id if invocation.attempts else 0)
        invocation.call_id, invocation.order = number, order
        self._under_way[number] = invocation
        given_up = not invocation.segments
        window = 0
        if invocation.items is not None:
            invocation.items.on_read = partial(self._grant, number)
            window = invocation.items.window
        frame = Call(
            number,
            self._to,
            self.name,
            str(invocation.caller),
            order,
            -1.0 if given_up else _remaining_s(invocation.deadline),
            chain_keys(invocation.parent),
            self._kind,
            window,
        )
        try:
            self._network.send(home, frame, invocation.segments, compress=self._compress)
        except RolecallError as error:
            self._take_back(number, keep=isinstance(error, LinkOverflow))
            raise
        if not given_up:
            invocation.state, invocation.worker = RUNNING, self
            if self.kind == "task" and invocation.admission is None:
                invocation.admission = asyncio.get_running_loop().create_future()

    def _take_back(self, number: int, *, keep: bool) -> None:
        """Take note that a message could not be sent, now or at all."""
        invocation = self._under_way.pop(number)
        self._network.forget(number)
        if not keep:
            invocation.segments = ()

    def never_left(self, number: int) -> None:
        """Take note that a message which was held for sent has not left this node, and will not."""
        if number in self._under_way:
            self._under_way[number].state = PARKED

    def _unsendable(self, invocation: Invocation, error: RolecallError) -> None:
        invocation.fail(error)

    def _grant(self, number: int) -> None:
        if number in self._under_way:
            self._network.send(self._remote.home, Credit(number, 1))

    # ------------------------------------------------------------------------------------------ answers

    def replied(self, number: int, segments: Sequence[memoryview]) -> None:
        """End a message with its result."""
        invocation = self._settle(number)
        if invocation is None:
            return
        try:
            invocation.finish(None if invocation.items is not None else self._result(segments))
        except Exception as error:
            invocation.fail(error)

    def _result(self, segments: Sequence[memoryview]) -> Any:
        if self._results is None:
            self._results = Codec(self.signature.result, where=f"{self.where}: result")
        return self._results.decode(segments)

    def failed(self, number: int, error: Any) -> None:
        """End a message with the handler's error."""
        invocation = self._settle(number)
        if invocation is None:
            return
        rebuilt = from_wire(error)
        if invocation.cancel_asked and isinstance(rebuilt, DeadlineExceeded):
            invocation.end_cancelled()
        else:
            invocation.fail(rebuilt)

    def cancelled(self, number: int) -> None:
        """End a message that was given up or was too late."""
        invocation = self._settle(number)
        if invocation is not None:
            invocation.end_cancelled()

    def full(self, number: int) -> None:
        """Keep a message that the other side had no room for."""
        if number not in self._under_way:
            return
        invocation = self._under_way.pop(number)
        self._network.forget(number)
        self._line(invocation.caller).refused(invocation, invocation.order)
        if invocation.state != RUNNING or invocation.cancel_asked:
            invocation.segments = ()
            invocation.end_cancelled()
        else:
            self._park(invocation)

    def ready(self, caller: RoleId) -> None:
        """Send what was kept."""
        if caller in self._lines:
            self._lines[caller].ready()

    def progress(self, number: int, segments: Sequence[memoryview]) -> None:
        """Pass on a progress report."""
        if number in self._under_way:
            invocation = self._under_way[number]
            if invocation.reports is not None:
                try:
                    report = decode(segments, self.options.progress or Any, where=f"{self.where}: progress")
                except RolecallError as error:
                    self.node.bury("progress", self.role, self.name, error)
                else:
                    invocation.reports.add(report)

    def admitted(self, number: int) -> None:
        """Take note that the mailbox has taken a task."""
        if number in self._under_way:
            invocation = self._under_way[number]
            if invocation.admission is not None and not invocation.admission.done():
                invocation.admission.set_result(True)

    def item(self, number: int, segments: Sequence[memoryview]) -> None:
        """Pass on an item of a stream."""
        hint = (typing.get_args(self.signature.result) or (Any,))[0]
        if number in self._under_way:
            invocation = self._under_way[number]
            if invocation.items is not None:
                try:
                    item = decode(segments, hint, where=f"{self.where}: item")
                except RolecallError as error:
                    self.interrupt(invocation)
                    invocation.fail(error)
                else:
                    invocation.items.arrived(item)

    def close(self, error_class: type[RoleLost], why: str) -> None:
        """End every message, since the other side is gone; those that may be repeated wait until it is there again."""
        self.closed = True
        under_way = list(self._under_way.values())
        for number in self._under_way:
            self._network.forget(number)
        held = [invocation for line in self._lines.values() for invocation in line.drop()]
        parked = [invocation for invocation in held if invocation.state == PARKED]
        for invocation in dict.fromkeys((*under_way, *parked)):
            if issubclass(error_class, NodeLost) and self._may_repeat(invocation):
                self._repeat_later(invocation, why)
            else:
                invocation.lose(why, error_class)
        self._under_way.clear()

    def _may_repeat(self, invocation: Invocation) -> bool:
        wanted = invocation.future is not None and not invocation.future.done() and not invocation.cancel_asked
        return wanted and self.options.idempotent and invocation.items is None and invocation.attempts < REPEATS

    def _repeat_later(self, invocation: Invocation, why: str) -> None:
        """Keep a message until the role is there again, for a bounded time."""
        invocation.attempts += 1
        invocation.begun = invocation.begun or invocation.state == RUNNING
        invocation.state = PARKED
        loop = asyncio.get_running_loop()
        self._patience[invocation] = loop.call_later(REPEAT_WITHIN_S, self._expire, invocation, why)
        self._network.when_bound(self.role, invocation, partial(self._repeat, invocation))

    def _expire(self, invocation: Invocation, why: str) -> None:
        del self._patience[invocation]
        self._network.not_bound(self.role, invocation)
        if invocation.state != ENDED:
            invocation.lose(f"{why}, and it did not come back within {REPEAT_WITHIN_S:g} s", NodeLost)

    def _repeat(self, invocation: Invocation, remote: RemoteRole) -> None:
        """Send a message again, to the next life of the role, unless it has ended meanwhile."""
        self._patience.pop(invocation).cancel()
        if invocation.state == ENDED:
            return
        channel = remote.channel(*self._declared)
        invocation.dispatcher = channel
        channel._submit(invocation)

    def _settle(self, number: int) -> Invocation | None:
        invocation = self._under_way.pop(number, None)
        self._network.forget(number)
        if invocation is not None:
            invocation.segments = ()
        return invocation


class DistantHandling:
    """A call on another node, in the chain of calls that led to one here."""

    __slots__ = ("key", "parent")

    def __init__(self, key: str, parent: Handling | None) -> None:
        self.key, self.parent = key, parent

    @property
    def where(self) -> str:
        """The channel served."""
        return self.key.partition(" ")[2]

    @property
    def caller(self) -> RoleId:
        """The role that serves it, on whose behalf there are calls here."""
        return RoleId(self.where.rpartition(".")[0])

    def report(self, progress: Any) -> None:
        """Do nothing: it reports where it runs."""


def chain_keys(parent: Handling | None) -> list[str]:
    """Return the keys of the calls that wait for one, innermost first, as they travel."""
    return [handling.key for handling in chain(parent)]


def _remaining_s(deadline: float) -> float | None:
    return None if deadline == inf else deadline - anyio.current_time()
