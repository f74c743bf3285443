"""A frame on the bulk lane, and how its payload is cut into pieces that views share with it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from rolecall.wire.extensions import Segment
from rolecall.wire.heads import entry_head, piece_head
from rolecall.wire.lanes import Outgoing
from rolecall.wire.routing import Flow

__all__ = ("PIECE_SEGMENTS", "Parcel", "abandon")

PIECE_SEGMENTS = 1_000
"""The most segments that one piece spans, and that a frame has which is not sent in pieces."""


class Parcel(msgspec.Struct, frozen=True, gc=False):
    """A frame for the bulk lane; `size` counts the bytes of its payload, or all of it when it is `whole`.

    It must not arrive before the normal lane has got as far as `after`, and keeps its `flows` on the bulk lane.
    """

    frame: bytes
    segments: Sequence[Segment]
    unpacked: Sequence[int]
    size: int
    whole: bool
    flows: tuple[Flow, ...]
    after: int

    def entries(self, piece_bytes: int) -> Iterator[Outgoing]:
        """Yield the entries that carry the frame; the last has its flows."""
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
