"""What makes grpclib and h2 fast enough for tensors: windows, frame sizes, and a short way for DATA frames.

As shipped, h2 takes each DATA frame through some ten copies and, before handling it, formats a hex dump of it for a log
that nobody keeps. Here the DATA frames of a link, which are all but a few of its frames, are read and written
directly, with the same accounting of windows; h2 sees everything else. The tests compare the short way with h2's own,
so that they fail when a new version of h2 or grpclib counts differently.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from asyncio import BaseTransport, Transport
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias, cast

from grpclib.config import Configuration
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from grpclib.protocol import Connection, EventsProcessor, H2Protocol, Stream
from grpclib.utils import Wrapper
from h2.connection import H2Connection
from h2.events import DataReceived
from h2.events import Event as H2Event
from h2.exceptions import FrameTooLargeError, ProtocolError
from h2.settings import SettingCodes, Settings
from h2.stream import StreamState

from rolecall.wire.addresses import format_address
from rolecall.wire.inbound import InboundBuffer
from rolecall.wire.tls_alerts import alert_text

__all__ = ("FRAME_BYTES", "WINDOW_BYTES", "TunedConnection", "TunedProtocol", "TunedStream", "configuration")

WINDOW_BYTES: Final = 4 << 20
"""What a peer may send on a connection, or on one of its streams, before it is taken."""
FRAME_BYTES: Final = 1 << 20
"""The largest DATA frame accepted; the default of HTTP/2 is 16 KiB."""
STREAMS: Final = 16
"""Streams on one connection: the link itself, and calls of the administrative service."""

_HEADER_BYTES: Final = 9
_PREFACE_BYTES: Final = 24
_DATA: Final = 0
_OTHER_BYTES: Final = 64 << 10  # the largest frame that is not DATA
_RECEIVE_BYTES: Final = 256 << 10
_UNREAD_BYTES: Final = 16 << 20
_REQUEST_S: Final = 30.0
_JOINED_BYTES: Final = 32 << 10  # below this, joining pieces costs less than handing them over one by one
_OPEN: Final = (StreamState.OPEN, StreamState.HALF_CLOSED_LOCAL)

_unpack_header = struct.Struct(">HBBBL").unpack
_pack_header = struct.Struct(">HBBBL").pack

Buffer: TypeAlias = bytes | memoryview


def configuration() -> Configuration:
    """Return the settings of grpclib for both ends of a link."""
    return Configuration(http2_connection_window_size=WINDOW_BYTES, http2_stream_window_size=WINDOW_BYTES)


# ---------------------------------------------------------------------------------------------------- reading


class FrameReader:
    """Cuts what a connection receives into frames: DATA of chosen streams become events here, the rest goes to h2."""

    __slots__ = ("_h2", "_header", "_left", "_stream_id", "direct")

    def __init__(self, h2: H2Connection) -> None:
        self._h2 = h2
        self._header = b""  # of a frame whose header has only partly come
        self._left = 0 if h2.config.client_side else _PREFACE_BYTES  # bytes of the present frame still to come
        self._stream_id = 0  # of the present frame, if it is taken the short way, or 0
        self.direct: set[int] = set()
        """The streams whose DATA frames take the short way."""

    def feed(self, data: Buffer) -> list[H2Event]:
        """Return the events in what was received, with views of it; raise h2's `ProtocolError`."""
        view = memoryview(data)
        events: list[H2Event] = []
        position, end = 0, len(view)
        while position < end:
            start = position
            if self._left:
                position = min(position + self._left, end)
                self._left -= position - start
                self._body(view[start:position], events)
            else:
                position = min(position + _HEADER_BYTES - len(self._header), end)
                self._header += view[start:position]
                if len(self._header) == _HEADER_BYTES:
                    self._begin(events)
        return events

    def _begin(self, events: list[H2Event]) -> None:
        high, low, kind, flags, stream_id = _unpack_header(self._header)
        header, self._header = self._header, b""
        length = high << 8 | low
        if length > (self._h2.max_inbound_frame_size if kind == _DATA else _OTHER_BYTES):  # h2 looks when it has it all
            raise FrameTooLargeError(f"a frame of kind {kind} and {length:,} bytes")
        if kind == _DATA and not flags and stream_id in self.direct and self._acceptable(stream_id, length):
            self._stream_id = stream_id
        else:
            self._stream_id = 0
            events += self._h2.receive_data(header)
        self._left = length

    def _acceptable(self, stream_id: int, length: int) -> bool:
        """Take `length` from the windows, unless something is wrong with the frame, which h2 then judges."""
        h2 = self._h2
        stream = h2.streams.get(stream_id)
        if stream is None or stream.state_machine.state not in _OPEN or not length:
            return False
        connection_window, stream_window = h2._inbound_flow_control_window_manager, stream._inbound_window_manager
        if length > connection_window.current_window_size or length > stream_window.current_window_size:
            return False
        connection_window.window_consumed(length)
        stream_window.window_consumed(length)
        return True

    def _body(self, piece: memoryview, events: list[H2Event]) -> None:
        if self._stream_id:
            size = len(piece)
            events.append(DataReceived(stream_id=self._stream_id, data=cast(bytes, piece), flow_controlled_length=size))
        else:
            events += self._h2.receive_data(piece)


