"""The network of a simulation as an event loop sees it: names, servers and connections, all in memory."""

from __future__ import annotations

import asyncio
import errno
import itertools
import os
import socket
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rolecall.core.place import HERE
from rolecall.sim.courier import Connection, Courier, Route
from rolecall.sim.memory_transports import HEADER_BYTES, MemoryTransport

if TYPE_CHECKING:
    from rolecall.sim.loop import VirtualLoop

__all__ = ("MemoryNet", "MemoryServer")

Factory = Callable[[], asyncio.BaseProtocol]

_FIRST_PORT: Final = 20_000
_DIALLING_PORTS: Final = 30_000
_OWN: Final = frozenset({None, "", "localhost", "127.0.0.1", "0.0.0.0"})
_NOBODY: Final = "localhost"
"""The node of code that belongs to none."""


class MemoryNet:
    """Answers a `VirtualLoop` for all nodes of a world; what is sent goes by `courier`.

    The name of a node is its host name, and its address one of the loopback network: links on it may be plain.
    """

    def __init__(self, loop: VirtualLoop, courier: Courier) -> None:
        self.loop, self.courier = loop, courier
        self._hosts: dict[str, str] = {}
        self._names: dict[str, str] = {}
        self._servers: dict[tuple[str, int], MemoryServer] = {}
        self._ports = itertools.count(_FIRST_PORT)
        self._connections = itertools.count(1)
        self._down: set[str] = set()
        loop.network = self

    # ------------------------------------------------------------------------------------------ names

    def host(self, node: str) -> str:
        """Return the address of a node; each has one of its own."""
        if node not in self._hosts:
            number = len(self._hosts) + (1 << 16) + 1
            address = f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}"
            self._hosts[node], self._names[address] = address, node
        return self._hosts[node]

    def addresses(self, host: str | None, port: int | str | None) -> list[Any]:
        """Return what `getaddrinfo` returns; raise `gaierror` for a name that is no node's."""
        node = self._node(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (self.host(node), int(port or 0)))]

    def _node(self, host: str | None) -> str:
        if host in _OWN:
            return HERE.get() or _NOBODY
        assert host is not None
        node = self._names.get(host, host)
        if node not in self._hosts:
            raise socket.gaierror(socket.EAI_NONAME, f"there is no node {host!r} in this simulation")
        return node

    # ------------------------------------------------------------------------------------------ crashes

    def down(self, node: str, *, silent: bool = True) -> None:
        """Have nobody listen on a node, nor answer for it if it is to be `silent`, until it is `up`."""
        if silent:
            self._down.add(node)
        for key in [key for key, server in self._servers.items() if server.node == node]:
            del self._servers[key]

    def up(self, node: str) -> None:
        """Have a node answer again, if only by refusing connections."""
        self._down.discard(node)

    def answers(self, node: str) -> bool:
        """Whether a node answers at all."""
        return node not in self._down

    # ------------------------------------------------------------------------------------------ servers

    def listen(self, factory: Factory, host: str | Sequence[str] | None, port: int | None) -> MemoryServer:
        """Return a server on a node: the one that asks, or whose address it is."""
        node = self._node(host if isinstance(host, str) or host is None else host[0])
        number = port or next(self._ports)
        if (node, number) in self._servers:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        server = self._servers[node, number] = MemoryServer(self, node, self.host(node), number, factory)
        return server

    def server(self, node: str, port: int) -> MemoryServer | None:
        """Return what listens there."""
        return self._servers.get((node, port))

    def forget(self, server: MemoryServer) -> None:
        """Listen no more."""
        if self._servers.get((server.node, server.port)) is server:
            del self._servers[server.node, server.port]

    # ------------------------------------------------------------------------------------------ connections

    async def connect(
        self, factory: Factory, host: str | None, port: int | None
    ) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Return transport and protocol of a new connection, one round trip later."""
        return await _Dialling(self, HERE.get() or _NOBODY, self._node(host), int(port or 0), factory).made()

    def next_number(self) -> int:
        """Return the number of a new connection."""
        return next(self._connections)


class _Dialling:
    """A connection in the making, and what breaks it later."""

    def __init__(self, net: MemoryNet, src: str, dst: str, port: int, factory: Factory) -> None:
        self._net, self._loop, self._factory = net, net.loop, factory
        self._src, self._dst, self._port = src, dst, port
        self._number = net.next_number()
        self._name = (net.host(src), _DIALLING_PORTS + self._number % _DIALLING_PORTS)
        self._made: asyncio.Future[tuple[asyncio.Transport, asyncio.BaseProtocol]] = self._loop.create_future()
        self._ends: dict[str, MemoryTransport] = {}
        self._accepted: MemoryTransport | None = None
        self._connection: Connection = net.courier.connect(src, dst, self._broken)

    async def made(self) -> tuple[asyncio.Transport, asyncio.BaseProtocol]:
        """Knock at the other node; return when it has answered."""
        try:
            self._connection.there.carry(HEADER_BYTES, self._knock)
            return await self._made
        except BaseException:
            self._connection.fail("the dial was given up", told=(self._dst,))
            raise

    def _knock(self) -> None:
        """Arrive at the other node."""
        if not self._net.answers(self._dst):
            return
        server = self._net.server(self._dst, self._port)
        if server is None:
            self._connection.back.carry(HEADER_BYTES, self._refused)
            return
        self._connection.back.carry(HEADER_BYTES, self._answered)
        self._accepted = self._end(self._dst, server.factory(), self._connection.back)
        self._accepted.begin()

    def _answered(self) -> None:
        """Arrive back: the connection is there."""
        assert self._accepted is not None
        if self._made.done():
            self._connection.fail("nobody waits for the connection any more", told=(self._dst,))
            return
        end = self._end(self._src, self._factory(), self._connection.there)
        end.peer, self._accepted.peer = self._accepted, end
        end.begin()
        self._made.set_result((end, end.get_protocol()))

    def _end(self, node: str, protocol: asyncio.BaseProtocol, route: Route) -> MemoryTransport:
        names = (self._name, (self._net.host(self._dst), self._port))
        made = self._ends[node] = MemoryTransport(
            self._loop, node, protocol, route, self._connection,
            names=names if node == self._src else names[::-1],
            seed=f"rolecall splits {self._loop.seed} {self._number} {node}",
        )  # fmt: skip
        return made

    def _refused(self) -> None:
        if not self._made.done():
            self._made.set_exception(ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED)))

    def _broken(self, node: str, reason: str) -> None:
        end = self._ends.get(node)
        if end is not None:
            end.ended(reason)
        elif node == self._src and not self._made.done():
            self._made.set_exception(ConnectionResetError(errno.ECONNRESET, reason))


class MemoryServer(asyncio.AbstractServer):
    """What listens on a port of a node."""

    def __init__(self, net: MemoryNet, node: str, host: str, port: int, factory: Factory) -> None:
        self._net, self.node, self.host, self.port, self.factory = net, node, host, port, factory

    @property
    def sockets(self) -> tuple[Listening, ...]:
        """What stands for the socket; it only knows its name."""
        return (Listening(self.host, self.port),) if self.is_serving() else ()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Return the loop."""
        return self._net.loop

    def is_serving(self) -> bool:
        """Whether connections are accepted."""
        return self._net.server(self.node, self.port) is self

    def close(self) -> None:
        """Accept no more connections; those there are go on."""
        self._net.forget(self)

    async def start_serving(self) -> None:
        """Do nothing: it serves from the beginning."""

    async def serve_forever(self) -> None:
        """Wait until cancelled."""
        try:
            await self._net.loop.create_future()
        finally:
            self.close()

    async def wait_closed(self) -> None:
        """Return at once."""


class Listening(NamedTuple):
    """The name of a listening socket."""

    host: str
    port: int

    def getsockname(self) -> tuple[str, int]:
        """Return it."""
        return (self.host, self.port)
