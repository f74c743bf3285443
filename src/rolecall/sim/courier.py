"""Carries what the nodes send, when the modelled network says so; both seams of the simulator stand on it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextvars import Context
from typing import Any, Final, Literal, Protocol, TypeAlias

from rolecall.sim.agenda import Agenda, Arriving
from rolecall.sim.network import Network
from rolecall.sim.pair import Pair

__all__ = ("Connection", "Courier", "CutKind", "Route", "Timeline")

CutKind: TypeAlias = Literal["reset", "silence"]
"""What a cut does to connections: they break at once, or nothing comes any more until it is healed."""

_Parcel: TypeAlias = tuple[int, Callable[..., Any], tuple[Any, ...]]


class Timeline(Protocol):
    """The time of the world, which no node's clock shows; `VirtualLoop` is one."""

    def now_s(self) -> float:
        """Return the time in seconds."""

    def at(self, when_s: float, node: str | None, callback: Callable[..., Any], *args: Any) -> Any:
        """Have `callback(*args)` called at a time, as code of that node."""

    def contexts(self, node: str) -> tuple[Context, Context]:
        """Return the two contexts that all that arrives at a node runs in, the second as a daemon."""

    @property
    def agenda(self) -> Agenda:
        """What is to happen."""


class Tap(Protocol):
    """What is told of all that is sent."""

    def ends(self, src: str, dst: str) -> bytes:
        """Return what stands for a sender and a receiver in `packet`."""

    def packet(self, now_s: float, ends: bytes, size_bytes: int) -> None:
        """Take note that bytes were sent."""


class Route(Arriving):
    """One direction of a connection: a reliable pipe, in order, that may be cut."""

    __slots__ = (
        "_agenda", "_booked", "_courier", "_ends", "_held", "_pair", "_stale", "_under_way", "closed",
    )  # fmt: skip

    def __init__(self, courier: Courier, pair: Pair) -> None:
        super().__init__(courier.timeline.contexts(pair.dst))
        self._courier, self._pair, self._agenda = courier, pair, courier.timeline.agenda
        self._under_way: list[_Parcel] = []  # in order; short, so that its head is taken off quickly
        self._held = False
        self._ends = b""  # as the tap knows them
        self._booked = 0  # arrivals that are to come
        self._stale = 0  # how many of them, the next ones, are of what has to set out again since a cut
        self.closed = False
        """Whether nothing arrives any more."""

    @property
    def under_way(self) -> int:
        """How many chunks have not arrived, those held by a cut included."""
        return len(self._under_way)

    def carry(self, size_bytes: int, callback: Callable[..., Any], *args: Any) -> None:
        """Have `callback(*args)` called, as code of the receiving node, when so many bytes have arrived."""
        if self.closed:
            return
        now_s = self._agenda.now_s
        if (tap := self._courier.tap) is not None:
            if not self._ends:
                self._ends = tap.ends(self._pair.src, self._pair.dst)
            tap.packet(now_s, self._ends, size_bytes)
        self._under_way.append((size_bytes, callback, args))
        if not self._held:
            self._set_out(size_bytes, now_s)

    def close(self) -> None:
        """Forget what is under way, and carry no more."""
        self.closed = True
        self._under_way.clear()
        self._courier.holding.pop(self, None)

    def release(self) -> None:
        """Send what was held on its way, if it can go."""
        if self._pair.cut:
            return
        self._held = False
        self._courier.holding.pop(self, None)
        now_s = self._agenda.now_s
        for size_bytes, _, _ in self._under_way:
            self._set_out(size_bytes, now_s)

    def _set_out(self, size_bytes: int, now_s: float) -> None:
        at_s = self._pair.deliver_at(size_bytes, now_s)
        if at_s is None:
            self._hold()
        else:
            self._booked += 1
            self._agenda.arrive_at(at_s, self)

    def arrive(self) -> None:
        """Hand over the next chunk, unless it was cut off on its way; called by the timeline."""
        self._booked -= 1
        if self._stale:
            self._stale -= 1
            return
        if self.closed:
            return
        if self._pair.cut:  # it was on its way when that happened
            self._hold()
            return
        _, callback, args = self._under_way.pop(0)
        callback(*args)

    def _hold(self) -> None:
        self._held = True
        self._stale = self._booked
        self._courier.holding[self] = None


