"""The listening end of connections: grpclib's server, behind a listener of our own.

The listener counts connections, ends those that do nothing, and does the TLS handshake itself, since asyncio tells
nobody when a peer's certificate was refused.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

from grpclib._typing import IServable
from grpclib.const import Cardinality
from grpclib.const import Handler as Method
from grpclib.server import Server
from grpclib.server import Stream as ServerStream

from rolecall.wire.addresses import format_address
from rolecall.wire.grpc_client import CONNECT
from rolecall.wire.h2_tuning import TunedProtocol, TunedStream, configuration
from rolecall.wire.pipe import Pipe

__all__ = ("Listener",)

logger = logging.getLogger(__name__)

_IDLE_S: Final = 30.0


class _LinkService:
    """The service `rolecall.v1.Link`: a pipe for whoever connects."""

    def __init__(self, accept: Callable[[Pipe], Awaitable[None]]) -> None:
        self._accept = accept

    def __mapping__(self) -> dict[str, Method]:
        return {CONNECT: Method(self._connect, Cardinality.STREAM_STREAM, bytes, bytes)}

    async def _connect(self, stream: ServerStream[bytes, bytes]) -> None:
        pipe = Pipe(cast(TunedStream, stream._stream))
        try:
            await stream.send_initial_metadata()
            await self._accept(pipe)
            await pipe.wait_closed()
        finally:
            pipe.close("the connection has ended")


class _Server(Server):
    """grpclib's server, with our protocol."""

    def new_protocol(self) -> TunedProtocol:
        """Return a protocol for a new connection."""
        original = self._protocol_factory()
        return TunedProtocol(original.handler, original.config, original.h2_config)


class Listener:
    """Listens on one address, for links and for the services given.

    `accept` is called with the pipe of each link, and does the handshake. `connections` is how many there may be.
    """

    def __init__(
        self,
        accept: Callable[[Pipe], Awaitable[None]],
        services: Sequence[IServable] = (),
        *,
        tls: ssl.SSLContext | None,
        connections: int,
        handshake_s: float,
    ) -> None:
        self._server = _Server([_LinkService(accept), *services], config=configuration())
        self._tls, self._limit, self._handshake_s = tls, connections, handshake_s
        self._sockets: asyncio.AbstractServer | None = None
        self._arrivals: set[_Arrival] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> str:
        """Begin to listen; return the address, with the port that was chosen if `port` is 0."""
        loop = asyncio.get_running_loop()
        self._sockets = await loop.create_server(lambda: _Arrival(self), host, port)
        sock: socket.socket = self._sockets.sockets[0]
        return format_address(*sock.getsockname()[:2])

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._sockets is not None:
            self._sockets.close()
        for arrival in list(self._arrivals):
            arrival.abort()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for handler in self._server._handlers:
            handler.close()
            await handler.wait_closed()
        if self._sockets is not None:
            await self._sockets.wait_closed()

    # ---------------------------------------------------------------------------------------- for connections

    def arrived(self, arrival: _Arrival) -> bool:
        """Count a connection; return whether there may be another."""
        if len(self._arrivals) >= self._limit:
            logger.warning("%s: refused: there are %d connections already", arrival.remote, self._limit)
            return False
        self._arrivals.add(arrival)
        return True

    def left(self, arrival: _Arrival) -> None:
        """Count no more a connection that has ended."""
        self._arrivals.discard(arrival)

    def proceed(self, arrival: _Arrival) -> None:
        """Have a connection speak TLS, where it should, and then gRPC."""
        if self._tls is None:
            arrival.begin(self._server.new_protocol(), _IDLE_S)
            return
        task = asyncio.get_running_loop().create_task(self._secure(arrival, self._tls))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _secure(self, arrival: _Arrival, tls: ssl.SSLContext) -> None:
        try:
            await arrival.secure(tls, self._handshake_s)
        except (OSError, TimeoutError) as error:
            logger.warning("%s: refused: TLS: %s", arrival.remote, _tls_reason(error))
            arrival.abort()
        else:
            arrival.begin(self._server.new_protocol(), _IDLE_S)


class _Arrival(asyncio.Protocol):
    """A connection that has come in: keeps what arrives until gRPC takes over, and ends it when it stays idle."""

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._protocol: TunedProtocol | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.remote = "?"

    # ----------------------------------------------------------------------------------- as asyncio's protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        name = transport.get_extra_info("peername")
        self.remote = format_address(*name[:2]) if isinstance(name, tuple) else "a process that is gone"
        if not self._listener.arrived(self):
            self._transport.abort()
            return
        self._transport.pause_reading()
        self._listener.proceed(self)

    def data_received(self, data: bytes) -> None:
        self._early.append(data)  # with its last word of the TLS handshake, a client sends more

    def connection_lost(self, exc: BaseException | None) -> None:
        self._gone()

    # ---------------------------------------------------------------------------------------------------------

    async def secure(self, tls: ssl.SSLContext, handshake_s: float) -> None:
        """Do the TLS handshake; raise `OSError` (of which `SSLError` is a kind) when it fails."""
        assert self._transport is not None
        loop = asyncio.get_running_loop()
        secured = await loop.start_tls(
            self._transport, self, tls, server_side=True, ssl_handshake_timeout=handshake_s
        )
        if secured is None:
            raise ConnectionResetError("the other side closed the connection during the handshake")
        self._transport = secured

    def begin(self, protocol: TunedProtocol, idle_s: float) -> None:
        """Hand the connection to gRPC."""
        assert self._transport is not None
        self._protocol = protocol
        protocol.on_lost = self._gone
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        early, self._early = self._early, []
        for data in early:
            protocol.data_received(data)
        self._transport.resume_reading()
        self._watch(idle_s)

    def _watch(self, idle_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(idle_s, self._end_if_idle, idle_s)

    def _end_if_idle(self, idle_s: float) -> None:
        if self._protocol is not None and not self._protocol.processor.streams:
            logger.info("%s: disconnected: nothing was asked for %g s", self.remote, idle_s)
            self.abort()
        else:
            self._watch(idle_s)

    def _gone(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._listener.left(self)

    def abort(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()


def _tls_reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not acceptable: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or type(error).__name__
