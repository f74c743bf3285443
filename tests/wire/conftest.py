"""Nodes that are linked over loopback, and proxies that cut what goes through them.

`async with linked() as net` opens a net; leaving it shows that nothing of it is left behind: no task, no connection,
no exception that nobody saw.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

import pytest
import uvloop

from rolecall.wire.exchange import Exchange, ExchangeLimits
from rolecall.wire.frames import Frame
from rolecall.wire.link import Link
from rolecall.wire.peers import Peer, new_incarnation

SECRET = b"a secret of one run"


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_loop: the test runs on asyncio's loop and on uvloop's")


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    if item.get_closest_marker("every_loop"):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


# ------------------------------------------------------------------------------------------------------- nodes


class Node:
    """One life of a node: its exchange, and what it was told."""

    def __init__(self, net: Net, name: str, *, on_link: Callable[[Link], None] | None = None, **options: Any) -> None:
        self._net, self._extra = net, on_link
        self.peer = Peer(name, new_incarnation())
        self.received: list[tuple[Frame, list[bytes]]] = []
        self.lost: list[tuple[str, str]] = []
        self.met: list[Link] = []
        options = {"secret": SECRET, **options}
        self.exchange = Exchange(self.peer, on_link=self._on_link, on_lost=self._on_lost, **options)
        self.address = ""

    def _on_link(self, link: Link) -> None:
        self.met.append(link)
        if self._extra is not None:
            self._extra(link)
        if link.on_frame is None:
            link.on_frame = self._on_frame
        self._net.tell()

    def _on_frame(self, frame: Frame, payload: Sequence[memoryview]) -> None:
        self.received.append((frame, [bytes(part) for part in payload]))
        self._net.tell()

    def _on_lost(self, peer: Peer, reason: str) -> None:
        self.lost.append((peer.name, reason))
        self._net.tell()

    def link(self, name: str) -> Link:
        """Return the link to a node."""
        return self.exchange.links[name]

    @property
    def frames(self) -> list[Frame]:
        """The frames received."""
        return [frame for frame, _ in self.received]


class Proxy:
    """Stands between a node and whoever dials it: cuts the connection after chosen numbers of bytes, or falls silent.

    Each cut number counts the bytes that have passed in both directions since the cut before it.
    """

    def __init__(self, net: Net, target: str, cuts: Iterable[int] = ()) -> None:
        self._net, self._target, self._cuts = net, target, iter(cuts)
        self._left = next(self._cuts, None)
        self._writers: set[asyncio.StreamWriter] = set()
        self._awake = asyncio.Event()
        self._awake.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.cuts = self.connections = 0
        self.open = True
        self.address = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.address = "{}:{}".format(*self._server.sockets[0].getsockname())
        return self

    async def __aexit__(self, *error: object) -> None:
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._tasks.add(asyncio.get_running_loop().create_task(self._join(reader, writer)))

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self.connections += 1
        self._net.tell()
        try:
            if self.open:
                host, _, port = self._target.partition(":")
                other_reader, other_writer = await asyncio.open_connection(host, int(port))
                self._writers.add(other_writer)
                await asyncio.gather(self._pass(reader, other_writer), self._pass(other_reader, writer))
        except OSError:
            pass
        finally:
            self._abort(writer)

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._awake.wait()
                passed = data if self._left is None else data[: self._left]
                writer.write(passed)
                if self._left is not None:
                    self._left -= len(passed)
                    if self._left <= 0:
                        self._left = next(self._cuts, None)
                        self.cut()
                await writer.drain()
        finally:
            self._abort(writer)

    def _abort(self, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()
        self._writers.discard(writer)

    def cut(self) -> None:
        """Break all connections."""
        self.cuts += bool(self._writers)
        for writer in list(self._writers):
            self._abort(writer)
        self._net.tell()

    def silence(self) -> None:
        """Let nothing through any more, and keep the connections."""
        self._awake.clear()

    def speak(self) -> None:
        """Let everything through again."""
        self._awake.set()


class Net:
    """Nodes, linked or not; wait for what happens with `until`."""

    def __init__(self) -> None:
        self._stack = AsyncExitStack()
        self._unseen: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self._unseen.append(context))
        self._before = asyncio.all_tasks()
        return self

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - self._before
        gc.collect()
        await asyncio.sleep(0)
        if error[1] is None:
            assert not left, f"still running: {left}"
            assert not self._unseen, f"seen by nobody: {self._unseen}"

    async def node(self, name: str, *, listen: bool = True, **options: Any) -> Node:
        """Open a node."""
        node = Node(self, name, **options)
        await self._stack.enter_async_context(node.exchange)
        if listen:
            node.address = await node.exchange.listen()
        return node

    async def pair(self, *, cuts: Iterable[int] | None = None, **options: Any) -> tuple[Node, Node, Proxy]:
        """Open nodes `a` and `b`, where `a` has dialled `b` by a proxy."""
        b = await self.node("b", **options)
        proxy = await self.proxy(b, cuts or ())
        a = await self.node("a", listen=False, **options)
        await a.exchange.dial(proxy.address)
        await self.until(lambda: "a" in b.exchange.links)
        return a, b, proxy

    async def proxy(self, node: Node, cuts: Iterable[int] = ()) -> Proxy:
        """Open a proxy before a node."""
        return await self._stack.enter_async_context(Proxy(self, node.address, cuts))

    def tell(self) -> None:
        """Say that something has happened."""
        self._changed.set()

    async def until(self, happened: Callable[[], object]) -> None:
        """Wait until that is so; what is not told by a callback is looked at every 10 ms."""
        while not happened():
            self._changed.clear()
            try:
                async with asyncio.timeout(0.01):
                    await self._changed.wait()
            except TimeoutError:
                pass


@pytest.fixture
def linked() -> type[Net]:
    """Return what opens a net."""
    return Net


@pytest.fixture
def quick() -> ExchangeLimits:
    """Return limits under which loss is noticed soon."""
    return ExchangeLimits(
        heartbeat_s=0.02, suspicion_min_s=0.2, suspicion_max_s=0.3, resume_s=0.3, dial_attempts=3, handshake_s=1.0
    )
