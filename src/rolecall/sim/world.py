"""A world: many nodes on one virtual loop, each with its own directory and links, over one modelled network."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, Literal, TypeAlias

import anyio
import msgspec

from rolecall.core.errors import ConfigError, NodeLost, RoleLost, nearest
from rolecall.core.ids import RoleId
from rolecall.core.patterns import matches
from rolecall.core.records import Observer, Record, StatusChange
from rolecall.core.status import Status
from rolecall.runtime.computing import Computing
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.instance import Hosting, RoleInstance
from rolecall.runtime.links import Links
from rolecall.runtime.native import Native
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.snapshots import RoleSnapshot, take_snapshot
from rolecall.sim.courier import Courier, CutKind
from rolecall.sim.devices import Device, ModelledComputing, footprint
from rolecall.sim.disk import Disk
from rolecall.sim.faults import StateKind
from rolecall.sim.inline import run_inline
from rolecall.sim.log import EventLog
from rolecall.sim.loop import VirtualLoop
from rolecall.sim.memory_net import MemoryNet
from rolecall.sim.network import Network, Path
from rolecall.sim.passing import Watcher
from rolecall.sim.places import Directories, WorldDirectory
from rolecall.sim.seam import Seam, address_of
from rolecall.wire.exchange import ExchangeLimits

__all__ = ("SEAMS", "Life", "Place", "SeamName", "World")

SeamName: TypeAlias = Literal["fast", "grpc"]
SEAMS: Final = ("fast", "grpc")
SECRET: Final = b"all nodes of a simulation know it"
DEFAULT_PATH: Final = Path(latency_s=0.0005)
"""What lies between nodes for which nothing else is said."""
_OF_THE_DEAD: Final = logging.Logger("rolecall.crashed")
"""The logger of nodes that have crashed: what is left of them when they are taken down has nothing to say."""
_OF_THE_DEAD.disabled = True
_OVER: Final = frozenset({Status.STOPPED.value, Status.FAILED.value, Status.MOVED.value})


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A node to be: what it hosts again after a restart, and on what it computes (if None, in no time)."""

    name: str
    options: NodeOptions = NodeOptions()
    hostings: Sequence[Hosting] = ()
    native: tuple[type[Native], Mapping[str, Any]] = (Native, {})
    device: Device | None = None
    opened: Callable[[Life], None] = lambda life: None
    """Called with each life of the node once it has its links."""