# ---------------------------------------------------------------------------------------------------- writing


class FrameWriter:
    """Writes DATA frames of one stream straight to the transport, as far as its windows allow."""

    __slots__ = ("_buffers", "_h2", "_stream_id", "_transport", "waiting_bytes")

    def __init__(self, h2: H2Connection, transport: Transport, stream_id: int) -> None:
        self._h2, self._transport, self._stream_id = h2, transport, stream_id
        self._buffers: list[Buffer] = []
        self.waiting_bytes = 0
        """Bytes that no window has had room for yet."""

    @property
    def room_bytes(self) -> int:
        """How many bytes may be sent in one frame now; raise h2's `StreamClosedError` on a closed stream."""
        window = self._h2.local_flow_control_window(self._stream_id)
        return min(window, self._h2.max_outbound_frame_size)

    def write(self, buffers: Sequence[Buffer], size: int) -> None:
        """Send `buffers`, `size` bytes in all, after what waits; they are not copied before the transport does."""
        self._buffers.extend(buffers)
        self.waiting_bytes += size
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as there is room."""
        while self.waiting_bytes and (room := self.room_bytes) > 0:
            size = min(room, self.waiting_bytes)
            frame = self._buffers if size == self.waiting_bytes else self._cut(size)
            if frame is self._buffers:
                self._buffers = []
            self.waiting_bytes -= size
            self._send(frame, size)

    def _cut(self, size: int) -> list[Buffer]:
        """Take the first `size` bytes of the buffers that wait."""
        taken: list[Buffer] = []
        for i, buffer in enumerate(self._buffers):
            if len(buffer) > size:
                view = memoryview(buffer)
                taken.append(view[:size])
                self._buffers[: i + 1] = [view[size:]]
                break
            taken.append(buffer)
            size -= len(buffer)
        return taken

    def _send(self, buffers: list[Buffer], size: int) -> None:
        h2 = self._h2
        h2.outbound_flow_control_window -= size
        h2.streams[self._stream_id].outbound_flow_control_window -= size
        header = _pack_header(size >> 8, size & 0xFF, _DATA, 0, self._stream_id)
        if size < _JOINED_BYTES:
            self._transport.write(b"".join([header, *buffers]))
        else:
            self._transport.writelines([header, *buffers])


# ------------------------------------------------------------------------------- grpclib's classes, with the above


class _WindowUpdated:
    """Stands where grpclib has an `asyncio.Event`, and tells at once."""

    def __init__(self, event: Any, tell: Callable[[], None]) -> None:
        self._event, self._tell = event, tell
        self.clear, self.wait, self.is_set = event.clear, event.wait, event.is_set

    def set(self) -> None:
        self._event.set()
        self._tell()


class TunedStream(Stream):
    """A stream of grpclib that can also be read by callback, and written without waiting."""

    connection: TunedConnection
    writer: FrameWriter
    on_writable: Callable[[], None] | None = None
    """Called whenever there may be room again."""
    on_terminated: Callable[[str], None] | None = None
    """Called with the reason when the stream, or its connection, has ended without a regular end."""
    terminated: str | None = None
    """That reason, once it has happened."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.window_updated = _WindowUpdated(self.window_updated, self.tell_writable)  # type: ignore[assignment]

    def init_stream(self, stream_id: int, connection: Connection) -> None:
        """See grpclib."""
        super().init_stream(stream_id, connection)
        self.buffer: InboundBuffer = InboundBuffer(self._acknowledge)  # type: ignore[assignment]
        self.writer = FrameWriter(self._h2_connection, self._transport, stream_id)

    def _acknowledge(self, size: int) -> None:
        if self.id is not None and not self.connection.is_closing():
            self.connection.ack(self.id, size)

    async def recv_data(self, size: int) -> bytes:
        """See grpclib; on the listening side, who asks for something has to say soon what it is."""
        if self._h2_connection.config.client_side:
            return await super().recv_data(size)
        try:
            async with asyncio.timeout(_REQUEST_S):
                return await super().recv_data(size)
        except TimeoutError:
            raise GRPCError(Status.DEADLINE_EXCEEDED, f"No request came within {_REQUEST_S:g} s.") from None

    def go_direct(self) -> None:
        """Take the short way for this stream from the next DATA frame on."""
        assert self.id is not None
        self.connection.reader.direct.add(self.id)

    @property
    def writable(self) -> bool:
        """Whether more can be written without piling up."""
        return not self.writer.waiting_bytes and self.connection.write_ready.is_set() and not self.terminated

    def write(self, buffers: Sequence[Buffer], size: int) -> None:
        """Send buffers as DATA, without waiting: ask `writable` before."""
        self.writer.write(buffers, size)

    def tell_writable(self) -> None:
        """Go on writing, and say so when all that waited is on its way."""
        if self.terminated is None and self.id is not None and self.connection.write_ready.is_set():
            if self.writer.waiting_bytes:
                self.writer.flush()
            if self.on_writable is not None and not self.writer.waiting_bytes:
                self.on_writable()

    def __terminated__(self, reason: str) -> None:
        super().__terminated__(reason)
        if self.terminated is None:
            self.terminated = reason
            if self.id is not None:
                self.buffer.fail(reason)
            if self.on_terminated is not None:
                self.on_terminated(reason)


