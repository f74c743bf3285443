"""Nodes that are linked over loopback, and proxies that cut what goes through them.

`async with linked() as net` opens a net; leaving it shows that nothing of it is left behind: no task, no connection,
no exception that nobody saw.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from functools import partial
from typing import Any, Self

import pytest

from rolecall.wire.exchange import Exchange, ExchangeLimits
from rolecall.wire.frames import Frame
from rolecall.wire.link import Link
from rolecall.wire.peers import Peer, new_incarnation

SECRET = b"a secret of one run"


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


class Net:
    """Nodes, linked or not; wait for what happens with `until`."""

    def __init__(self, proxy_class: type) -> None:
        self._proxy_class = proxy_class
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

    async def pair(self, *, cuts: Iterable[int] | None = None, **options: Any) -> tuple[Node, Node, Any]:
        """Open nodes `a` and `b`, where `a` has dialled `b` by a proxy."""
        b = await self.node("b", **options)
        proxy = await self.proxy(b, cuts or ())
        a = await self.node("a", listen=False, **options)
        await a.exchange.dial(proxy.address)
        await self.until(lambda: "a" in b.exchange.links)
        return a, b, proxy

    async def proxy(self, node: Node, cuts: Iterable[int] = ()) -> Any:
        """Open a proxy before a node."""
        return await self._stack.enter_async_context(self._proxy_class(node.address, cuts, self.tell))

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
def linked(cutting_proxy: type) -> Callable[[], Net]:
    """Return what opens a net."""
    return partial(Net, cutting_proxy)


@pytest.fixture
def quick() -> ExchangeLimits:
    """Return limits under which loss is noticed soon."""
    return ExchangeLimits(
        heartbeat_s=0.02, suspicion_min_s=0.2, suspicion_max_s=0.3, resume_s=0.3, dial_attempts=3, handshake_s=1.0
    )
