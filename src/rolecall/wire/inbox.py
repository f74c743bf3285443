"""The receiving side of a session: what has come on each lane, without what came twice."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, TypeAlias, cast

import msgspec

from rolecall.wire.assembly import Assembly
from rolecall.wire.compression import decompress_segments
from rolecall.wire.frame_codec import check_free_form
from rolecall.wire.frames import Failed, Frame, Subscribe
from rolecall.wire.heads import BULK, CONTROL, NORMAL, UNNUMBERED, Acks, Batch, Entry, Shared
from rolecall.wire.landing import Landing
from rolecall.wire.limits import Limits, Malformed

if TYPE_CHECKING:
    from rolecall.wire.shared_lane import SharedLane

__all__ = ("Inbox", "Received")

Received: TypeAlias = list[tuple[Frame, Sequence[memoryview]]]
"""Frames, each with its payload."""

_FREE_FORM: Final = frozenset({Failed, Subscribe})
_astuple: Final = msgspec.structs.astuple


class Inbox:
    """Takes batches of entries apart; `duplicates` counts entries that had come before."""

    __slots__ = ("_assembly", "_bulk", "_control", "_landing", "_limits", "_normal", "duplicates", "lane")

    def __init__(self, limits: Limits, landing: Landing) -> None:
        self._limits, self._landing = limits, landing
        self._control = self._normal = self._bulk = 0  # which entry is the next on each lane
        self._assembly: Assembly | None = None
        self.duplicates = 0
        self.lane: SharedLane | None = None
        """By which large payloads may come."""

    @property
    def acks(self) -> Acks:
        """How much has come."""
        return Acks(self._control, self._normal, self._bulk)

    @property
    def entries_received(self) -> int:
        """How many entries have come, without duplicates."""
        return self._control + self._normal + self._bulk

    def receive(self, batches: Sequence[Batch], payload: Sequence[memoryview]) -> Received:
        """Return the frames that are new and complete; `payload` is the segments of the chunk, without its head."""
        if len(batches) == 1 and len(batches[0].entries) == 1 and self._is_plain(batches[0], len(payload)):
            self._normal += 1
            return [(cast(Frame, batches[0].entries[0].frame), payload)]
        for batch in batches:
            if batch.lane == BULK:
                self._find(batch)
        received: Received = []
        cursor = 0
        for batch in batches:
            entries = batch.entries
            if batch.lane != UNNUMBERED and (known := self._known(batch)):
                cursor += sum([entry.segments for entry in entries[:known]])
                entries = entries[known:]
            for entry in entries:
                count, frame, unpacked, sizes, shared = _astuple(entry)
                start, cursor = cursor, cursor + cast(int, count)
                if frame is None or sizes is not None:
                    self._piece(entry, payload[start:cursor], batch.lane, received)
                elif unpacked or shared is not None or type(frame) in _FREE_FORM:
                    self._special(entry, frame, payload[start:cursor], batch.lane, received)
                else:
                    received.append((frame, payload[start:cursor]))
        if cursor != len(payload):
            raise Malformed(f"A chunk has {len(payload)} segments of payload, where its head says {cursor}.")
        return received

    def _is_plain(self, batch: Batch, segments: int) -> bool:
        """Return whether a batch is one new frame on the normal lane that can be handed on as it is."""
        entry = batch.entries[0]
        return (
            batch.lane == NORMAL
            and batch.first == self._normal
            and entry.segments == segments
            and not (entry.frame is None or entry.unpacked or entry.sizes is not None or entry.shared is not None)
            and type(entry.frame) not in _FREE_FORM
        )

    def _find(self, batch: Batch) -> None:
        """See that shared memory is there before anything is counted as received."""
        for number, entry in enumerate(batch.entries, batch.first):
            if entry.shared is None or number < self._bulk:
                continue
            if self.lane is None:
                raise Malformed("A frame refers to shared memory, and this link has none.")
            if entry.frame is None or entry.sizes or entry.unpacked or entry.segments != 1:
                raise Malformed("A frame in shared memory comes whole, with one segment of its own.")
            self.lane.find(entry.shared)

    def _known(self, batch: Batch) -> int:
        """Return how many of the entries have come before, and count the others."""
        expected, count = self._expected(batch.lane), len(batch.entries)
        known = expected - batch.first
        if known < 0:
            raise Malformed(f"Lane {batch.lane}: entry {batch.first:,} came, where {expected:,} is the next.")
        if known:
            known = min(known, count)
            self.duplicates += known
        self._expect(batch.lane, expected + count - known)
        return known

    def _expected(self, lane: int) -> int:
        """Return the number of the entry that is the next on a lane."""
        if lane == NORMAL:
            return self._normal
        return self._control if lane == CONTROL else self._bulk

    def _expect(self, lane: int, number: int) -> None:
        if lane == NORMAL:
            self._normal = number
        elif lane == CONTROL:
            self._control = number
        else:
            self._bulk = number

    def _special(
        self, entry: Entry, frame: Frame, payload: Sequence[memoryview], lane: int, received: Received
    ) -> None:
        """Take a whole frame that is to be looked at, or whose payload is not as it is to be handed on."""
        check_free_form(frame)
        if entry.unpacked:
            payload = decompress_segments(payload, entry.unpacked, self._limits)
        if entry.shared is not None:
            payload = [*payload, *self._shared(entry.shared, lane)]
        received.append((frame, payload))

    def _shared(self, shared: Shared, lane: int) -> Sequence[memoryview]:
        if lane != BULK or self.lane is None:
            raise Malformed(f"A frame in shared memory came on lane {lane}.")
        return self.lane.take(shared, self._limits)

    # -------------------------------------------------------------------------------------------------- pieces

    def _piece(self, entry: Entry, payload: Sequence[memoryview], lane: int, received: Received) -> None:
        if lane != BULK:
            raise Malformed(f"A frame in pieces came on lane {lane}.")
        if entry.frame is not None:
            assembly = self._opened(entry, entry.frame)
        elif self._assembly is None:
            raise Malformed("A piece came that belongs to no frame.")
        elif not entry.segments:
            self._assembly = None  # the sender has withdrawn it
            return
        else:
            assembly = self._assembly
            assembly.add(payload)
        if assembly.complete:
            received.append((assembly.frame, self._finished(assembly)))

    def _opened(self, entry: Entry, frame: Frame) -> Assembly:
        if self._assembly is not None:
            raise Malformed("A frame in pieces began before the one before it was complete.")
        if entry.segments:
            raise Malformed("A frame in pieces began with segments of its own.")
        check_free_form(frame)
        self._assembly = Assembly(frame, entry.sizes or (), entry.unpacked or (), self._limits, self._landing)
        return self._assembly

    def _finished(self, assembly: Assembly) -> list[memoryview]:
        self._assembly = None
        if assembly.unpacked:
            return decompress_segments(assembly.segments, assembly.unpacked, self._limits)
        return assembly.segments
