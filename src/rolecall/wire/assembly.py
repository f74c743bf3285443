"""A frame that arrives in pieces, put together in one buffer."""

from __future__ import annotations

from collections.abc import Sequence

from rolecall.wire.frames import Frame
from rolecall.wire.landing import Landing
from rolecall.wire.limits import Limits, Malformed

__all__ = ("Assembly",)

_ALIGNMENT = 64


class Assembly:
    """The buffer for a payload whose segments have `sizes`; raises `LimitExceeded` before it is allocated."""

    __slots__ = ("_buffer", "_filled", "_index", "_left", "_offsets", "_sizes", "frame", "unpacked")

    def __init__(
        self, frame: Frame, sizes: Sequence[int], unpacked: Sequence[int], limits: Limits, landing: Landing
    ) -> None:
        limits.check("segments", len(sizes))
        limits.check("message_bytes", sum(sizes))
        if unpacked and len(unpacked) != len(sizes):
            raise Malformed(f"A message has {len(sizes)} segments, and the unpacked sizes of {len(unpacked)}.")
        limits.check("message_bytes", sum(unpacked))
        self.frame, self.unpacked, self._sizes = frame, unpacked, sizes
        self._offsets, end = _aligned(sizes)
        self._buffer = landing.take(end)
        self._left = sum(sizes)
        self._index = self._filled = 0  # the segment being filled, and how far

    @property
    def complete(self) -> bool:
        """Whether all bytes have come."""
        return not self._left

    @property
    def segments(self) -> list[memoryview]:
        """The payload, as read-only views of the buffer."""
        whole = self._buffer.toreadonly()
        return [whole[at : at + size] for at, size in zip(self._offsets, self._sizes, strict=True)]

    def add(self, piece: Sequence[memoryview]) -> None:
        """Take over the next bytes; raise `Malformed` when they are more than were announced."""
        size = sum(map(len, piece))
        if not 0 < size <= self._left:
            raise Malformed(f"A piece of {size:,} bytes came, where {self._left:,} are missing from a message.")
        self._left -= size
        for view in piece:
            rest = view
            while len(rest):
                rest = self._fill(rest)

    def _fill(self, view: memoryview) -> memoryview:
        """Copy what fits into the present segment; return the rest."""
        room = self._sizes[self._index] - self._filled
        part = view[:room]
        start = self._offsets[self._index] + self._filled
        self._buffer[start : start + len(part)] = part
        self._filled += len(part)
        if self._filled == self._sizes[self._index]:
            self._index, self._filled = self._index + 1, 0
        return view[len(part) :]


def _aligned(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return where each segment starts, and where the last one ends."""
    offsets: list[int] = []
    end = 0
    for size in sizes:
        start = end + -end % _ALIGNMENT
        offsets.append(start)
        end = start + size
    return offsets, end