class Connection:
    """Two routes between two nodes, which break together; made by a `Courier`."""

    __slots__ = ("_broken", "_courier", "a", "b", "back", "there")

    def __init__(self, courier: Courier, a: str, b: str, broken: Callable[[str, str], None]) -> None:
        self._courier, self._broken, self.a, self.b = courier, broken, a, b
        self.there = Route(courier, courier.network.pair(a, b))
        """From `a` to `b`."""
        self.back = Route(courier, courier.network.pair(b, a))
        """From `b` to `a`."""

    def close(self) -> None:
        """End it: nothing arrives any more, and nobody is told."""
        self.there.close()
        self.back.close()
        self._courier.connections.pop(self, None)

    def fail(self, reason: str, *, told: Iterable[str] | None = None) -> None:
        """Break it, and tell both nodes, or those named."""
        self.close()
        timeline = self._courier.timeline
        for node in (self.a, self.b) if told is None else told:
            timeline.at(timeline.now_s(), node, self._broken, node, reason)

    @property
    def severed(self) -> bool:
        """Whether nothing gets through in one direction, or in both."""
        network = self._courier.network
        return network.pair(self.a, self.b).cut or network.pair(self.b, self.a).cut


class Courier:
    """Connections over a modelled network, and what cuts and crashes do to them."""

    def __init__(self, network: Network, timeline: Timeline) -> None:
        self.network, self.timeline = network, timeline
        self.connections: dict[Connection, None] = {}
        """Those there are, in the order in which they were made."""
        self.tap: Tap | None = None
        self.holding: dict[Route, None] = {}
        """The routes that hold something until they are healed."""

    def connect(self, a: str, b: str, broken: Callable[[str, str], None]) -> Connection:
        """Return a new connection; `broken(node, reason)` is called for each side, as its code, when it breaks."""
        made = Connection(self, a, b, broken)
        self.connections[made] = None
        return made

    # ---------------------------------------------------------------------------------------------- severing

    def cut(self, a: str, b: str, *, both: bool = True, how: CutKind = "reset") -> int:
        """Let nothing through between two nodes, or only not from `a` to `b`; return a token for `mend`."""
        return self._severed(self.network.cut(a, b, both=both), how)

    def isolate(self, node: str, *, how: CutKind = "reset") -> int:
        """Let nothing through to or from a node; return a token for `mend`."""
        return self._severed(self.network.isolate(node), how)

    def partition(self, groups: Iterable[Iterable[str]], *, how: CutKind = "reset") -> int:
        """Let nothing through between groups of nodes; return a token for `mend`."""
        return self._severed(self.network.partition(groups), how)

    def mend(self, token: int) -> None:
        """Undo one of these; what was held goes on its way."""
        self.network.mend(token)
        self._release()

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Undo all cuts between two nodes, of one, or of all; what was held goes on its way."""
        self.network.heal(a, b)
        self._release()

    def _severed(self, token: int, how: CutKind) -> int:
        if how == "reset":
            for connection in [connection for connection in self.connections if connection.severed]:
                connection.fail("the connection was reset")
        return token

    def _release(self) -> None:
        for route in list(self.holding):
            route.release()

    # ----------------------------------------------------------------------------------------------- crashes

    def down(self, node: str, *, how: CutKind = "silence") -> None:
        """End what a node has to do with others: they hear no more of it, or at once that it is gone."""
        for connection in [each for each in self.connections if node in (each.a, each.b)]:
            if how == "silence":
                connection.close()
            else:
                other = connection.b if connection.a == node else connection.a
                connection.fail(RESET_BY_CRASH, told=(other,))


RESET_BY_CRASH: Final = "the process at the other end is gone"
