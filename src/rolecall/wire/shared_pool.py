"""The segments a node writes: each payload once, for however many readers, and none while somebody reads it."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from rolecall.wire.extensions import Segment as Bytes
from rolecall.wire.shared_limits import SharedMemoryLimits
from rolecall.wire.shared_segments import GRAIN_BYTES, Segment

__all__ = ("TURN_BYTES", "Payload", "SharedPool")

TURN_BYTES = 1 << 20
"""What is copied before the event loop has another turn."""
_ALIGNMENT = 64
_ROOMY = 4  # a segment that many times too large is left to those who need it


class SharedPool:
    """Segments in use, and segments that wait for the next use; all from one event loop.

    `on_retired` is called with the number of each segment that is given up.
    """

    def __init__(self, limits: SharedMemoryLimits, on_retired: Callable[[int], None] = lambda number: None) -> None:
        self._limits, self._on_retired = limits, on_retired
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self._free: list[Segment] = []
        self._used: dict[int, Segment] = {}
        self._lately: dict[tuple[tuple[int, int], ...], tuple[Payload, Sequence[Bytes]]] = {}
        self._copying: deque[Payload] = deque()
        self._budget = TURN_BYTES
        self.written_bytes = 0
        """Bytes copied into segments so far."""

    @property
    def bytes(self) -> int:
        """Bytes of all segments."""
        return sum(segment.size for segment in [*self._free, *self._used.values()])

    @property
    def segments(self) -> int:
        """How many segments there are."""
        return len(self._free) + len(self._used)

    @property
    def used(self) -> int:
        """How many of them somebody writes or reads."""
        return len(self._used)

    # ------------------------------------------------------------------------------------------------- payloads

    def payload(self, parts: Sequence[Bytes]) -> Payload:
        """Return what stands for the bytes of `parts`, held once more; the same for the same memory in one turn.

        Only in one turn of the loop, since the memory may be used for something else afterwards.
        """
        key = tuple((_address(part), len(part)) for part in parts)
        payload, _ = self._lately.get(key, (None, ()))
        if payload is None or payload.dropped:
            if not self._lately:
                self._loop.call_soon(self._lately.clear)
            payload = Payload(self, parts)
            self._lately[key] = payload, parts  # which must not go before: others could come to lie where they are
        payload.hold()
        return payload

    def begin(self, payload: Payload) -> None:
        """Give a payload a segment, if there is room, and begin to copy it."""
        payload.segment = self._take(payload.size)
        if payload.segment is not None:
            self._copying.append(payload)
            self._copy()

    def _copy(self) -> None:
        """Copy what waits for it, as far as this turn allows."""
        while self._copying and self._budget > 0:
            payload = self._copying[0]
            if not payload.dropped:
                self._spend(payload.copy(self._budget))
            if payload.dropped or payload.filled:
                self._copying.popleft()
                payload.tell()

    def _spend(self, copied: int) -> None:
        if self._budget == TURN_BYTES:
            self._loop.call_soon(self._next_turn)
        self._budget -= max(copied, 1)
        self.written_bytes += copied

    def _next_turn(self) -> None:
        self._budget = TURN_BYTES
        self._copy()

    # ------------------------------------------------------------------------------------------------- segments

    def _take(self, size: int) -> Segment | None:
        fitting = [segment for segment in self._free if size <= segment.size <= max(_ROOMY * size, GRAIN_BYTES)]
        if fitting:
            segment = min(fitting, key=lambda segment: segment.size)
            self._free.remove(segment)
        else:
            made = self._make(_rounded(size))
            if made is None:
                return None
            segment = made
        self._used[segment.number] = segment
        return segment

    def _make(self, size: int) -> Segment | None:
        while self._free and not self._has_room(size):
            self._retire(self._free.pop(0))
        if not self._has_room(size):
            return None
        try:
            return Segment(next(self._numbers), size)
        except OSError:  # no memory, or no descriptor
            return None

    def _has_room(self, size: int) -> bool:
        return self.segments < self._limits.segments and self.bytes + size <= self._limits.total_bytes

    def _retire(self, segment: Segment) -> None:
        segment.close()
        self._on_retired(segment.number)

    def give_back(self, segment: Segment, *, reusable: bool) -> None:
        """Take back a segment; unless it is `reusable`, it is given up: somebody may still be reading it."""
        del self._used[segment.number]
        if reusable and segment.fd >= 0:
            segment.used_s = self._loop.time()
            self._free.append(segment)
        else:
            self._retire(segment)

    def trim(self, now_s: float) -> None:
        """Give up the segments that nobody has used for long."""
        while self._free and now_s - self._free[0].used_s > self._limits.idle_s:
            self._retire(self._free.pop(0))

    def close(self) -> None:
        """Give up everything; readers keep what they have."""
        self._copying.clear()
        self._lately.clear()
        for segment in [*self._free, *self._used.values()]:
            segment.close()
        self._free.clear()


class Payload:
    """Bytes that go into one segment, once somebody's turn has come to send them.

    It is held by each message that carries it and by each reader; when nobody does any more, the segment is free.
    """

    __slots__ = (
        "_copied",
        "_holders",
        "_index",
        "_parts",
        "_pool",
        "_tainted",
        "_told",
        "_whole",
        "places",
        "segment",
        "size",
    )

    def __init__(self, pool: SharedPool, parts: Sequence[Bytes]) -> None:
        self._pool, self._parts = pool, parts
        self.places, self.size = _laid_out(parts)
        """Where each part begins and how long it is; and where the last one ends."""
        self.segment: Segment | None = None
        self._holders = self._index = self._copied = 0
        self._whole = self._tainted = False
        self._told: list[Callable[[], None]] = []

    @property
    def filled(self) -> bool:
        """Whether all is in the segment."""
        return self._whole

    @property
    def dropped(self) -> bool:
        """Whether nobody wants it any more."""
        return not self._holders

    def prepare(self, on_filled: Callable[[], None]) -> bool:
        """See that the bytes come into a segment, if there is room for one, and return whether that is settled.

        Otherwise `on_filled` is called when it is.
        """
        if self.segment is None:
            self._pool.begin(self)
        if self._whole or self.segment is None:
            return True
        if on_filled not in self._told:
            self._told.append(on_filled)
        return False

    def copy(self, size: int) -> int:
        """Copy about so many of the bytes; return how many it were."""
        assert self.segment is not None
        room = size
        while room > 0 and self._index < len(self._parts):
            offset, length = self.places[self._index]
            end = min(length, self._copied + room)
            part = memoryview(self._parts[self._index])
            self.segment.view[offset + self._copied : offset + end] = part[self._copied : end]
            room -= end - self._copied
            self._copied = end
            if end == length:
                self._index, self._copied = self._index + 1, 0
        if self._index == len(self._parts):
            self._whole = True
            self._parts = ()  # what was given may change from now on
        return size - room

    def tell(self) -> None:
        """Tell those who wait that all is in the segment."""
        told, self._told = self._told, []
        for on_filled in told:
            on_filled()

    def parts(self) -> list[Bytes]:
        """Return the bytes, to send them by another way; the segment is not used again then."""
        if not self._whole:
            return list(self._parts)
        assert self.segment is not None
        self._tainted = True
        whole = self.segment.view.toreadonly()
        return [whole[offset : offset + length] for offset, length in self.places]

    # -------------------------------------------------------------------------------------------------- holders

    def hold(self) -> None:
        """Take note of another holder."""
        self._holders += 1

    def drop(self, *, seen: bool = False) -> None:
        """Take note that a holder is gone; where it may still be `seen` by it, the segment is not used again."""
        self._holders -= 1
        self._tainted = self._tainted or seen
        if self._holders or self.segment is None:
            return
        segment, self.segment = self.segment, None
        self._pool.give_back(segment, reusable=not self._tainted)


def _laid_out(parts: Sequence[Bytes]) -> tuple[list[tuple[int, int]], int]:
    places: list[tuple[int, int]] = []
    end = 0
    for part in parts:
        start = end + -end % _ALIGNMENT
        end = start + len(part)
        places.append((start, len(part)))
    return places, end


def _rounded(size: int) -> int:
    """Return a size that others can use as well, a quarter larger at most (but for small ones)."""
    grain = max(GRAIN_BYTES, 1 << max(0, size.bit_length() - 3))
    return size + -size % grain


def _address(part: Bytes) -> int:
    return int(np.frombuffer(part, np.uint8).__array_interface__["data"][0]) if len(part) else 0