class TunedConnection(Connection):
    """A connection of grpclib that reads with `FrameReader`."""

    def __init__(self, connection: H2Connection, transport: Transport, *, config: Configuration) -> None:
        super().__init__(connection, transport, config=config)
        self.transport = transport  # which grpclib deletes on closing
        self.reader = FrameReader(connection)
        self.on_resumed: Callable[[], None] | None = None
        self.remote = "?"
        self.gone = asyncio.Event()
        """Set when the connection has ended."""
        self.refusal: str | None = None
        """What the other side's TLS has said of the certificate of this one, on refusing it."""

    def feed(self, data: Buffer) -> list[H2Event]:
        """See grpclib."""
        return self.reader.feed(data)

    def create_stream(self, *, stream_id: int | None = None, wrapper: Wrapper | None = None) -> TunedStream:
        """See grpclib."""
        transport = getattr(self, "_transport", None)
        if transport is None:  # grpclib forgets it on closing
            raise ConnectionResetError("The connection was lost before a stream could begin on it.")
        return TunedStream(self, self._connection, transport, stream_id=stream_id, wrapper=wrapper)

    def resume_writing(self) -> None:
        """See grpclib."""
        super().resume_writing()
        if self.on_resumed is not None:
            self.on_resumed()


class _Scratch(threading.local):
    """Where the connections of a loop receive, one after the other: a loop reads from one, and hands it on at once."""

    def __init__(self) -> None:
        self.view = memoryview(bytearray(_RECEIVE_BYTES))


