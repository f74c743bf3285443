"""A node's links: what goes out over them, and who gets what comes in."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from rolecall.core.errors import NodeLost, RoleLost
from rolecall.core.ids import RoleId
from rolecall.core.on_use import NONE_YET
from rolecall.runtime.inbound import Inbound
from rolecall.runtime.remote import RemoteChannel, RemoteRole
from rolecall.wire import Segment, encode
from rolecall.wire import frames as f
from rolecall.wire.limits import LinkOverflow

if TYPE_CHECKING:
    from rolecall.runtime.calls import Invocation
    from rolecall.runtime.node import Node
    from rolecall.runtime.remote_inboxes import RemoteBox
    from rolecall.runtime.remote_topics import WireSink

__all__ = ("Network", "Wire")

WAITING_FRAMES = 65_536
WAITING_BYTES = 256 << 20

_WITH_PAYLOAD: dict[type, str] = {f.Reply: "replied", f.Progress: "progress", f.Item: "item", f.Event: "event"}
_ANSWERS: Final[dict[type, str]] = {
    **_WITH_PAYLOAD,
    f.Failed: "failed",
    f.Cancelled: "cancelled",
    f.Full: "full",
    f.Admitted: "admitted",
    f.Subscribed: "subscribed",
}
"""What takes an answer, at those who can be answered so."""
_CAN_WAIT: Final = frozenset({f.Call, f.Put, f.Event, f.Item, f.Progress, f.Reply})
"""What those who send it keep while the link has no room, or do without."""
_MESSAGES: Final = frozenset({*_CAN_WAIT, f.Failed})
"""What roles say to each other; the rest keeps that going."""
_NOBODY: Final[tuple[Any, str | None]] = (None, None)
_CALL: Final = f.Call
_REPLY: Final = f.Reply


class Wire(Protocol):
    """What a node needs of a link."""

    @property
    def on_frame(self) -> Callable[[Any, Sequence[memoryview]], None] | None:
        """What is called with each frame that comes in, and its payload."""

    @on_frame.setter
    def on_frame(self, handler: Callable[[Any, Sequence[memoryview]], None]) -> None: ...

    def send(self, frame: Any, segments: Sequence[Segment] = (), *, compress: bool = False) -> None:
        """Queue a frame; it arrives once and in order while both sides live. Raises `LinkOverflow`."""

    def when_room(self, go_on: Callable[[], None]) -> None:
        """Call a function once, when there is room again after a `LinkOverflow`."""

    def lose(self, reason: str) -> None:
        """End the link; `Network.leave` follows."""


class Network:
    """The other nodes, as one node sees them: the links to them and the roles they hold.

    `reach` is called with the name of a node when the first frame is for it and there is no link; it says whether it
    makes one. Until then frames wait.
    """

    __slots__ = (
        "_asked", "_bound_wanted", "_inbound", "_last", "_links", "_number", "_reach", "_subscribing", "_unlinked",
        "node", "roles", "sent_bytes", "sent_messages",
    )  # fmt: skip

    def __init__(self, node: Node, reach: Callable[[str], bool] = lambda peer: False) -> None:
        self.node, self._reach = node, reach
        self.roles: dict[RoleId, RemoteRole] = {}
        self.sent_messages = 0
        """How many messages of roles have gone to other nodes: calls, results, events and so on."""
        self.sent_bytes = 0
        """The bytes of arguments, results and events in them; compression and headers are left out."""
        self._links: dict[str, Wire] = {}
        self._inbound: dict[str, Inbound] = {}
        self._unlinked: dict[str, _Waiting] = {}
        self._asked: dict[int, tuple[Any, str]] = {}
        self._bound_wanted: dict[RoleId, dict[Invocation, Callable[[RemoteRole], None]]] = NONE_YET
        self._subscribing: dict[int, asyncio.Future[None]] = NONE_YET
        self._number = 0
        self._last: tuple[Any, list[Segment]] | None = None

    # ------------------------------------------------------------------------------------------ who is where

    def bind(self, role: RoleId, home: str, *, listed: bool = True) -> None:
        """Take note that a role lives on another node; unless it is `listed`, no pattern matches it."""
        remote = self.roles[role] = RemoteRole(self, role, home, listed=listed)
        self.node.directory.add_remote(remote)
        for go_on in self._bound_wanted.pop(role, {}).values():
            go_on(remote)

    def when_bound(self, role: RoleId, message: Invocation, go_on: Callable[[RemoteRole], None]) -> None:
        """Call a function once with the role, when it is there again: a message waits for it."""
        if self._bound_wanted is NONE_YET:
            self._bound_wanted = {}
        self._bound_wanted.setdefault(role, {})[message] = go_on

    def not_bound(self, role: RoleId, message: Invocation) -> None:
        """Do not call the function after all."""
        waiting = self._bound_wanted.get(role, {})
        waiting.pop(message, None)
        if not waiting:
            self._bound_wanted.pop(role, None)

    def unbind(self, role: RoleId, error: RoleLost) -> None:
        """Take note that a role on another node has ended."""
        remote = self.roles.pop(role, None)
        if remote is not None:
            remote.lose(error)
            self.node.directory.remove_remote(remote, error)
            for instance in self.node.instances:
                instance.source_lost(role, error)

    def speaks_for(self, peer: str, role: RoleId) -> bool:
        """Say whether a node may send messages of a role: it holds it, as far as is known here."""
        remote = self.node.directory.remote(role)
        return remote is not None and remote.home == peer

    # ------------------------------------------------------------------------------------------ links

    def join(self, peer: str, link: Wire) -> None:
        """Use a link to a node; what it sends is taken from now on."""
        self._links[peer] = link
        inbound = self._inbound[peer] = Inbound(self, peer)
        self._send_waiting(peer, link)
        link.on_frame = partial(Network._received, self, peer, inbound)

    def _send_waiting(self, peer: str, link: Wire) -> None:
        """Send what has waited for a link, as far as it has room; what comes meanwhile goes after that."""
        waiting = self._unlinked.get(peer)
        if waiting is None or self._links.get(peer) is not link:
            return
        while waiting.frames:
            try:
                frame, segments, compress = waiting.frames[0]
                link.send(frame, segments, compress=compress)
            except LinkOverflow:
                link.when_room(partial(self._send_waiting, peer, link))
                return
            waiting.frames.popleft()
        del self._unlinked[peer]
        if not self._unlinked:
            self._unlinked.clear()  # which gives its memory back
        for go_on in waiting.room_wanted:
            go_on()

    def leave(self, peer: str, why: str) -> None:
        """Take a node for lost, with all its roles."""
        self._links.pop(peer, None)
        for frame, *_ in self._unlinked.pop(peer, _Waiting(peer)).frames:
            if isinstance(frame, f.Call | f.Put) and frame.id in self._asked:
                self._asked[frame.id][0].never_left(frame.id)
        inbound = self._inbound.pop(peer, None)
        with self.node.directory.bulk():
            for role in [role for role, remote in self.roles.items() if remote.home == peer]:
                self.unbind(role, NodeLost(role, why, "none"))
        if inbound is not None:
            inbound.lose()

    def send(self, peer: str, frame: f.Frame, segments: Sequence[Segment] = (), *, compress: bool = False) -> None:
        """Send a frame to a node, now or when there is a link; to one that is lost, nothing goes.

        Raises:
            LinkOverflow: too much waits for it already; see `when_room`. Only for frames that can wait: a node that
                does not even take the others is lost.
        """
        link = self._links.get(peer)
        if link is None or (self._unlinked and peer in self._unlinked):
            if not self._keep(peer, frame, segments, compress):
                return
        else:
            try:
                link.send(frame, segments, compress=compress)
            except LinkOverflow as error:
                if type(frame) in _CAN_WAIT:
                    raise
                asyncio.get_running_loop().call_soon(link.lose, f"it takes nothing any more: {error}")
        if type(frame) in _MESSAGES:
            self.sent_messages += 1
            for segment in segments:
                self.sent_bytes += len(segment)

    def _keep(self, peer: str, frame: f.Frame, segments: Sequence[Segment], compress: bool) -> bool:
        """Keep a frame for a node until there is a link; return False where there will be none."""
        waiting = self._unlinked.get(peer)
        if waiting is None:
            if not self._reach(peer):
                return False
            waiting = self._unlinked[peer] = _Waiting(peer)
        waiting.add(frame, segments, compress)
        return True

    def when_room(self, peer: str, go_on: Callable[[], None]) -> None:
        """Call a function once, when there is room again for a node; never, if that is lost before."""
        if peer in self._unlinked:
            self._unlinked[peer].room_wanted.append(go_on)
        elif peer in self._links:
            self._links[peer].when_room(go_on)

    def number(self, asker: Any, peer: str, again: int = 0) -> int:
        """Return the number of a request to a node, whose answers go to `asker`: a new one, or that it has already."""
        if again:
            number = again
        else:
            number = self._number = self._number + 1
        self._asked[number] = (asker, peer)
        return number

    def forget(self, number: int) -> None:
        """Expect no more answers to a request."""
        self._asked.pop(number, None)

    def unanswered(self) -> list[str]:
        """Return which nodes owe answers, and how many; a subscription is answered as long as it lasts."""
        owed = Counter(peer for _, peer in self._asked.values())
        return [f"{count} of node {peer}" for peer, count in owed.items()]

    async def subscribed(self) -> None:
        """Wait until every subscription made so far is acknowledged, or was refused or lost with its node."""
        if self._subscribing:
            await asyncio.wait(list(self._subscribing.values()))

    def subscribing(self, number: int) -> None:
        """Take note that a subscription has been asked for."""
        if self._subscribing is NONE_YET:
            self._subscribing = {}
        self._subscribing[number] = asyncio.get_running_loop().create_future()

    def settled(self, number: int) -> None:
        """Take note that a subscription has been answered, or will not be."""
        asked = self._subscribing.pop(number, None)
        if not self._subscribing:
            self._subscribing = NONE_YET
        if asked is not None:
            asked.set_result(None)

    def encoded(self, item: Any, to: WireSink | RemoteBox) -> list[Segment]:
        """Return an item for a subscriber or an inbox as segments; an item that goes to many is encoded once."""
        if self._last is None or self._last[0] is not item:
            if self._last is None:
                asyncio.get_running_loop().call_soon(self._forget_last)
            self._last = (item, encode(item, where=to.where))
        return self._last[1]

    def _forget_last(self) -> None:
        """Neither keep what has been sent, nor take what may have been changed since for the same."""
        self._last = None

    # ------------------------------------------------------------------------------------------ frames

    def _received(self, peer: str, inbound: Inbound, frame: f.Frame, segments: Sequence[memoryview]) -> None:
        """Give a frame to whom it concerns."""
        kind = type(frame)
        if kind is _CALL:
            inbound.call(cast(f.Call, frame), segments)
        elif kind in _ANSWERS:
            self._answer(peer, kind, frame, segments)
        else:
            self._request(peer, inbound, frame, segments)

    def _request(self, peer: str, inbound: Inbound, frame: f.Frame, segments: Sequence[memoryview]) -> None:
        match frame:
            case f.Put():
                inbound.put(frame, segments)
            case f.Cancel(id=number):
                inbound.cancel(number)
            case f.Credit(id=number, count=count):
                inbound.credit(number, count)
            case f.EventCredit(id=number, count=count):
                inbound.event_credit(number, count)
            case f.Subscribe():
                inbound.subscribe(frame)
            case f.Unsubscribe(id=number):
                inbound.unsubscribe(number)
            case f.Ready():
                self._ready(peer, frame)
            case _:
                pass

    def _ready(self, peer: str, frame: f.Ready) -> None:
        remote = self.roles.get(RoleId(frame.to))
        if remote is not None and remote.home == peer:
            remote.ready(frame.channel, RoleId(frame.caller))

    def _answer(self, peer: str, kind: type, frame: Any, segments: Sequence[memoryview]) -> None:
        """Give an answer to who asked that node for it; any other, or one nobody waits for any more, is dropped."""
        number: int = frame.id
        asker, asked = self._asked.get(number, _NOBODY)
        if asked != peer:
            return
        if kind is _REPLY and isinstance(asker, RemoteChannel):
            asker.replied(number, segments)
            return
        if (take := getattr(asker, _ANSWERS[kind], None)) is None:
            return
        if kind in _WITH_PAYLOAD:
            take(number, segments)
        elif kind is f.Failed:
            take(number, frame.error)
        else:
            take(number)


class _Waiting:
    """Frames for a node that there is no link to yet."""

    def __init__(self, peer: str) -> None:
        self.frames: deque[tuple[f.Frame, Sequence[Segment], bool]] = deque()
        self.room_wanted: list[Callable[[], None]] = []
        self._peer, self._bytes = peer, 0

    def add(self, frame: f.Frame, segments: Sequence[Segment], compress: bool) -> None:
        """Keep a frame, in order."""
        size = sum(map(len, segments))
        if len(self.frames) >= WAITING_FRAMES:
            raise LinkOverflow(self._peer, "frames", len(self.frames) + 1, WAITING_FRAMES)
        if self.frames and self._bytes + size > WAITING_BYTES:
            raise LinkOverflow(self._peer, "bytes", self._bytes + size, WAITING_BYTES)
        self.frames.append((frame, segments, compress))
        self._bytes += size
