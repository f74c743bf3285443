"""Where the data of one gRPC stream arrive: read by whoever waits, or handed on at once, and never without bound."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from typing import Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from rolecall.wire.limits import LimitExceeded, Malformed

__all__ = ("READ_BYTES", "InboundBuffer", "MessageCutter")

READ_BYTES: Final = 4 << 20
"""The largest message of the administrative service, and of a handshake."""
_ACKNOWLEDGE_BYTES: Final = 256 << 10
_PREFIX_BYTES: Final = 5
_SMALL_BYTES: Final = 32 << 10
_SPARE_MAX: Final = 4
_SPARE_BYTES: Final = 2 << 20


class InboundBuffer:
    """Stands where grpclib has its `Buffer`, which takes whatever length a peer announces.

    What nobody has asked for is not acknowledged, so that a peer can fill no more than its window.
    """

    def __init__(self, acknowledge: Callable[[int], None]) -> None:
        self._acknowledge = acknowledge
        self._pieces: deque[memoryview] = deque()
        self._held_bytes = 0
        self._owed_bytes = 0
        self._ended = False
        self._failed: str | None = None
        self._reader: asyncio.Future[None] | None = None
        self._sink: Callable[[memoryview], None] | None = None
        self._on_end: Callable[[], None] | None = None

    # ------------------------------------------------------------------------------------- what grpclib calls

    def add(self, data: bytes, ack_size: int) -> None:
        """Take what has arrived; its memory may be used for something else afterwards."""
        self._owed_bytes += ack_size
        if self._sink is not None:
            self._sink(memoryview(data))
            self._settle(_ACKNOWLEDGE_BYTES)
            return
        self._pieces.append(memoryview(bytes(data)))
        self._held_bytes += len(data)
        self._wake()

    def eof(self) -> None:
        """Take note that nothing more will come."""
        self._ended = True
        self._wake()
        if self._on_end is not None:
            self._on_end()

    def fail(self, reason: str) -> None:
        """Have whoever reads get `StreamTerminatedError`."""
        self._failed = reason
        self._wake()

    def unacked_size(self) -> int:
        """Return, once, how much has not been acknowledged."""
        owed, self._owed_bytes = self._owed_bytes, 0
        return owed

    async def read(self, size: int) -> bytes:
        """Return exactly `size` bytes, or none at the regular end; raise `GRPCError` for too many, or too few."""
        if size > READ_BYTES:
            raise GRPCError(Status.RESOURCE_EXHAUSTED, f"A message of {size:,} bytes; {READ_BYTES:,} are allowed.")
        while self._held_bytes < size and not self._ended and self._failed is None:
            self._settle(0)
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        if self._held_bytes < size:
            if self._failed is not None:
                raise StreamTerminatedError(self._failed)
            if not self._held_bytes:
                return b""
            raise GRPCError(Status.INVALID_ARGUMENT, f"The stream ended {size - self._held_bytes:,} bytes too early.")
        taken = self._take(size)
        if not self._held_bytes:
            self._settle(0)
        return taken

    # ---------------------------------------------------------------------------------------------------------

    def hand_on(self, sink: Callable[[memoryview], None], on_end: Callable[[], None]) -> None:
        """From now on call `sink` with whatever has arrived, what is here already included."""
        pieces, self._pieces, self._held_bytes = self._pieces, deque(), 0
        self._sink, self._on_end = sink, on_end
        for piece in pieces:
            sink(piece)
        self._settle(0)
        if self._ended:
            on_end()

    def _take(self, size: int) -> bytes:
        self._held_bytes -= size
        taken: list[memoryview] = []
        while size:
            piece = self._pieces.popleft()
            if len(piece) > size:
                self._pieces.appendleft(piece[size:])
                piece = piece[:size]
            taken.append(piece)
            size -= len(piece)
        return b"".join(taken)

    def _settle(self, beyond: int) -> None:
        """Let the peer send as much again as was taken."""
        if self._owed_bytes > beyond:
            owed, self._owed_bytes = self._owed_bytes, 0
            self._acknowledge(owed)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class MessageCutter:
    """Puts gRPC messages together: one byte of flags, four of length, and the body; sans-IO.

    `on_message` gets each body, in memory of its own.
    """

    def __init__(self, on_message: Callable[[bytes | memoryview], None], limit_bytes: int) -> None:
        self._on_message, self._limit = on_message, limit_bytes
        self._prefix = b""
        self._body: bytearray | None = None  # with the bytes that have come, if not all have
        self._size = self._filled = 0

    def feed(self, view: memoryview) -> None:
        """Take the next bytes; raise `Malformed` or `LimitExceeded` before any memory is taken for a body.

        The bytes may change afterwards.
        """
        position, end = 0, len(view)
        while position < end:
            if self._body is not None:
                position = self._fill(self._body, view, position, end)
                continue
            taken = min(_PREFIX_BYTES - len(self._prefix), end - position)
            self._prefix += view[position : position + taken]
            position += taken
            if len(self._prefix) == _PREFIX_BYTES:
                position = self._begin(view, position, end)

    def _begin(self, view: memoryview, position: int, end: int) -> int:
        size = _body_bytes(self._prefix, self._limit)
        self._prefix = b""
        if size <= end - position and size <= _SMALL_BYTES:
            self._on_message(bytes(view[position : position + size]))
            return position + size
        self._body, self._size, self._filled = spare.take(size), size, 0
        return position

    def _fill(self, body: bytearray, view: memoryview, position: int, end: int) -> int:
        taken = min(self._size - self._filled, end - position)
        with memoryview(body) as target:  # assigning to the bytearray itself would make another copy first
            target[self._filled : self._filled + taken] = view[position : position + taken]
        self._filled += taken
        if self._filled == self._size:
            self._body = None
            self._on_message(memoryview(body)[: self._size])
            spare.give_back(body)
        return position + taken


class _Spare(threading.local):
    """Memory for large bodies, used again: to take it afresh from the system costs as much as to fill it."""

    def __init__(self) -> None:
        self.buffers: list[bytearray] = []

    def take(self, size: int) -> bytearray:
        """Return a buffer of that size at least."""
        for i, buffer in enumerate(self.buffers):
            if size <= len(buffer):
                return self.buffers.pop(i)
        return bytearray(size)

    def give_back(self, buffer: bytearray) -> None:
        """Keep a buffer, unless somebody still has a view of it."""
        if len(self.buffers) < _SPARE_MAX and len(buffer) <= _SPARE_BYTES and _unseen(buffer):
            self.buffers.append(buffer)


def _unseen(buffer: bytearray) -> bool:
    try:
        buffer.append(buffer.pop())  # Python does not let the size change while there are views
    except BufferError:
        return False
    return True


spare = _Spare()


def _body_bytes(prefix: bytes, limit: int) -> int:
    if prefix[0]:
        raise Malformed(f"A gRPC message with flags {prefix[0]:#04x} came; links do not compress whole messages.")
    size = int.from_bytes(prefix[1:], "big")
    if size > limit:
        raise LimitExceeded("frame_bytes", size, limit)
    return size
