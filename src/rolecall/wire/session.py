"""What two living incarnations have said to each other: every frame exactly once, in order on its lane.

A session outlives connections. It is sans-IO: `send` queues, `next_chunk` says what to write, `receive` takes what
was read, `disconnected` and `connected` tell of connections; it neither waits nor looks at a clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from rolecall.wire.compression import compress_segments
from rolecall.wire.extensions import Segment
from rolecall.wire.frames import Frame
from rolecall.wire.head_codec import batch_start, decode_head, head_of_one, head_start
from rolecall.wire.heads import BULK, UNNUMBERED, Acks, Batch
from rolecall.wire.inbox import Inbox, Received
from rolecall.wire.landing import Landing
from rolecall.wire.lanes import Taken
from rolecall.wire.limits import Malformed
from rolecall.wire.outbox import Outbox
from rolecall.wire.session_limits import SessionLimits

if TYPE_CHECKING:
    from rolecall.wire.shared_lane import SharedLane

__all__ = ("Acks", "Session", "SessionStatistics")

CHUNK_BYTES = 1 << 20


class SessionStatistics(NamedTuple):
    """Counters since the session began; entries are frames, and pieces of large ones."""

    connections: int
    entries_sent: int
    entries_resent: int
    entries_received: int
    duplicates: int
    queued_bytes: int
    unacknowledged: int


class Session:
    """One conversation between this incarnation of a node and one of another; `peer` is for messages only.

    Large messages arrive in memory of `landing`, which several sessions may share.

    After it has raised `Malformed` or `LimitExceeded` from `receive` or `connected`, the other side does not
    keep to the protocol, and the session is over: both raise that again.
    """

    __slots__ = (
        "_ack_due", "_broken", "_connected", "_connections", "_inbox", "_outbox", "_resent", "_unacked_bytes",
        "_unacked_frames", "limits",
    )  # fmt: skip

    def __init__(
        self, limits: SessionLimits | None = None, *, peer: str = "the peer", landing: Landing | None = None
    ) -> None:
        self.limits = limits or SessionLimits()
        self._outbox = Outbox(self.limits, peer)
        self._inbox = Inbox(self.limits.wire, landing or Landing())
        self._connected = False
        self._broken: Malformed | None = None
        self._unacked_frames = self._unacked_bytes = 0  # received, and the other side does not know it yet
        self._ack_due = False
        self._connections = self._resent = 0

    def use(self, lane: SharedLane) -> None:
        """From now on, have large payloads go and come through memory that both processes see."""
        self._outbox.lane = self._inbox.lane = lane

    def let_go(self) -> None:
        """Drop what is large, and with it all shared memory; nothing may be sent from now on."""
        self._outbox.let_go()

    # ------------------------------------------------------------------------------------------------- sending

    def send(
        self, frame: Frame, segments: Sequence[Segment] = (), *, urgent: bool = False, compress: bool = False
    ) -> None:
        """Queue a frame and its payload, which is not copied: it must not be changed until it has arrived.

        Large payloads go by the bulk lane in pieces, whatever the frame; small frames overtake them, but never
        those of the same caller, role and channel, call, or subscription. `urgent` puts a small frame on the
        control lane. `compress` packs the payload with zstd, at once and in this thread, which
        is why `Limits.packed_bytes` bounds it.

        Raises `LinkOverflow` when too much waits already (see `has_room`), and `LimitExceeded` or
        `Malformed` for a frame that the other side would refuse; nothing is queued then.
        """
        unpacked: Sequence[int] = ()
        if compress:
            size = sum(map(len, segments))
            self.limits.wire.check("message_bytes", size)
            self.limits.wire.check("packed_bytes", size)
            segments, unpacked = compress_segments(segments)
        self._outbox.add(frame, segments, unpacked, urgent=urgent)

    def withdraw(self, call_id: int) -> bool:
        """Drop my large `Call` or `Put` of that id, if it cannot have arrived; return whether it was so.

        True means that the other side never saw it, and never will. Otherwise send a `Cancel`.
        """
        return self._outbox.withdraw(call_id)

    def next_chunk(self, max_bytes: int = CHUNK_BYTES) -> list[Segment] | None:
        """Return the segments of the next `Chunk` to write, or None when there is nothing to send now.

        Call it again once that is written, and whenever something was sent or received. A chunk is about
        `max_bytes` long at most, or one frame. A bare acknowledgement waits for others; send a `Heartbeat` now
        and then, which takes it along.
        """
        if not self._connected:
            return None
        batches = self._outbox.take(max_bytes)
        if not batches and not self._ack_due:
            return None
        self._ack_due = False
        self._unacked_frames = self._unacked_bytes = 0
        return self._chunk(batches)

    @property
    def has_work(self) -> bool:
        """Whether `next_chunk` may have something to return; when this is false, it has not."""
        return self._connected and (self._ack_due or self._outbox.has_work)

    def _chunk(self, taken: list[Taken]) -> list[Segment]:
        if len(taken) == 1 and len(taken[0][2]) == 1:  # most often
            lane, first, [entry] = taken[0]
            return [head_of_one(self._inbox.acks, lane, first, entry.head), *entry.segments]
        head = [head_start(self._inbox.acks, len(taken))]
        chunk: list[Segment] = [b""]
        for lane, first, entries in taken:
            head.append(batch_start(lane, first, len(entries)))
            for entry in entries:
                head.append(entry.head)
                if entry.segments:
                    chunk += entry.segments
        chunk[0] = b"".join(head)
        return chunk

    # ----------------------------------------------------------------------------------------------- receiving

    def receive(self, segments: Sequence[memoryview]) -> Received:
        """Take the segments of a `Chunk`; return the frames that are new and complete, in order on each lane.

        Payloads are views of the segments, or for large ones of a buffer of their own, always read-only.
        Raises `Malformed` or `LimitExceeded` when the other side does not keep to the protocol, and
        `SharedMemoryLost`, with nothing received, when a payload cannot be seen: the connection must end then.
        """
        if self._broken is not None:
            raise self._broken.with_traceback(None)
        try:
            if not segments:
                raise Malformed("A chunk came without segments.")
            head = decode_head(segments[0])
            self._outbox.acknowledge(head.acks)
            if not head.batches and len(segments) == 1:
                return []
            received = self._inbox.receive(head.batches, segments[1:])
            self._count(head.batches, segments)
            return received
        except Malformed as error:
            self._broken = error
            raise

    def _count(self, batches: Sequence[Batch], segments: Sequence[memoryview]) -> None:
        frames, lane = 0, UNNUMBERED
        for batch in batches:
            if lane := batch.lane:
                frames += len(batch.entries)
        if not frames:
            return
        self._unacked_frames += frames
        self._unacked_bytes += sum(map(len, segments))
        limits = self.limits
        if lane == BULK or self._unacked_frames >= limits.ack_frames or self._unacked_bytes >= limits.ack_bytes:
            self._ack_due = True

    def ack_soon(self) -> None:
        """Have `next_chunk` send an acknowledgement even if nothing else goes, unless the other side knows."""
        self._ack_due = self._ack_due or bool(self._unacked_frames)

    # --------------------------------------------------------------------------------------------- connections

    @property
    def acks(self) -> Acks:
        """How much has come on each lane: tell the other side when a connection begins."""
        return self._inbox.acks

    def connected(self, peer_acks: Acks) -> None:
        """Begin a connection, to a peer that says it has received so much; the rest is sent again.

        Raises `Malformed` when it cannot have.
        """
        if self._broken is not None:
            raise self._broken.with_traceback(None)
        try:
            self._outbox.acknowledge(peer_acks)
        except Malformed as error:
            self._broken = error
            raise
        self._resent += self._outbox.rewind()
        self._connected = True
        self._connections += 1
        self._unacked_frames = self._unacked_bytes = 0  # the other side has just been told
        self._ack_due = False

    def disconnected(self) -> None:
        """End a connection: `next_chunk` has nothing to send until the next one."""
        self._connected = False

    # ------------------------------------------------------------------------------------------------ counting

    @property
    def idle(self) -> bool:
        """Whether everything sent has been acknowledged."""
        return not self._outbox.kept_frames

    @property
    def has_room(self) -> bool:
        """Whether a frame of any kind can be sent without `LinkOverflow`."""
        return self._outbox.has_room

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait to be sent, for back-pressure."""
        return self._outbox.queued_bytes

    @property
    def kept_bytes(self) -> int:
        """Bytes kept until the other side has them, the queued ones included; bounded by `outbox_bytes`."""
        return self._outbox.kept_bytes

    @property
    def unacknowledged(self) -> int:
        """How many entries the other side has not acknowledged, those that wait included."""
        return self._outbox.kept_frames

    @property
    def statistics(self) -> SessionStatistics:
        """What has happened so far."""
        return SessionStatistics(
            connections=self._connections,
            entries_sent=self._outbox.entries_sent,
            entries_resent=self._resent,
            entries_received=self._inbox.entries_received,
            duplicates=self._inbox.duplicates,
            queued_bytes=self._outbox.queued_bytes,
            unacknowledged=self._outbox.kept_frames,
        )
