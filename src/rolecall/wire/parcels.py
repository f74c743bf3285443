"""What waits on a lane: an entry on its way, or a frame for the bulk lane, cut into pieces that share its payload."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from rolecall.wire.extensions import Segment
from rolecall.wire.head_codec import entry_head, piece_head, shared_head
from rolecall.wire.routing import Flow

if TYPE_CHECKING:
    from rolecall.wire.shared_lane import Share

__all__ = ("PIECE_SEGMENTS", "Outgoing", "Parcel", "abandon")

PIECE_SEGMENTS = 1_000
"""The most segments that one piece spans, and that a frame has which is not sent in pieces."""


class Outgoing(msgspec.Struct, frozen=True, gc=False):
    """An entry on its way: its part of the chunk's head, its segments, and about how many bytes it holds.

    On the bulk lane, the last entry of a frame has the `flows` of the frame, and may be sent only `after` so many
    entries of the normal lane. `parcel` is what it stands for where the payload is in shared memory.
    """

    head: bytes
    segments: Sequence[Segment]
    size: int
    flows: tuple[Flow, ...] = ()
    after: int = 0
    parcel: Parcel | None = None


class Parcel(msgspec.Struct, frozen=True, gc=False):
    """A frame for the bulk lane; `size` counts the bytes of its payload, or all of it when it is `whole`.

    It must not arrive before the normal lane has got as far as `after`, and keeps its `flows` on the bulk lane. With a
    `share`, its segments but the first go through shared memory, if that works out when its turn comes.
    """

    frame: bytes
    segments: Sequence[Segment]
    unpacked: Sequence[int]
    size: int
    whole: bool
    flows: tuple[Flow, ...]
    after: int
    share: Share | None = None

    @property
    def ready(self) -> bool:
        """Whether its turn can come: its payload is in shared memory, or goes by the connection."""
        return self.share is None or self.share.ready()

    @property
    def stranded(self) -> bool:
        """Whether it is in shared memory that the other side cannot see any more."""
        return self.share is not None and self.share.lost

    def let_go(self) -> None:
        """Hold its shared memory no longer."""
        if self.share is not None:
            self.share.let_go()

    def entries(self, piece_bytes: int) -> Iterator[Outgoing]:
        """Yield the entries that carry the frame; the last has its flows."""
        if self.share is not None:
            yield from self._shared(self.share, piece_bytes)
            return
        if self.whole:
            head = entry_head(self.frame, len(self.segments), self.unpacked)
            yield Outgoing(head, self.segments, self.size, self.flows, self.after)
            return
        head = entry_head(self.frame, 0, self.unpacked, [len(segment) for segment in self.segments])
        left = self.size
        yield self._entry(head, (), 0, last=not left)
        for piece in _cut(self.segments, piece_bytes):
            size = sum(map(len, piece))
            left -= size
            yield self._entry(piece_head(len(piece)), piece, size, last=not left)

    def _shared(self, share: Share, piece_bytes: int) -> Iterator[Outgoing]:
        shared = share.place()
        if shared is None:
            yield from self.unshared().entries(piece_bytes)
            return
        first = self.segments[:1]
        head = shared_head(self.frame, shared)
        parcel = msgspec.structs.replace(self, segments=first)
        yield Outgoing(head, first, len(head) + len(first[0]), self.flows, self.after, parcel)

    def unshared(self) -> Parcel:
        """Return the same frame without shared memory."""
        assert self.share is not None
        segments = [self.segments[0], *self.share.parts()]
        self.share.let_go()
        return msgspec.structs.replace(self, segments=segments, share=None)

    def _entry(self, head: bytes, segments: Sequence[Segment], size: int, *, last: bool) -> Outgoing:
        return Outgoing(head, segments, size, self.flows, self.after) if last else Outgoing(head, segments, size)


def abandon(parcel: Parcel) -> Outgoing:
    """Return the entry that voids a frame of which some pieces have been sent."""
    return Outgoing(piece_head(0), (), 0, parcel.flows)


def _cut(segments: Sequence[Segment], piece_bytes: int) -> Iterator[list[Segment]]:
    piece: list[Segment] = []
    room = piece_bytes
    for segment in segments:
        rest = memoryview(segment)
        while len(rest):
            part, rest = rest[:room], rest[room:]
            piece.append(part)
            room -= len(part)
            if not room or len(piece) == PIECE_SEGMENTS:
                yield piece
                piece, room = [], piece_bytes
    if piece:
        yield piece
