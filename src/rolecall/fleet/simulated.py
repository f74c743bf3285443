"""The engine `sim`: every node of an application in virtual time, over a modelled network, on modelled devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

from rolecall.core.errors import NodeLost
from rolecall.core.ids import RoleId
from rolecall.core.records import SIMULATION, LogLine, Observer, Record
from rolecall.fleet.course import Ending, failure_of
from rolecall.fleet.deployment import Deployment
from rolecall.fleet.local import LocalEngine
from rolecall.fleet.management import OnManagement
from rolecall.fleet.modelling import device_of, network_of
from rolecall.fleet.node_role import NodeRole
from rolecall.fleet.structure import first_nodes
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.instance import RoleInstance
from rolecall.runtime.node import Node
from rolecall.sim.faults import Fault
from rolecall.sim.injecting import Injector
from rolecall.sim.log import EventLog
from rolecall.sim.loop import VirtualLoop
from rolecall.sim.network import Network
from rolecall.sim.profiles import network_for
from rolecall.sim.schedule import Schedule
from rolecall.sim.simulate import simulate, virtual_loop
from rolecall.sim.world import Life, Place, SeamName, World

__all__ = ("DEFAULT_NETWORK", "SimulatedEngine", "WorldEngine")

DEFAULT_NETWORK = "lan"
"""The line of a node for which the application names none."""


class SimulatedNodeRole(NodeRole):
    """The management of a simulated node; `world` is set by whoever makes the node."""

    world: World

    async def _announce(self, instance: RoleInstance) -> None:
        await super()._announce(instance)
        self.world.introduce(self._node.name)

    async def _heard(self) -> None:
        if self.links is not None:
            await self.links.network.subscribed()


class WorldEngine(LocalEngine):
    """Runs one application in a world, on the running virtual loop.

    `ready` is set once all roles are, `over` when the application has ended. With `hold`, the nodes stay until that
    is set; `world` is there from `ready` on.
    """

    world: World

    def __init__(
        self,
        deployed: Deployment,
        observers: Sequence[Observer],
        *,
        checked: bool,
        stop: anyio.Event,
        seam: SeamName = "fast",
        faults: Schedule | None = None,
        network: Network | None = None,
        log: EventLog | None = None,
        hold: anyio.Event | None = None,
        on_management: OnManagement | None = None,
    ) -> None:
        super().__init__(deployed, observers, checked=checked, stop=stop, on_management=on_management)
        self._seam, self._network, self._hold = seam, network, hold
        self._faults = faults or Schedule()
        self.log = log or EventLog()
        self.ready, self.over = anyio.Event(), anyio.Event()

    async def run(self) -> Ending:
        """See `LocalEngine.run`."""
        async with self._make_world() as self.world, anyio.create_task_group() as self._tasks:
            self._directory = self.world.directories  # type: ignore[assignment]
            try:
                await self._run()
            except Exception as error:  # raised again below: a task group would wrap it
                self._course.failure = error
            finally:
                await self._end()
        if self._course.failure is not None:
            raise self._course.failure
        self._raise_violations()
        return self._ending

    async def _run(self) -> None:
        for name in first_nodes(self._app):
            await self._open(name)
        if self._on_management is not None:
            self._on_management(self._management())
        await self._deploy()
        self.injector = Injector(self.world, self.world.loop, self._fault)
        self._faults.check(self._app.nodes)
        for timed in self._faults.faults:
            self.injector.at(self.world.began_s + timed.at_s, timed.fault)
        self.ready.set()
        await self._work()
        self._keep_states()

    async def join(self, name: str) -> None:
        """Open a node that joins later; see `Management.join`."""
        await self._join(name)

    def _came(self, name: str) -> None:
        self.world.note(name, "join")
        self.world.introduce(name)

    async def _end(self) -> None:
        self.ready.set()
        self.over.set()
        with anyio.CancelScope(shield=True):
            if self._hold is not None:
                await self._hold.wait()
            await self._close()
        self._say("info", SIMULATION, f"{self.world.loop.now_s():.6f} s simulated; digest of events {self.log.digest}")

    @property
    def failure(self) -> Exception | None:
        """How the application failed, if it has."""
        return self._course.failure

    @property
    def ending(self) -> Ending:
        """How the application ended; whole once `over` is set."""
        return self._ending

    # ------------------------------------------------------------------------------------------ the world

    def _make_world(self) -> World:
        loop = virtual_loop()
        assert loop is not None
        network = self._network or network_of(self._app)
        for name in [name for name, spec in self._app.nodes.items() if spec.network is None]:
            network.attach(name, network_for(DEFAULT_NETWORK, name))
        world = World(loop, network, seam=self._seam, log=self.log)
        world.observers = self._observers  # those added later as well
        world.on_crashed, world.on_restarted = self._crashed, self._restarted
        world.failure = self._course.end
        return world

    async def _open(self, name: str) -> Node:
        place = Place(
            name=name,
            options=self._options(name),
            hostings=self._deployed.hostings[name],
            native=(SimulatedNodeRole, {"app": self._app, "on_failed": self._assigned_failed}),
            device=device_of(self._app, name),
            opened=self._opened,
        )
        life = await self.world.open(place)
        self._nodes[name] = life.node
        return life.node

    def _opened(self, life: Life) -> None:
        role = cast(SimulatedNodeRole, life.node.native.role)
        role.links, role.world = life.links, self.world

    async def _start(self, instance: RoleInstance) -> None:
        await self.world.start(instance)

    async def _close(self) -> None:
        self._directory.closing = True
        await self._stop_roles(life.node for life in self.world.living())
        await self.world.close()

    def _say(self, level: str, source: str, text: str) -> None:
        line = LogLine(anyio.current_time() - self._began_s, level, source, text)
        self.log.record(self.world.loop.now_s(), "", line)
        for observer in self._observers:
            observer(line)

    # ------------------------------------------------------------------------------------------ faults

    def _fault(self, what: str, fault: Fault) -> None:
        self.world.note("", "fault", what=what, fault=str(fault))

    def _crashed(self, node: str) -> None:
        role = RoleId.of(node, NATIVE)
        if self._course.tolerates_node(node):
            self._say("error", node, "the node is lost: it has crashed")
        else:
            self._course.end(failure_of(f"node {node}", "the run", NodeLost(role, "it has crashed", "unknown")))

    def _restarted(self, node: str, roles: list[RoleInstance]) -> None:
        self._nodes[node] = self.world.life(node).node
        self._begin_mains(roles)


class SimulatedEngine:
    """Runs one application in virtual time, in a thread of its own unless the running loop is a virtual one.

    `on_management` is called on the virtual loop, which is the only one to use what it is given.
    """

    def __init__(
        self,
        deployed: Deployment,
        observers: Sequence[Observer],
        *,
        checked: bool,
        stop: anyio.Event,
        on_management: OnManagement | None = None,
    ) -> None:
        self._observers, self._stop, self._seed = observers, stop, deployed.app.seed or 0
        self._engine = partial(WorldEngine, deployed, checked=checked, on_management=on_management)

    async def run(self) -> Ending:
        """Run the application until it ends, is stopped or fails; see `LocalEngine.run` for what it raises."""
        if virtual_loop() is not None:
            return await self._engine(self._observers, stop=self._stop).run()
        return await _Aside(self._engine, self._observers, self._stop, self._seed).run()


class _Aside:
    """A simulation in a thread, and the loop that waits for it: records go there, and word to stop comes from there."""

    def __init__(
        self, engine: Callable[..., WorldEngine], observers: Sequence[Observer], stop: anyio.Event, seed: int
    ) -> None:
        self._engine, self._observers, self._stop, self._seed = engine, observers, stop, seed
        self._outer = asyncio.get_running_loop()
        self._inner: VirtualLoop | None = None
        self._inner_stop: anyio.Event | None = None
        self._main: asyncio.Task[Any] | None = None

    async def run(self) -> Ending:
        """Simulate, and pass on what both sides have to say."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._relay)
            try:
                ending, failure = await anyio.to_thread.run_sync(self._simulate), None
            except Exception as error:  # raised below: the task group would wrap it
                ending, failure = None, error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        await anyio.lowlevel.checkpoint()  # raises what put an end to the simulation, if that was a cancellation
        if ending is None:
            raise RuntimeError("the simulation was cancelled from inside")
        return ending

    async def _relay(self) -> None:
        try:
            await self._stop.wait()
        except BaseException:
            self._there(lambda: self._main.cancel() if self._main is not None else None)
            raise
        self._there(lambda: self._inner_stop.set() if self._inner_stop is not None else None)

    def _there(self, function: Callable[[], object]) -> None:
        """Have something done in the simulation, if it still runs."""
        try:
            if self._inner is not None:
                self._inner.call_soon_threadsafe(function)
        except RuntimeError:  # it has ended meanwhile
            pass

    def _simulate(self) -> Ending | None:
        try:
            return simulate(self._body, seed=self._seed, threads="inline")
        except asyncio.CancelledError:  # of the loop in here, and nothing to the one that waits
            return None

    async def _body(self) -> Ending:
        self._inner_stop = anyio.Event()
        self._main = asyncio.current_task()
        self._inner = virtual_loop()
        if self._stop.is_set():
            self._inner_stop.set()
        observers = [self._observer(observer) for observer in self._observers]
        return await self._engine(observers, stop=self._inner_stop).run()

    def _observer(self, observer: Observer) -> Observer:
        def told(record: Record) -> None:
            self._outer.call_soon_threadsafe(observer, record)

        return told
