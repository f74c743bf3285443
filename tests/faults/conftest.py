"""Nodes that are linked and hold roles, with what can go wrong between them.

`async with cluster("a", "b") as c` opens nodes that are joined by real links over loopback, by way of proxies that
cut connections after chosen numbers of bytes; `memory=seed` joins them without sockets instead, by wires that
deliver whenever a seeded generator says so. Leaving it shows that nothing of it is left behind: no task, no
exception that nobody saw, no descriptor, no shared memory.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

import rolecall as rc
from rolecall.core.records import DeadLetter, LogLine
from rolecall.runtime.instance import Hosting, RoleInstance
from rolecall.runtime.links import Links
from rolecall.runtime.network import Network
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.relations import Target
from rolecall.wire.exchange import ExchangeLimits
from rolecall.wire.frames import Frame
from rolecall.wire.heads import CONTROL
from rolecall.wire.routing import LANES
from rolecall.wire.shared_segments import PREFIX

SECRET = b"a secret of one run"


# ------------------------------------------------------------------------------------------------------- wires


class MemoryWire:
    """One direction of a link without sockets: frames in order on two lanes, at moments a generator chooses."""

    def __init__(self, random_: random.Random) -> None:
        self._random, self._loop = random_, asyncio.get_running_loop()
        self._lanes: tuple[deque[Any], deque[Any]] = (deque(), deque())
        self._under_way = False
        self.other: MemoryWire | None = None
        self.on_frame: Callable[[Any, Any], None] | None = None
        self.sent: deque[Frame] = deque(maxlen=1_000)
        self.sent_frames: Counter[type] = Counter()
        self.cut = False

    def send(self, frame: Frame, segments: Iterable[Any] = (), *, compress: bool = False) -> None:
        """Queue a frame, with a copy of its payload as of now."""
        copies = [memoryview(bytes(segment)) for segment in segments]
        self.sent_frames[type(frame)] += 1
        self.sent.append(frame)
        self._lanes[LANES.get(type(frame)) == CONTROL].append((frame, copies))
        self._wake()

    def _wake(self) -> None:
        if not self._under_way:
            self._under_way = True
            self._hop(self._random.randrange(4))

    def _hop(self, left: int) -> None:
        self._loop.call_soon(self._deliver if left == 0 else lambda: self._hop(left - 1))

    def _deliver(self) -> None:
        self._under_way = False
        for _ in range(self._random.randrange(1, 4)):
            waiting = [lane for lane in self._lanes if lane]
            if waiting and not self.cut and self.other is not None and self.other.on_frame is not None:
                self.other.on_frame(*self._random.choice(waiting).popleft())
        if any(self._lanes) and not self.cut:
            self._wake()


# ----------------------------------------------------------------------------------------------------- cluster


class Cluster:
    """Nodes with directories of their own; a relationship is the same on all of them."""

    def __init__(
        self,
        proxy_class: type,
        *names: str,
        memory: int | None = None,
        cuts: Sequence[int] | None = None,
        limits: ExchangeLimits | None = None,
        linked: bool = True,
        **relationships: str,
    ) -> None:
        self._names, self._memory, self._cuts, self._limits = names, memory, cuts, limits
        self._linked, self._proxy_class = linked, proxy_class
        self._options = NodeOptions(relationships={name: Target((p,)) for name, p in relationships.items()})
        self._stack = AsyncExitStack()
        self._unseen: list[dict[str, Any]] = []
        self.nodes: dict[str, Node] = {}
        self.links: dict[str, Links] = {}
        self.wires: dict[tuple[str, str], MemoryWire] = {}
        self.proxies: list[Any] = []
        self.records: list[Any] = []
        self.lost: list[tuple[str, str, str]] = []

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: self._unseen.append(context))
        await warm_up()
        self._before = asyncio.all_tasks()
        self._open, self._mapped = descriptors(), segments()
        try:
            for name in self._names:
                await self._add(name)
            await self._join()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def _add(self, name: str) -> None:
        node = Node(name, options=self._options, observers=[self.records.append])
        if self._memory is not None:
            node.network = Network(node)
        else:
            links = Links(
                node,
                secret=SECRET,
                limits=self._limits,
                on_lost=lambda peer, why: self.lost.append((name, peer, why)),
            )
            self.links[name] = await self._stack.enter_async_context(links)
        self.nodes[name] = await self._stack.enter_async_context(node)

    async def _join(self) -> None:
        if self._memory is not None:
            self._join_by_memory(self._memory)
            return
        for name, links in self.links.items():
            address = await links.exchange.listen()
            if self._cuts is not None:
                proxy = await self._stack.enter_async_context(self._proxy_class(address, self._cuts))
                self.proxies.append(proxy)
                address = proxy.address
            for other, theirs in self.links.items():
                if other > name:  # one side dials, so that the proxy is in the way
                    theirs.meet({name: address})
        for other, links in self.links.items() if self._linked else ():
            for name in self.links:
                if other > name:
                    await links.exchange.dial(links._contacts[name], name)

    def _join_by_memory(self, seed: int) -> None:
        generator = random.Random(seed)
        for one in self._names:
            for other in self._names:
                if one != other:
                    self.wires[one, other] = MemoryWire(generator)
        for (one, other), wire in self.wires.items():
            wire.other = self.wires[other, one]
            network_of(self.nodes[one]).join(other, wire)

    async def __aexit__(self, *error: Any) -> None:
        await self._stack.__aexit__(*error)
        for _ in range(5):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - self._before
        gc.collect()
        await asyncio.sleep(0)
        if error[1] is None:
            assert not left, f"still running: {left}"
            assert not self._unseen, f"seen by nobody: {self._unseen}"
            assert descriptors() <= self._open
            assert segments() <= self._mapped

    def cut(self, one: str, other: str, why: str = "the link is cut") -> None:
        """Have two nodes without sockets lose each other."""
        for near, far in ((one, other), (other, one)):
            self.wires[near, far].cut = True
            network_of(self.nodes[near]).leave(far, why)

    def mend(self, one: str, other: str) -> None:
        """Link two nodes again that have lost each other; what was under way is gone."""
        for near, far in ((one, other), (other, one)):
            wire = self.wires[near, far]
            wire.cut, wire.on_frame = False, None
            for lane in wire._lanes:
                lane.clear()
        for near, far in ((one, other), (other, one)):
            network_of(self.nodes[near]).join(far, self.wires[near, far])

    # ------------------------------------------------------------------------------------------ roles

    async def role(self, id_: str, role_class: type[rc.Role], **options: Any) -> Any:
        """Host and start a role, of which all nodes know; return it."""
        role = rc.RoleId(id_)
        for name, node in self.nodes.items():
            if name != role.home:
                network_of(node).bind(role, role.home)
        instance = self.nodes[role.home].host(Hosting(id=role, role_class=role_class, options=options))
        await instance.start()
        return instance.role

    def instance(self, id_: str) -> RoleInstance:
        """Return the runtime's half of a living role."""
        return self.nodes[rc.RoleId(id_).home].directory.find(rc.RoleId(id_))

    @property
    def letters(self) -> list[DeadLetter]:
        """All dead letters."""
        return [record for record in self.records if isinstance(record, DeadLetter)]

    @property
    def lines(self) -> list[str]:
        """All lines of the log."""
        return [record.text for record in self.records if isinstance(record, LogLine)]


