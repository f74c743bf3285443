"""The lane of a link by which two processes of one machine share memory instead of sending it.

Frames stay on the link: the frame of a shared payload says in which segment its arrays are, and holds a *lease* of it.
The writer does not use the segment for anything else until the reader says that the lease has ended, which it does when
the last array that looks at it is gone. Where the reader is lost nobody can know, and such a segment is given up.
"""

from __future__ import annotations

import asyncio
import itertools
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from rolecall.core.errors import RolecallError
from rolecall.wire.extensions import Segment
from rolecall.wire.heads import Shared
from rolecall.wire.limits import LimitExceeded, Limits, Malformed
from rolecall.wire.parcels import PIECE_SEGMENTS
from rolecall.wire.shared_limits import SharedMemoryLimits
from rolecall.wire.shared_messages import RELEASES_MAX, Announce, Greeting, Message, Release, Retire
from rolecall.wire.shared_pool import Payload, SharedPool
from rolecall.wire.shared_segments import map_readonly
from rolecall.wire.shared_socket import SharedSocket

__all__ = ("Share", "SharedLane", "SharedMemoryLost")

_NOTHING: Final = Greeting(0, b"", 0, 0)


class SharedMemoryLost(RolecallError):
    """Raised when a payload is in shared memory that cannot be seen any more; it has to be sent otherwise."""


