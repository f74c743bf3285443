"""The listening end of connections: grpclib's server, behind a listener of our own.

The listener counts connections, ends those that do nothing, and accepts those with TLS itself, since a server of
asyncio tells nobody when it refuses a certificate.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Final, cast

from grpclib._typing import IServable
from grpclib.const import Cardinality
from grpclib.const import Handler as Method
from grpclib.events import RecvRequest, listen
from grpclib.server import Server
from grpclib.server import Stream as ServerStream

from rolecall.wire.addresses import format_address
from rolecall.wire.grpc_client import CONNECT
from rolecall.wire.h2_tuning import TunedProtocol, TunedStream, configuration
from rolecall.wire.pipe import Pipe
from rolecall.wire.tls_alerts import telling

__all__ = ("Listener",)

logger = logging.getLogger(__name__)

_IDLE_S: Final = 30.0
_ACCEPT_PAUSE_S: Final = 0.1
_BACKLOG: Final = 100


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
        check_request: Callable[[RecvRequest], Coroutine[Any, Any, None]] | None = None,
        *,
        tls: ssl.SSLContext | None,
        connections: int,
        handshake_s: float,
    ) -> None:
        self.on_refused: Callable[[str, str], None] = lambda remote, why: None
        """Called with where somebody was who was refused a connection by TLS, and why."""
        self._server = _Server([_LinkService(accept), *services], config=configuration())
        if check_request is not None:
            listen(self._server, RecvRequest, check_request)
        self._tls, self._limit, self._handshake_s = tls, connections, handshake_s
        self._plain: asyncio.AbstractServer | None = None
        self._socket: socket.socket | None = None
        self._protocols: dict[TunedProtocol, asyncio.TimerHandle | None] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int) -> str:
        """Begin to listen; return the address, with the port that was chosen if `port` is 0."""
        loop = asyncio.get_running_loop()
        if self._tls is None:
            self._plain = await loop.create_server(self._protocol, host, port)
            name = self._plain.sockets[0].getsockname()
        else:
            self._socket = await _listening(host, port)
            self._spawn(self._accept(self._socket, self._tls))
            name = self._socket.getsockname()
        return format_address(*name[:2])

    async def take(self, connection: socket.socket) -> None:
        """Serve a connection that was accepted elsewhere, in plain text."""
        await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)

    async def close(self) -> None:
        """Listen no more, and end all connections."""
        if self._plain is not None:
            self._plain.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._socket is not None:
            self._socket.close()
        for protocol in list(self._protocols):
            protocol.connection.transport.abort()
            await protocol.connection.gone.wait()
        for handler in self._server._handlers:
            handler.close()
            await handler.wait_closed()
        if self._plain is not None:
            await self._plain.wait_closed()

    def abandon(self) -> None:
        """Do nothing more, as when the process is killed; for nodes that share one."""
        for timer in self._protocols.values():
            if timer is not None:
                timer.cancel()

    # ---------------------------------------------------------------------------------------------------- TLS

    async def _accept(self, listening: socket.socket, tls: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, address = await loop.sock_accept(listening)
            except OSError as error:
                logger.error("no connection could be accepted: %s", error)
                await asyncio.sleep(_ACCEPT_PAUSE_S)
                continue
            remote = format_address(*address[:2])
            if self._too_many(remote):
                connection.close()
            else:
                self._spawn(self._secure(connection, remote, tls))

    async def _secure(self, connection: socket.socket, remote: str, tls: ssl.SSLContext) -> None:
        handshake = partial(
            asyncio.get_running_loop().connect_accepted_socket,
            self._protocol,
            connection,
            ssl=tls,
            ssl_handshake_timeout=self._handshake_s,
        )
        try:
            await telling(connection, handshake)
        except OSError as error:  # SSLError and TimeoutError are of this kind
            logger.warning("%s: refused: TLS: %s", remote, _tls_reason(error))
            self.on_refused(remote, f"TLS: {_tls_reason(error)}")

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -------------------------------------------------------------------------------------------- connections

    def _protocol(self) -> TunedProtocol:
        protocol = self._server.new_protocol()
        protocol.on_made, protocol.on_lost = self._made, self._lost
        return protocol

    def _too_many(self, remote: str) -> bool:
        if len(self._protocols) + len(self._tasks) < self._limit:
            return False
        logger.warning("%s: refused: there are %d connections already", remote, self._limit)
        return True

    def _made(self, protocol: TunedProtocol) -> None:
        if self._tls is None and self._too_many(protocol.remote):
            protocol.connection.transport.abort()
        self._protocols[protocol] = None
        self._watch(protocol)

    def _watch(self, protocol: TunedProtocol) -> None:
        timer = asyncio.get_running_loop().call_later(_IDLE_S, self._end_if_idle, protocol)
        self._protocols[protocol] = timer

    def _end_if_idle(self, protocol: TunedProtocol) -> None:
        if protocol.processor.streams:
            self._watch(protocol)
        else:
            logger.info("%s: disconnected: nothing was asked for %g s", protocol.remote, _IDLE_S)
            protocol.connection.transport.abort()

    def _lost(self, protocol: TunedProtocol) -> None:
        if protocol.problem is not None and not protocol.connection.streams_started:  # else who uses the stream logs it
            logger.warning("%s: disconnected: %s", protocol.remote, protocol.problem)
        timer = self._protocols.pop(protocol, None)
        if timer is not None:
            timer.cancel()


async def _listening(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, address = found[0]
    listening = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    listening.setblocking(False)
    return listening


def _tls_reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not acceptable: {error.verify_message}"
    if isinstance(error, ssl.SSLError) and error.reason:
        return error.reason.replace("_", " ").lower()
    return str(error) or "the other side ended the connection during the handshake"
