"""The sending side of a session: what waits, on which lane, and what goes into the next chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, get_args

from rolecall.wire.bulk_lane import BulkLane
from rolecall.wire.extensions import Segment
from rolecall.wire.frame_codec import encode_frame
from rolecall.wire.frames import Call, Event, Frame, Item, Progress, Put, Reply
from rolecall.wire.head_codec import entry_head
from rolecall.wire.heads import CONTROL, NORMAL, UNNUMBERED, Acks
from rolecall.wire.lanes import Lane, Taken, UnnumberedLane
from rolecall.wire.limits import LinkOverflow
from rolecall.wire.parcels import PIECE_SEGMENTS, Outgoing, Parcel
from rolecall.wire.routing import LANES, flows_of

if TYPE_CHECKING:
    from rolecall.wire.session_limits import SessionLimits
    from rolecall.wire.shared_lane import SharedLane

__all__ = ("Outbox",)

_ENTRY_BYTES = 64  # what an entry takes in memory besides its bytes, about; and each of its segments
_PATIENCE = 4  # chunks of small frames that bulk lets pass, when there is no end of them

_TIMES: Final = {**dict.fromkeys((Call, Put, Event, Item, Progress), 1), Reply: 2}
"""How often a kind of frame may fill the limits: what can wait leaves room to results, and all that to the rest (3),
without which nothing would go on (`Full`, `Ready`, `Failed`, credits and the like)."""
_ROUTES: Final = {kind: (LANES.get(kind, NORMAL), _TIMES.get(kind, 3)) for kind in get_args(Frame)}
"""The lane of each kind of frame, and how often it may fill the limits."""

_NO_BULK: Final = BulkLane(1, 1)
"""What stands for the bulk lane of all links that have sent nothing large; nothing is ever added to it."""


class Outbox:
    """Frames in lanes; control goes before normal, and normal before bulk, which gets one chunk in five."""

    __slots__ = (
        "_ahead", "_bulk", "_bulk_bytes", "_control", "_limits", "_most_bytes", "_most_frames", "_normal", "_passed",
        "_peer", "_unnumbered", "lane",
    )  # fmt: skip

    def __init__(self, limits: SessionLimits, peer: str) -> None:
        self._limits, self._peer = limits, peer
        self._bulk_bytes, self._most_bytes = limits.bulk_bytes, limits.outbox_bytes
        self._most_frames = limits.outbox_frames
        self._unnumbered, self._control, self._normal = UnnumberedLane(UNNUMBERED), Lane(CONTROL), Lane(NORMAL)
        self._bulk = _NO_BULK
        self._ahead = 0  # how many entries wait that go before those of the normal lane, which is seldom
        self._passed = 0
        self.lane: SharedLane | None = None
        """By which large payloads go, as far as it takes them."""

    # ------------------------------------------------------------------------------------------------ counting

    @property
    def queued_bytes(self) -> int:
        """Bytes that have not been sent on the present connection."""
        waiting = self._control.waiting_bytes + self._normal.waiting_bytes + self._bulk.waiting_bytes
        return waiting + self._bulk.uncut_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes that the other side has not acknowledged, the queued ones included."""
        flying = self._control.flying_bytes + self._normal.flying_bytes + self._bulk.flying_bytes
        return self.queued_bytes + flying

    @property
    def kept_frames(self) -> int:
        """Entries that the other side has not acknowledged."""
        return self._control.end - self._control.base + self._normal.end - self._normal.base + self._bulk.frames

    @property
    def entries_sent(self) -> int:
        """How many entries have been sent, each counted once."""
        return sum(lane.reached for lane in (self._control, self._normal, self._bulk))

    # ------------------------------------------------------------------------------------------------- filling

    def add(self, frame: Frame, segments: Sequence[Segment], unpacked: Sequence[int], *, urgent: bool) -> None:
        """Queue a frame on its lane; raise `LinkOverflow` when too much is kept already."""
        head = encode_frame(frame)
        size = 0
        for segment in segments:
            size += len(segment)
        lane, times = _ROUTES[type(frame)]
        if urgent:
            lane = CONTROL
        if size > self._bulk_bytes or len(segments) > PIECE_SEGMENTS:
            self._check_bulk(times)
            self._add_bulk(frame, head, segments, unpacked, size, whole=False)
        elif lane == NORMAL and self._bulk.flows and self._follows(frame):
            self._check_bulk(times)
            self._add_bulk(frame, head, segments, unpacked, size, whole=True)
        else:
            self._add_small(lane, entry_head(head, len(segments), unpacked), segments, size, times)

    def _add_small(self, number: int, head: bytes, segments: Sequence[Segment], size: int, times: int) -> None:
        lane = self._normal
        if number != NORMAL:
            lane = self._control if number == CONTROL else self._unnumbered
        frames = len(lane.flying) + len(lane.waiting)
        if frames >= self._most_frames:
            self._check_frames(frames, times)
        if lane is self._normal and self._payload_bytes >= self._most_bytes:
            self._check_bytes(times)
        lane.push(Outgoing(head, segments, size + len(head) + _ENTRY_BYTES * (1 + len(segments))))
        self._ahead += number != NORMAL

    def _follows(self, frame: Frame) -> bool:
        """Return whether something the frame must not overtake may still be on the bulk lane."""
        return any(flow in self._bulk.flows for flow in flows_of(frame))

    def _add_bulk(
        self,
        frame: Frame,
        head: bytes,
        segments: Sequence[Segment],
        unpacked: Sequence[int],
        size: int,
        *,
        whole: bool,
    ) -> None:
        shared = None
        if whole:
            size += len(head) + _ENTRY_BYTES * (1 + len(segments))
        else:
            self._limits.wire.check("segments", len(segments))
            self._limits.wire.check("message_bytes", size)
            if self.lane is not None and not unpacked:
                shared = self.lane.share(segments)
        after = self._normal.end
        if self._bulk is _NO_BULK:
            self._bulk = BulkLane(self._limits.piece_bytes, self._limits.bulk_credit_bytes)
        self._bulk.add(Parcel(head, segments, unpacked, size, whole, flows_of(frame), after, shared))

    def _check_bulk(self, times: int) -> None:
        self._check_frames(self._bulk.frames, times)
        self._check_bytes(times)

    def _check_frames(self, found: int, times: int) -> None:
        if found >= times * self._most_frames:
            raise LinkOverflow(self._peer, "frames", found, times * self._most_frames)

    def _check_bytes(self, times: int) -> None:
        # One frame may go beyond the limit, since otherwise one larger than it could never be sent.
        if (found := self._payload_bytes) >= times * self._most_bytes:
            raise LinkOverflow(self._peer, "bytes", found, times * self._most_bytes)

    @property
    def _payload_bytes(self) -> int:
        normal, bulk = self._normal, self._bulk
        return normal.waiting_bytes + normal.flying_bytes + bulk.waiting_bytes + bulk.flying_bytes + bulk.uncut_bytes

    @property
    def has_room(self) -> bool:
        """Whether any frame may be added."""
        normal, frames = self._normal, self._most_frames
        fits = len(normal.flying) + len(normal.waiting) < frames and self._bulk.frames < frames
        return fits and self._payload_bytes < self._most_bytes

    def withdraw(self, call_id: int) -> bool:
        """Drop the large `Call` or `Put` of that id, if it cannot have arrived; return whether it was so."""
        return self._bulk.withdraw(("call", call_id))

    def let_go(self) -> None:
        """Drop what is large, and with it all shared memory: nothing will be sent."""
        self._bulk.let_go()

    # ------------------------------------------------------------------------------------------------ emptying

    @property
    def has_work(self) -> bool:
        """Whether anything waits to be sent; of what is large, also when it cannot be sent now."""
        if self._ahead or self._normal.waiting:
            return True
        return self._bulk is not _NO_BULK and self._bulk.busy

    def take(self, max_bytes: int) -> list[Taken]:
        """Return what goes into the next chunk: small frames up to `max_bytes`, or else of bulk a piece."""
        if self._bulk is _NO_BULK:
            return self._take_small(max_bytes)
        bulk = self._bulk.ready(self._normal.sent)
        if not (bulk and self._passed >= _PATIENCE) and (taken := self._take_small(max_bytes)):
            self._passed += bulk
            return taken
        self._passed = 0
        return [self._bulk.take_ready(self._normal.sent)] if bulk else []

    def _take_small(self, max_bytes: int) -> list[Taken]:
        if not self._ahead:
            return [self._normal.take(max_bytes)] if self._normal.waiting else []
        taken: list[Taken] = []
        for lane in (self._unnumbered, self._control, self._normal):
            if lane.waiting and max_bytes > 0:
                max_bytes -= lane.waiting_bytes
                taken.append(lane.take(max_bytes + lane.waiting_bytes))
        self._count_ahead()
        return taken

    def _count_ahead(self) -> None:
        self._ahead = len(self._unnumbered.waiting) + len(self._control.waiting)

    def acknowledge(self, acks: Acks) -> None:
        """Let go of what has arrived; raise `Malformed` for what never left."""
        if acks.normal != self._normal.base:
            self._normal.acknowledge(acks.normal)
        if acks.control != self._control.base:
            self._control.acknowledge(acks.control)
            self._count_ahead()
        if acks.bulk != self._bulk.base:
            self._bulk.acknowledge(acks.bulk)

    def rewind(self) -> int:
        """Have all that is kept sent again; return how many entries were in flight."""
        flying = sum(lane.rewind() for lane in (self._unnumbered, self._control, self._normal, self._bulk))
        self._count_ahead()
        return flying