class SharedLane:
    """One side of the lane: writes by way of `pool`, which all links of the node have in common, and reads.

    `wake` is called when something can be sent that could not before, `on_malformed` when the other side does not
    keep to the protocol. All is used from one event loop, except that arrays may be let go by any thread.
    """

    def __init__(
        self,
        pool: SharedPool,
        limits: SharedMemoryLimits,
        connected: SharedSocket,
        *,
        wake: Callable[[], None],
        on_malformed: Callable[[Malformed], None],
        on_closed: Callable[[SharedLane], None],
    ) -> None:
        self._pool, self._limits, self._socket = pool, limits, connected
        self.wake, self._on_malformed, self._on_closed = wake, on_malformed, on_closed
        connected.on_message, connected.on_failed = self._on_message, self._on_failed
        self._loop = asyncio.get_running_loop()
        self.lost: str | None = None
        """Why nothing goes by this lane any more, once it is so."""
        self.sent_bytes = self.received_bytes = 0
        self.timer: asyncio.TimerHandle | None = None
        """What gives up when the other side does not greet."""
        self._capacity = _NOTHING  # what the other side takes in, when it has said so
        self._announced: dict[int, int] = {}
        self._announced_bytes = 0
        self._leases: dict[int, Payload] = {}
        self._numbers = itertools.count()
        self._mapped: dict[int, npt.NDArray[np.uint8]] = {}
        self._mapped_bytes = 0
        self._ended: deque[int] = deque()  # leases of the other side's segments
        self._telling = False

    # ------------------------------------------------------------------------------------------------- writing

    def greeted(self, greeting: Greeting) -> None:
        """Begin to write to a peer that takes in so much."""
        self._capacity = greeting
        self._cancel_timer()

    def give_up(self, reason: str) -> None:
        """Send nothing by this lane."""
        self._lose(reason)

    def _cancel_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    @property
    def open(self) -> bool:
        """Whether payloads can be sent."""
        return self.lost is None and self._capacity.segments_max > 0

    @property
    def leases(self) -> int:
        """How many payloads the other side has not let go of."""
        return len(self._leases)

    def share(self, segments: Sequence[Segment]) -> Share | None:
        """Return what will bring all segments but the first to the other side, if that is something for this lane."""
        if not self.open or not 2 <= len(segments) <= PIECE_SEGMENTS or len(segments[0]) > self._limits.head_bytes:
            return None
        parts = segments[1:]
        return Share(self, self._pool.payload(parts)) if all(map(_is_plain, parts)) else None

    def place(self, payload: Payload) -> Shared | None:
        """Lease to the other side the segment that a payload is in; return where it is, or None if that fails."""
        if not self.open or not payload.filled or not self._announce(payload):
            return None
        assert payload.segment is not None
        lease = next(self._numbers)
        payload.hold()
        self._leases[lease] = payload
        self.sent_bytes += payload.size
        return Shared(lease, payload.segment.number, payload.places)

    def _announce(self, payload: Payload) -> bool:
        """See that the other side has the segment of a payload."""
        segment = payload.segment
        assert segment is not None
        if segment.number in self._announced:
            return True
        fits = self._announced_bytes + segment.size <= self._capacity.bytes_max
        if not fits or len(self._announced) >= self._capacity.segments_max:
            return False
        if not self._socket.pass_on(Announce(segment.number, segment.size), segment.fd):
            return False
        self._announced[segment.number] = segment.size
        self._announced_bytes += segment.size
        return True

    def retire(self, number: int) -> None:
        """Tell the other side, if it has the segment of that number, that it is not used any more."""
        size = self._announced.pop(number, None)
        if size is not None:
            self._announced_bytes -= size
            self._socket.send(Retire(number))

    def _released(self, leases: Sequence[int]) -> None:
        for lease in leases:
            payload = self._leases.pop(lease, None)
            if payload is None:
                raise Malformed(f"Lease {lease:,} of shared memory was given back, which there is not.")
            payload.drop()

    # ------------------------------------------------------------------------------------------------- reading

    def find(self, shared: Shared) -> None:
        """See that a segment is there; raise `SharedMemoryLost` where it cannot be, `Malformed` where it should be."""
        if shared.segment not in self._mapped:
            self._socket.poll()  # its announcement was sent before the frame
        if shared.segment not in self._mapped:
            if self.lost is None:
                raise Malformed(
                    f"A frame refers to segment {shared.segment:,} of shared memory, which was not announced."
                )
            raise SharedMemoryLost(f"A payload cannot be seen, since the shared memory is lost: {self.lost}.")

    def take(self, shared: Shared, limits: Limits) -> list[memoryview]:
        """Return a payload; it is leased as long as somebody has one of the views, or an array that is made of one."""
        limits.check("segments", len(shared.places))
        size = sum([length for _, length in shared.places])
        limits.check("message_bytes", size)
        leased = self._mapped[shared.segment].view()
        if any(offset + length > leased.size for offset, length in shared.places):
            raise Malformed(f"A payload goes beyond segment {shared.segment:,} of shared memory.")
        weakref.finalize(leased, _end, weakref.ref(self), shared.lease).atexit = False
        self.received_bytes += size
        whole = memoryview(leased)  # type: ignore[arg-type]
        return [whole[offset : offset + length] for offset, length in shared.places]

    def end_lease(self, lease: int) -> None:
        """Take note that nobody looks at a payload any more; may be called by any thread at any time."""
        self._ended.append(lease)
        if not self._telling and self.lost is None:
            self._telling = True
            try:
                self._loop.call_soon_threadsafe(self._tell)
            except RuntimeError:  # the loop is closed, and the other side will notice
                pass

    def _tell(self) -> None:
        self._telling = False
        while self._ended:
            self._socket.send(Release([self._ended.popleft() for _ in range(min(len(self._ended), RELEASES_MAX))]))

    def _map(self, announced: Announce, fd: int) -> None:
        if fd < 0 or announced.segment in self._mapped:
            raise Malformed(f"Segment {announced.segment:,} of shared memory was announced twice, or did not come.")
        if len(self._mapped) >= self._limits.segments:
            raise LimitExceeded("segments of shared memory", len(self._mapped) + 1, self._limits.segments)
        if self._mapped_bytes + announced.size > self._limits.total_bytes:
            found = self._mapped_bytes + announced.size
            raise LimitExceeded("bytes of shared memory", found, self._limits.total_bytes)
        try:
            self._mapped[announced.segment] = map_readonly(fd, announced.size)
        except OSError as error:
            self._lose(f"a segment of {announced.size:,} bytes could not be mapped: {error.strerror}")
        else:
            self._mapped_bytes += announced.size

    def _unmap(self, number: int) -> None:
        mapped = self._mapped.pop(number, None)
        if mapped is None:
            raise Malformed(f"Segment {number:,} of shared memory was retired, which there is not.")
        self._mapped_bytes -= mapped.size

    # ------------------------------------------------------------------------------------------------- the socket

    def _on_message(self, message: Message, fd: int) -> None:
        if isinstance(message, Announce):
            self._map(message, fd)
        elif isinstance(message, Release):
            self._released(message.leases)
        elif isinstance(message, Retire):
            self._unmap(message.segment)
        else:
            raise Malformed("A greeting came about shared memory that is open already.")

    def _on_failed(self, error: Exception) -> None:
        self._lose(str(error))
        if isinstance(error, Malformed):
            self._on_malformed(error)

    def _lose(self, reason: str) -> None:
        """Send nothing more, and give up what the other side may still look at; what was mapped here stays."""
        if self.lost is not None:
            return
        self.lost = reason
        self._cancel_timer()
        self._socket.close()
        leases, self._leases = self._leases, {}
        for payload in leases.values():
            payload.drop(seen=True)
        self._announced.clear()
        self._on_closed(self)
        self.wake()

    def close(self) -> None:
        """End the lane, with its link; arrays that came by it stay as they are."""
        self._lose("the link has ended")
        self._mapped.clear()


class Share:
    """A payload on its way by a lane, for one frame."""

    __slots__ = ("_held", "_lane", "_payload")

    def __init__(self, lane: SharedLane, payload: Payload) -> None:
        self._lane, self._payload, self._held = lane, payload, True

    @property
    def lost(self) -> bool:
        """Whether the other side may not be able to see it."""
        return self._lane.lost is not None

    def ready(self) -> bool:
        """Have the payload written, if it is not; return whether it is known by now how it goes."""
        return self.lost or self._payload.prepare(self._lane.wake)

    def place(self) -> Shared | None:
        """Return where it is, for the frame; None if it has to go otherwise."""
        return self._lane.place(self._payload)

    def parts(self) -> list[Segment]:
        """Return the bytes, for another way."""
        return self._payload.parts()

    def let_go(self) -> None:
        """Hold it no more: the frame has arrived, or never will."""
        if self._held:
            self._held = False
            self._payload.drop()


def _is_plain(part: Segment) -> bool:
    """Return whether the items of a part are bytes, one after the other."""
    return isinstance(part, bytes) or (part.format == "B" and part.ndim == 1 and part.c_contiguous)


def _end(lane: weakref.ref[SharedLane], lease: int) -> None:
    found = lane()
    if found is not None:
        found.end_lease(lease)