_scratch = _Scratch()


class TunedProtocol(H2Protocol, asyncio.BufferedProtocol):
    """A protocol of grpclib whose first SETTINGS already ask for large frames; keeps the reason it ended for."""

    connection: TunedConnection
    on_made: Callable[[TunedProtocol], None] | None = None
    """Called when the connection is there."""
    on_lost: Callable[[TunedProtocol], None] | None = None
    """Called when the connection has ended."""
    problem: str | None = None
    """What the other side did wrong, if that was the end of the connection."""
    remote = "?"
    """The address at the other end."""

    def connection_made(self, transport: BaseTransport) -> None:
        """See grpclib."""
        set_nodelay(transport)
        address = transport.get_extra_info("peername")
        self.remote = format_address(*address[:2]) if isinstance(address, tuple) else "a process that is gone"
        connection = H2Connection(config=self.h2_config)
        connection.local_settings = _settings(self.h2_config.client_side)
        connection.max_inbound_frame_size = FRAME_BYTES
        connection.initiate_connection()
        connection.increment_flow_control_window(self.config.http2_connection_window_size - 65_535)
        self.connection = TunedConnection(connection, cast(Transport, transport), config=self.config)
        self.connection.remote = self.remote
        self.connection.flush()
        self.processor = EventsProcessor(self.handler, self.connection)
        self.connection.on_resumed = self._tell_streams
        if self.on_made is not None:
            self.on_made(self)

    def _tell_streams(self) -> None:
        for stream in list(self.processor.streams.values()):
            cast(TunedStream, stream).tell_writable()

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where to put what is received; see `asyncio.BufferedProtocol`."""
        return _scratch.view  # asyncio's TLS slices it, and a slice of a bytearray would be a copy

    def buffer_updated(self, nbytes: int) -> None:
        """Take what was received; nothing of it is used any more afterwards."""
        self.data_received(_scratch.view[:nbytes])

    def data_received(self, data: Buffer) -> None:
        """See grpclib."""
        try:
            events = self.connection.feed(data)
        except ProtocolError as error:
            self.problem = f"what came is not HTTP/2 as it should be ({error})"
            self.processor.close(self.problem)
            return
        self.connection.flush()
        for event in events:
            self.processor.process(event)
        self.connection.flush()
        if not self.connection.write_ready.is_set():
            self._check_unread()

    def _check_unread(self) -> None:
        """End the connection if the other side goes on asking, and does not read the answers."""
        transport = self.connection.transport
        if transport.get_write_buffer_size() > _UNREAD_BYTES:
            self.problem = f"it leaves more than {_UNREAD_BYTES:,} bytes unread"
            self.processor.close(self.problem)
            transport.abort()

    def connection_lost(self, exc: BaseException | None) -> None:
        """See grpclib."""
        self.connection.refusal = alert_text(exc)
        why = f"the connection broke ({exc})" if exc else "the other side closed the connection"
        self.processor.close(reason=why)
        self.connection.gone.set()
        if self.on_lost is not None:
            self.on_lost(self)


def _settings(client: bool) -> Settings:
    return Settings(
        client=client,
        initial_values={
            SettingCodes.INITIAL_WINDOW_SIZE: WINDOW_BYTES,
            SettingCodes.MAX_FRAME_SIZE: FRAME_BYTES,
            SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS,
            SettingCodes.MAX_HEADER_LIST_SIZE: 64 << 10,
            SettingCodes.ENABLE_PUSH: 0,
        },
    )


def set_nodelay(transport: BaseTransport) -> None:
    """Have small messages sent at once."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
