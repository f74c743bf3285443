"""One connection between two nodes: chunks in both directions, over one gRPC stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from grpclib.exceptions import GRPCError, StreamTerminatedError
from h2.exceptions import H2Error

from rolecall.wire.chunk import chunk_decode, chunk_pieces
from rolecall.wire.extensions import Segment
from rolecall.wire.h2_tuning import TunedStream
from rolecall.wire.inbound import MessageCutter
from rolecall.wire.limits import Limits, Malformed

__all__ = ("HANDSHAKE_LIMITS", "Pipe", "PipeClosed", "Reader")

HANDSHAKE_LIMITS: Final = Limits(frame_bytes=64 << 10, segments=16)
"""What is accepted from a peer before it has proven who it is."""
_PREFIX_BYTES: Final = 5


class PipeClosed(Exception):
    """Raised on waiting for a chunk of a pipe that has ended; the message says why."""


class Reader(Protocol):
    """Who a pipe is for once the handshake is over: a link."""

    def on_chunk(self, segments: list[memoryview]) -> None:
        """Take a chunk; raise `Malformed` where it is none of a kind that may come."""

    def violated(self, error: Malformed) -> None:
        """Take note of what `on_chunk` has raised, or that something has come that is no chunk."""

    def cut(self, reason: str) -> None:
        """Take note, once, that the pipe has ended by anything but `close` and `abort`."""

    def pump(self) -> None:
        """Take note that there is room again to `write`."""


class Pipe:
    """Chunks over one stream, which has its connection for itself.

    They are read one by one during the handshake, and by callback afterwards; they are written without waiting.
    """

    def __init__(self, stream: TunedStream, *, release: Callable[[], None] = lambda: None) -> None:
        self._stream, self._release = stream, release
        self._limits = HANDSHAKE_LIMITS
        self._cutter: MessageCutter | None = None
        self._ended = asyncio.Event()
        self._dropped = False  # nothing that comes matters any more
        self.reader: Reader | None = None
        """Who is told what happens; nobody during the handshake, or when it is set to None."""
        self.closed: str | None = None
        """Why the pipe has ended, once it has."""
        self.sent_bytes = self.received_bytes = 0
        stream.on_terminated = self.fail
        stream.on_writable = self._tell_writable
        if stream.terminated is not None:
            self.fail(stream.terminated)

    @property
    def remote(self) -> str:
        """The address at the other end."""
        return self._stream.connection.remote

    @property
    def answered(self) -> bool:
        """Whether the other side has said anything."""
        return self._stream.headers is not None

    @property
    def refusal(self) -> str | None:
        """What the other side's TLS has said of this side's certificate, if it has refused it."""
        return self._stream.connection.refusal

    @property
    def certificate(self) -> dict[str, Any] | None:
        """What the certificate of the other side says, as `ssl.SSLSocket.getpeercert` has it; None without TLS."""
        ssl_object = self._stream.connection.transport.get_extra_info("ssl_object")
        return ssl_object.getpeercert() if ssl_object is not None else None

    # ------------------------------------------------------------------------------------------------- writing

    @property
    def writable(self) -> bool:
        """Whether a chunk would be on its way at once."""
        return self.closed is None and self._stream.writable

    def write(self, segments: Sequence[Segment]) -> None:
        """Send a chunk; large segments are not joined, and must not change until they have been written."""
        if self.closed is not None:
            return
        pieces, size = chunk_pieces(segments)
        pieces.insert(0, b"\0" + size.to_bytes(4, "big"))
        self.sent_bytes += size
        try:
            self._stream.write(pieces, size + _PREFIX_BYTES)
        except (H2Error, KeyError) as error:
            self.fail(f"the stream is closed ({type(error).__name__})")

    def _tell_writable(self) -> None:
        if self.reader is not None and self.closed is None:
            self.reader.pump()

    # ------------------------------------------------------------------------------------------------- reading

    async def receive(self) -> list[memoryview]:
        """Return the next chunk of the handshake; raise `PipeClosed` at the end, `Malformed` for anything else."""
        prefix = await self._read(_PREFIX_BYTES)
        size = int.from_bytes(prefix[1:], "big")
        if prefix[0]:
            raise Malformed(f"A gRPC message with flags {prefix[0]:#04x} came instead of a handshake.")
        HANDSHAKE_LIMITS.check("frame_bytes", size)
        return chunk_decode(await self._read(size), HANDSHAKE_LIMITS)

    async def _read(self, size: int) -> bytes:
        try:
            found = await self._stream.recv_data(size)
        except (StreamTerminatedError, GRPCError) as error:
            raise PipeClosed(self.closed or str(error)) from None
        if len(found) < size:
            raise PipeClosed(self.closed or "the other side ended the stream")
        return found

    def deliver(self, reader: Reader, limits: Limits) -> None:
        """From now on have `reader` take the segments of each chunk, those that are here already included.

        Once it has raised `Malformed`, or something has come that is no chunk, no more is read.
        """
        self.reader, self._limits = reader, limits
        self._cutter = MessageCutter(self._on_message, limits.frame_bytes)
        self._stream.go_direct()
        self._stream.buffer.hand_on(self._on_data, lambda: self.fail("the other side ended the stream"))

    def _on_data(self, view: memoryview) -> None:
        if self._dropped or self._cutter is None:
            return
        self.received_bytes += len(view)
        try:
            self._cutter.feed(view)
        except Malformed as error:
            self._cutter = None
            if self.reader is not None:
                self.reader.violated(error)

    def _on_message(self, body: bytes | memoryview) -> None:
        if not self._dropped and self.reader is not None:
            self.reader.on_chunk(chunk_decode(body, self._limits))

    # ------------------------------------------------------------------------------------------------- ending

    def close(self, reason: str) -> None:
        """End the pipe once what was written is on its way; the reader is not told."""
        self._dropped = True
        self._end(reason)
        self._stream.connection.transport.close()
        self._release()

    def abort(self, reason: str) -> None:
        """End the pipe at once; what was written may be lost. The reader is not told."""
        self._dropped = True
        self._shut(reason)

    def _shut(self, reason: str) -> None:
        self._end(reason)
        self._stream.connection.transport.abort()
        self._release()

    def fail(self, reason: str) -> None:
        """End the pipe at once because of `reason`, and tell; what has come before can still be read."""
        if self.closed is None:
            self._shut(reason)
            if self.reader is not None:
                self.reader.cut(reason)

    def _end(self, reason: str) -> None:
        if self.closed is None:
            self.closed = reason
            self._ended.set()

    async def wait_closed(self) -> None:
        """Return when the pipe has ended."""
        await self._ended.wait()

    @property
    def gone(self) -> bool:
        """Whether nothing of the connection is left."""
        return self._stream.connection.gone.is_set()

    async def wait_gone(self) -> None:
        """Return when nothing of the connection is left."""
        await self._stream.connection.gone.wait()
