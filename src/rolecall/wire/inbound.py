"""Where the data of one gRPC stream arrive: read by whoever waits, or handed on at once, and never without bound."""

from __future__ import annotations

import asyncio
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
        """Take what has arrived."""
        self._owed_bytes += ack_size
        if self._sink is not None:
            self._sink(memoryview(data))
            self._settle(_ACKNOWLEDGE_BYTES)
            return
        self._pieces.append(memoryview(data))
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

    `on_message` gets each body: a view of the received bytes where it came in one piece, which saves a copy.
    """

    def __init__(self, on_message: Callable[[memoryview], None], limit_bytes: int) -> None:
        self._on_message, self._limit = on_message, limit_bytes
        self._pieces: list[memoryview] = []
        self._missing = _PREFIX_BYTES
        self._in_body = False

    def feed(self, view: memoryview) -> None:
        """Take the next bytes; raise `Malformed` or `LimitExceeded` before any memory is taken for a body."""
        while view:
            if len(view) < self._missing:
                self._pieces.append(view)
                self._missing -= len(view)
                return
            part, view = view[: self._missing], view[self._missing :]
            if self._pieces:
                self._pieces.append(part)
                part = memoryview(b"".join(self._pieces))
                self._pieces = []
            self._complete(part)

    def _complete(self, part: memoryview) -> None:
        if self._in_body:
            self._next(False, _PREFIX_BYTES)
            self._on_message(part)
            return
        size = _body_bytes(part, self._limit)
        if size:
            self._next(True, size)
        else:
            self._next(False, _PREFIX_BYTES)
            self._on_message(part[:0])

    def _next(self, in_body: bool, size: int) -> None:
        self._in_body, self._missing = in_body, size


def _body_bytes(prefix: memoryview, limit: int) -> int:
    if prefix[0]:
        raise Malformed(f"A gRPC message with flags {prefix[0]:#04x} came; links do not compress whole messages.")
    size = int.from_bytes(prefix[1:], "big")
    if size > limit:
        raise LimitExceeded("frame_bytes", size, limit)
    return size