class Inline:
    """Computes at once and in no time: for nodes without a device."""

    __slots__ = ("_disk",)

    def __init__(self, disk: Disk) -> None:
        self._disk = disk

    async def run(self, role: RoleId, function: Callable[..., Any], args: tuple[Any, ...], cost: float | None) -> Any:
        """Do it."""
        await anyio.lowlevel.checkpoint()
        return run_inline(partial(function, *args))

    async def load(self, role: RoleId, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Do it."""
        return run_inline(partial(function, *args))

    async def save(self, role: RoleId, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Do it; raise `OSError` when the disk of the node is full."""
        self._disk.charge(footprint(args[-1]) if args else 0)
        run_inline(partial(function, *args))


class Life:
    """One life of a node: from its start, or restart, to its end or crash."""

    __slots__ = (
        "_task", "_world", "address", "alive", "device", "directory", "disk", "links", "name", "node", "number",
        "place",
    )  # fmt: skip

    def __init__(self, world: World, place: Place, number: int, disk: Disk) -> None:
        self._world, self.place, self.number, self.disk = world, place, number, disk
        self.device = place.device
        self.name = place.name
        self.directory = WorldDirectory(world, place.name)
        self.alive = True
        self.address = ""
        self.node: Node
        self.links: Links
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Open the node in a task of its own, in which all that it does begins."""
        loop = self._world.loop
        opened = loop.create_future()
        self._task = loop.create_task(self._keep(opened), name=f"node {self.name}", context=loop.context(self.name))
        failed = partial(_let_go, opened)
        self._task.add_done_callback(failed)
        await opened
        self._task.remove_done_callback(failed)
        if self._task.done():
            await self._task  # raises what went wrong

    async def _keep(self, opened: asyncio.Future[None]) -> None:
        world, place = self._world, self.place
        node = self.node = Node(
            self.name, self.directory, place.options, [self._observe],
            began_s=world.began_s, native=place.native, computing=self._computing(),
        )  # fmt: skip
        node.incarnation = self.number
        async with node:
            links = self.links = Links(
                node, secret=SECRET, limits=world.limits,
                on_joined=self._joined, on_lost=self._lost,
            )  # fmt: skip
            async with links:
                self.address = await world.listen(self)
                place.opened(self)
                opened.set_result(None)
                await node.closing.wait()
                await world.leave(self)

    def _observe(self, record: Record) -> None:
        self._world.observe(self, record)

    def _joined(self, peer: str) -> None:
        self._world.joined(self, peer)

    def _lost(self, peer: str, why: str) -> None:
        self._world.lost(self, peer, why)

    def _computing(self) -> Computing:
        if self.device is None:
            return Inline(self.disk)
        return ModelledComputing(self.device, self._world.loop, self.name, self.disk)

    def host(self, kept: Mapping[RoleId, RoleSnapshot[Any, Any]]) -> list[RoleInstance]:
        """Host the roles of the place, with what is kept of an earlier life."""
        with self.directory.bulk():
            return [
                self.node.host(
                    msgspec.structs.replace(hosting, snapshot=kept[hosting.id]) if hosting.id in kept else hosting
                )
                for hosting in self.place.hostings
            ]

    def snapshots(self) -> dict[RoleId, RoleSnapshot[Any, Any]]:
        """Return what would be found of each role if it were on a disk at this moment."""
        own = [instance for instance in self.node.instances if instance is not self.node.native]
        return {instance.id: take_snapshot(instance) for instance in own}

    async def ended(self) -> None:
        """Wait until nothing of the life is left."""
        if self._task is not None:
            await asyncio.wait([self._task])


def _let_go(opened: asyncio.Future[None], task: asyncio.Task[None]) -> None:
    """Have nobody wait for a node that has ended before it was open."""
    if not opened.done():
        opened.set_result(None)


class World:
    """Nodes, and what may happen to them; make one on a `VirtualLoop` and use it as an async context manager.

    Args:
        loop: the running loop.
        network: how what is sent travels.
        seam: `fast`, where links hand each other their chunks, or `grpc`, where bytes go through the whole stack.
        observers: called with every record of every living node.
        log: takes note of what happens.
        limits: of each node's exchange.
    """

    def __init__(
        self,
        loop: VirtualLoop,
        network: Network | None = None,
        *,
        seam: SeamName = "fast",
        observers: Sequence[Observer] = (),
        log: EventLog | None = None,
        limits: ExchangeLimits | None = None,
    ) -> None:
        if seam not in SEAMS:
            raise ConfigError("seam", f"there is no seam {seam!r}.{nearest(seam, SEAMS)}", hint=", ".join(SEAMS))
        self.loop, self.log, self.observers = loop, log or EventLog(), list(observers)
        self.courier = Courier(network or Network(loop.seed, DEFAULT_PATH), loop)
        self.courier.tap = self.log
        self.limits = Seam.limits(limits)
        self.began_s = self.log.began_s = loop.now_s()
        self.lives: dict[str, Life] = {}
        """The last life of each node."""
        self.homes: dict[RoleId, str] = {}
        """Where each living role is."""
        self.ended: dict[RoleId, RoleLost] = {}
        """What became of the others."""
        self.directories = Directories(lambda: (life.directory for life in self.living()))
        self.on_crashed: Callable[[str], None] = lambda node: None
        """Called when a node has crashed."""
        self.on_restarted: Callable[[str, list[RoleInstance]], None] = lambda node, roles: None
        """Called with the roles of a node that has been restarted, once they are ready."""
        self.on_event: list[Callable[[], None]] = []
        """Called after each event of note."""
        self.failure: Callable[[Exception], None] = self._unexpected
        """Called with what went wrong with the world itself."""
        self._seam = Seam(self.courier) if seam == "fast" else None
        self._net_before = loop.network
        self._net = MemoryNet(loop, self.courier) if seam == "grpc" else None
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._kept: dict[str, dict[RoleId, RoleSnapshot[Any, Any]]] = {}
        self._closing = False

    async def __aenter__(self) -> World:
        self.loop.explain.append(self.explain)
        return self

    async def __aexit__(self, *error: object) -> None:
        with anyio.CancelScope(shield=True):
            await self.close()
        self.loop.explain.remove(self.explain)
        self.loop.network = self._net_before

    # ------------------------------------------------------------------------------------------ nodes

    async def open(self, place: Place) -> Life:
        """Open a node; its roles are hosted by `Life.host`, and started by whoever does that."""
        if place.name in self.lives:
            raise ConfigError(f"node {place.name!r}", "there is already a node of this name", hint="Choose another")
        return await self._open(Life(self, place, 1, Disk()))

    async def _open(self, life: Life) -> Life:
        self.lives[life.name] = life
        await life.open()
        return life

    def living(self) -> Iterator[Life]:
        """Return the nodes that live, in the order in which they were opened."""
        return (life for life in list(self.lives.values()) if life.alive)

    def life(self, node: str) -> Life:
        """Return the last life of a node; raise `ConfigError` if there is none of that name."""
        found = self.lives.get(node)
        if found is None:
            known = list(self.lives)
            raise ConfigError(f"node {node!r}", f"there is no such node.{nearest(node, known)}", hint=", ".join(known))
        return found

    async def listen(self, life: Life) -> str:
        """Have a node be found by others; return its address."""
        if self._seam is not None:
            self._seam.open(life.links.exchange)
            return address_of(life.name)
        assert self._net is not None
        self._net.up(life.name)
        return await life.links.exchange.listen(self._net.host(life.name))

    async def leave(self, life: Life) -> None:
        """Have a node not be found any more."""
        if self._seam is not None and life.alive:
            self._seam.close(life.name)

    async def close(self) -> None:
        """End all nodes, in good order."""
        self._closing = True
        for task in list(self._tasks):
            task.cancel()
        for life in self.living():
            life.directory.closing = True
        for life in self.living():
            life.node.closing.set()
        for life in list(self.lives.values()):
            await life.ended()

    # ------------------------------------------------------------------------------------------ who is where

    def matching(self, pattern: str) -> list[tuple[RoleId, str]]:
        """Return the living roles that match a pattern, and their nodes."""
        native = pattern.endswith(f"/{NATIVE}")
        return [
            (role, home)
            for role, home in self.homes.items()
            if (role.name != NATIVE or native) and matches(pattern, role)
        ]

    def bind(self, node: str, role: RoleId, home: str, *, listed: bool) -> None:
        """Have a node know where a role is, and how to get there."""
        life, other = self.lives[node], self.lives[home]
        life.links.meet({home: other.address})
        instance = other.directory.get(role)
        life.links.network.bind(instance.id if instance is not None else role, home, listed=listed)

    def introduce(self, name: str, *, again: bool = False) -> None:
        """Have all others know of the roles of a node, as soon as word of it can reach them."""
        now_s = self.loop.now_s()
        for other in self.living():
            if other.name != name:
                delay_s = self.courier.network.round_trip_s(name, other.name) / 2
                self.loop.at(now_s + delay_s, other.name, self._introduce, other, self.lives[name], again)

    def _introduce(self, other: Life, newcomer: Life, again: bool) -> None:
        if not (other.alive and newcomer.alive) or self._closing:
            return
        if again:
            other.links.part(newcomer.name, "it has been restarted")
        with other.directory.bulk():
            for role, home in list(self.homes.items()):
                if home == newcomer.name:
                    other.directory.introduce(role, home)

    def _role_ended(self, life: Life, role: RoleId) -> None:
        """Have all others know that a role has ended, as soon as word of it can reach them."""
        self.homes.pop(role, None)
        if self._closing or life.directory.closing:
            return
        now_s = self.loop.now_s()
        why = self.ended[role] = life.directory.loss(role) or RoleLost(role, "it has stopped", "none")
        for other in self.living():
            if other is not life:
                delay_s = self.courier.network.round_trip_s(life.name, other.name) / 2
                self.loop.at(now_s + delay_s, other.name, self._tell_ended, other, role, why)

    def _tell_ended(self, other: Life, role: RoleId, why: RoleLost) -> None:
        if other.alive and role not in self.homes:
            other.links.network.unbind(role, why.copied())

    # ------------------------------------------------------------------------------------------ what happens

    def note(self, node: str, kind: str, **facts: Any) -> None:
        """Take note of something, now."""
        self.log.add(self.loop.now_s(), node, kind, **facts)
        self._tell()

    def _tell(self) -> None:
        for listener in self.on_event:
            listener()

    def observe(self, life: Life, record: Record) -> None:
        """Take what a node tells its observers; from one that has crashed, nothing comes."""
        if not life.alive:
            return
        self.log.record(self.loop.now_s(), life.name, record)
        for observer in self.observers:
            observer(record)
        if isinstance(record, StatusChange) and record.status in _OVER:
            self.loop.call_soon(self._role_ended, life, record.role)
        self._tell()

    def joined(self, life: Life, peer: str) -> None:
        """Take note of a new link."""
        if life.alive:
            self.note(life.name, "linked", peer=peer)

    def lost(self, life: Life, peer: str, why: str) -> None:
        """Take note that a node has given up another."""
        if life.alive and not self._closing:
            self.note(life.name, "lost", peer=peer, why=why)

    def watch(self, watcher: Watcher) -> None:
        """Call a function with each frame, when a node is about to send it and when another has taken it.

        So something can be made to happen at the very moment. It is for the seam `fast` only.
        """
        if self._seam is None:
            raise ConfigError("watch", "the seam `grpc` carries bytes, and sees no frames", hint="Use the seam `fast`")
        self._seam.watchers.append(watcher)

    def explain(self) -> list[str]:
        """Return who waits for what: handlers that have not ended, and calls without an answer."""
        lines: list[str] = []
        for life in self.living():
            for instance in life.node.instances:
                lines += [f"{call.where} handles a message of {call.caller}" for call in instance.running]
            lines += [f"node {life.name} waits for an answer of {text}" for text in life.links.network.unanswered()]
        return lines

    def _spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        task = self.loop.create_task(self._guarded(work), name=name)
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception as error:
            self.failure(error)

    def _unexpected(self, error: Exception) -> None:
        self.loop.call_exception_handler({"message": "something went wrong in a simulated world", "exception": error})

    # ------------------------------------------------------------------------------------------ faults

    def crash(self, node: str, *, how: CutKind = "silence") -> None:
        """End a node as if its power failed; with `reset`, as if only its process did, which others see at once."""
        life = self.life(node)
        if not life.alive or self._closing:
            return
        self.note(node, "crash", how=how)
        self._kept[node] = life.snapshots()
        life.alive = False
        life.directory.closing = True
        if self._seam is not None:
            self._seam.crash(node, how)
        else:
            assert self._net is not None
            self._net.down(node, silent=how == "silence")
            self.courier.down(node, how=how)
            life.links.exchange.abandon("the node has crashed")
        for role in [role for role, home in self.homes.items() if home == node]:
            del self.homes[role]
            self.ended[role] = NodeLost(role, "its node has crashed", "none")
        self.loop.agenda.resume(node)
        life.node.logger = _OF_THE_DEAD
        life.node.kill()
        life.node.closing.set()
        self.on_crashed(node)

    def restart(self, node: str, *, state: StateKind = "none") -> None:
        """Start a node again, after a crash if it has not crashed already: with the state of its roles, or without."""
        if self._closing:
            return
        if self.life(node).alive:
            self.crash(node)
        self._spawn(self._restart(self.life(node), state), f"restart {node}")

    async def _restart(self, before: Life, state: str) -> None:
        life = Life(self, before.place, before.number + 1, before.disk)
        self.note(life.name, "restart", state=state)
        await self._open(life)
        hosted = life.host(self._kept.get(life.name, {}) if state == "kept" else {})
        self.introduce(life.name, again=True)
        for instance in hosted:
            await self.start(instance)
        self.on_restarted(life.name, hosted)

    async def start(self, instance: RoleInstance) -> None:
        """Start a role as code of its node; return when it is ready, and hears those it listens to."""
        node = instance.node.name

        async def start() -> None:
            await instance.start()
            await self.lives[node].links.network.subscribed()

        await self.loop.create_task(start(), name=f"start {instance.id}", context=self.loop.context(node))

    def pause(self, node: str) -> None:
        """Have a node stand still, as when it is suspended: what is sent to it waits."""
        self.life(node)
        self.note(node, "pause")
        self.loop.agenda.pause(node)

    def resume(self, node: str) -> None:
        """Have a node go on."""
        self.note(node, "resume")
        self.loop.agenda.resume(node)

    def slow(self, node: str, factor: float) -> None:
        """Have what a node computes from now on take so many times as long as it should; 1 is as it was."""
        device = self.life(node).device
        if device is None:
            raise ConfigError(f"node {node!r}", "it has no device, and computes in no time", hint="Give it a device")
        self.note(node, "slow", factor=factor)
        device.slow = factor

    def skew(self, node: str, offset_s: float, rate: float = 1.0) -> None:
        """Set the clock of a node forward, and have it run at another rate."""
        self.life(node)
        self.note(node, "skew", offset_s=offset_s, rate=rate)
        self.loop.skew(node, offset_s, rate)

    def fill_disk(self, node: str, free_bytes: int | None) -> None:
        """Leave so much room on the disk of a node; None for as much as there is."""
        self.life(node).disk.limit(free_bytes)
        self.note(node, "disk", free_bytes=free_bytes)

    def cut(self, a: str, b: str, *, both: bool = True, how: CutKind = "reset") -> int:
        """Let nothing through between two nodes, or only not from `a` to `b`; return a token for `mend`."""
        for node in (a, b):
            self.life(node)
        self.note("", "cut", a=a, b=b, both=both, how=how)
        return self.courier.cut(a, b, both=both, how=how)

    def partition(self, groups: Iterable[Iterable[str]], *, how: CutKind = "reset") -> int:
        """Let nothing through between groups of nodes; those in none are one more. Return a token for `mend`."""
        parts = [list(group) for group in groups]
        self.note("", "partition", groups=" | ".join(map(",".join, parts)), how=how)
        return self.courier.partition(parts, how=how)

    def isolate(self, node: str, *, how: CutKind = "reset") -> int:
        """Let nothing through to or from a node; return a token for `mend`."""
        self.life(node)
        self.note(node, "isolate", how=how)
        return self.courier.isolate(node, how=how)

    def mend(self, token: int) -> None:
        """Undo one cut, partition or isolation."""
        self.note("", "mend")
        self.courier.mend(token)

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Undo all cuts between two nodes, of one, or of all."""
        self.note("", "heal", a=a, b=b)
        self.courier.heal(a, b)