def network_of(node: Node) -> Network:
    """Return the node's network, which it has."""
    assert node.network is not None
    return node.network


def descriptors() -> int:
    """Return how many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def segments() -> int:
    """Return how many segments of shared memory this process sees."""
    return Path("/proc/self/maps").read_text().count(f"memfd:{PREFIX}")


async def warm_up() -> None:
    """Have the loop open what it opens once and keeps."""
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    await reader.read()
    writer.close()
    await writer.wait_closed()
    server.close()
    await server.wait_closed()
    await asyncio.to_thread(int)


async def until(happened: Callable[[], object]) -> None:
    """Wait until that is so, in turns of the loop."""
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0)


@asynccontextmanager
async def in_tasks(*work: Any) -> AsyncIterator[list[asyncio.Task[Any]]]:
    """Run coroutines as tasks while the body runs; cancel what has not ended after it."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
def cluster(cutting_proxy: type) -> Callable[..., Cluster]:
    """Return what opens a cluster."""
    return partial(Cluster, cutting_proxy)


@pytest.fixture(name="until")
def _until() -> Any:
    """Return a coroutine function that waits for a condition."""
    return until


@pytest.fixture(name="in_tasks")
def _in_tasks() -> Any:
    """Return a context manager that runs coroutines meanwhile."""
    return in_tasks
