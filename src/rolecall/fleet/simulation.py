"""The harness: `async with rc.simulation(app, seed=7) as sim` runs an application in virtual time, to be tested."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import anyio

from rolecall.core.errors import ConfigError
from rolecall.core.ids import RoleId
from rolecall.core.records import Metric, Observer, Record
from rolecall.core.role import Role
from rolecall.fleet.app import App
from rolecall.fleet.course import Ending
from rolecall.fleet.importing import require_no_import
from rolecall.fleet.modelling import device_of
from rolecall.fleet.run import History, history_of, prepared
from rolecall.fleet.simulated import WorldEngine
from rolecall.fleet.structure import first_nodes
from rolecall.runtime.endpoints import RoleProxy
from rolecall.sim.attempt import ATTEMPT, note
from rolecall.sim.checks import Check, Checks, Promise
from rolecall.sim.disk import Disk
from rolecall.sim.events import Event, Packet
from rolecall.sim.faults import Fault, Slow
from rolecall.sim.log import EventLog
from rolecall.sim.network import Network
from rolecall.sim.schedule import At, Schedule, Timed
from rolecall.sim.simulate import virtual_loop
from rolecall.sim.swarm import Swarm, draw
from rolecall.sim.world import SeamName, World

__all__ = ("Simulation", "simulation")

WITHIN_S = 60.0
"""How long what must come true may take, if nothing is said."""
SWARM_S = 60.0


class Simulation:
    """An application in virtual time: what may happen to it, what must hold, and what has happened.

    Enter it on a virtual loop: in a test marked `@pytest.mark.simulation`, or in what `rc.simulate` runs. Inside, all
    roles are ready, and what the application starts has begun. Leaving waits for what must come true, then stops the
    application, and raises what was violated, or how the application failed.
    """

    def __init__(
        self,
        app: App | str | Path,
        *,
        seed: int | None = None,
        sets: Iterable[str] = (),
        seam: SeamName = "fast",
        faults: Schedule | None = None,
        swarm: Swarm | str | None = None,
        swarm_s: float = SWARM_S,
        spare: Iterable[str] = (),
        network: Network | None = None,
        checked: bool = False,
        trace: bool = False,
        observers: Sequence[Observer] = (),
    ) -> None:
        self._app, self._seed, self._sets, self._seam = app, seed, tuple(sets), seam
        self._given, self._swarm, self._swarm_s, self._spare = faults or Schedule(), swarm, swarm_s, tuple(spare)
        self._network, self._checked, self._observers = network, checked, observers
        self._log = EventLog(trace=trace)
        self.metrics: list[Metric] = []
        """Everything that was logged, in order; `time_s` is virtual."""
        self._stop, self._hold = anyio.Event(), anyio.Event()
        self._violation: Exception | None = None
        self._failure_told = False
        self._engine: WorldEngine
        self._checks: Checks

    # ------------------------------------------------------------------------------------------ life

    async def __aenter__(self) -> Self:
        require_no_import()
        loop = virtual_loop()
        if loop is None:
            raise ConfigError(
                "rc.simulation", "it is entered on an event loop in real time",
                hint="Mark the test `@pytest.mark.simulation`, or run it with `rc.simulate(main)`",
            )  # fmt: skip
        seed = self._seed if self._seed is not None else loop.seed
        self._deployed = prepared(self._app, self._sets, seed)
        attempt, nodes = ATTEMPT.get(), first_nodes(self._deployed.app)
        self._forced = attempt.forced if attempt is not None else None
        if self._swarm is not None:
            drawn = draw(seed, nodes, self._swarm_s, self._swarm, spare=self._spare)
            self._given = self._given.with_(*(timed for timed in drawn.faults if self._matters(timed.fault)))
        self._require_devices(self._given)
        self.schedule = self._forced if self._forced is not None else self._given
        self._engine = WorldEngine(
            self._deployed, [self._record, *self._observers], checked=self._checked, stop=self._stop, seam=self._seam,
            faults=self.schedule, network=self._network, log=self._log, hold=self._hold,
        )  # fmt: skip
        self._task = loop.create_task(self._engine.run(), name="simulation")
        self._task.add_done_callback(lambda task: self._engine.ready.set())
        await self._engine.ready.wait()
        if self._task.done() or self._engine.failure is not None:
            self._hold.set()
            await self._task
        self._checks = Checks(loop, self._violated)
        self.world.on_event.append(self._checks.look)
        loop.agenda.on_advance.append(self._checks.look)
        self._scope = anyio.CancelScope()
        self._scope.__enter__()
        return self

    def _require_devices(self, schedule: Schedule) -> None:
        """Refuse what would happen without any effect."""
        for timed in schedule.faults:
            if not self._matters(timed.fault):
                raise ConfigError(
                    f"fault `{timed}`", "the node has no device, and computes in no time",
                    hint="Give it one, as in: rc.Node(device=\"edge\")",
                )  # fmt: skip

    def _matters(self, fault: Fault) -> bool:
        """Say whether a fault that was drawn can be: a node without a device computes in no time, and is never slow."""
        return not isinstance(fault, Slow) or device_of(self._deployed.app, fault.node) is not None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if error is None:
            try:
                for promise in self._checks.open:
                    await promise.kept.wait()
            except BaseException as interrupted:
                error = interrupted
        swallowed = self._scope.__exit__(type(error) if error is not None else None, error, trace)
        with anyio.CancelScope(shield=True):
            failure = await self._ended(error)
        if self._violation is not None:
            raise self._violation
        if error is not None:
            if kind is None and not swallowed:
                raise error
            return bool(swallowed)
        if failure is not None and not self._failure_told:
            raise failure
        return False

    async def _ended(self, error: BaseException | None) -> Exception | None:
        """End everything; return how the application failed, if it did."""
        loop = self.world.loop
        loop.agenda.on_advance.remove(self._checks.look)
        self.world.on_event.remove(self._checks.look)
        self._stop.set()
        self._hold.set()
        if error is not None:
            self._task.cancel()
        await asyncio.wait([self._task])
        note(self.digest)
        if (attempt := ATTEMPT.get()) is not None:
            attempt.schedules.append(self.schedule)
        failure = None if self._task.cancelled() else self._task.exception()
        return failure if isinstance(failure, Exception) else None

    def _violated(self, error: Exception) -> None:
        if self._violation is None:
            self._violation = error
            self._scope.cancel()

    def observe(self, observer: Observer) -> None:
        """Tell an observer of every record from now on; the application fails with what it raises.

        So does a run that can be recorded no longer: `sim.observe(RunDirectory(path, sim.disk("a").charge).record)`.
        """

        def told(record: Record) -> None:
            try:
                observer(record)
            except Exception as error:
                self.world.observers.remove(told)
                self.world.failure(error)

        self.world.observers.append(told)

    def _record(self, record: Record) -> None:
        if isinstance(record, Metric):
            self.metrics.append(record)

    # ------------------------------------------------------------------------------------------ what goes wrong

    def at(self, at_s: float) -> At:
        """Say what goes wrong, so many seconds after the beginning: `sim.at(3.0).cut("a", "b", for_s=1.0)`."""
        return At(at_s, self._add)

    def now(self, fault: Fault) -> None:
        """Have something go wrong at once."""
        self._engine.injector.begin(fault)

    def _add(self, timed: Timed) -> None:
        if self._forced is None:
            Schedule((timed,)).check(self._deployed.app.nodes)
            self._require_devices(Schedule((timed,)))
            self.schedule = self.schedule.with_(timed)
            self._engine.injector.at(self.world.began_s + timed.at_s, timed.fault)

    async def join(self, name: str) -> None:
        """Start a node that the application has as `join: later`; return when its roles are ready.

        Raises:
            ConfigError: there is no such node, or it is there already.
        """
        await self._engine.join(name)

    # ------------------------------------------------------------------------------------------ what must hold

    def always(self, check: Check, name: str = "") -> None:
        """Have something hold from now on, after every event and at the end of every instant."""
        self._checks.always(check, name)

    def eventually(self, check: Check, within_s: float = WITHIN_S, name: str = "") -> Promise:
        """Have something come true within a time, before the simulation is left."""
        return self._checks.eventually(check, within_s, name)

    async def until(self, check: Check, within_s: float = WITHIN_S, name: str = "") -> None:
        """Wait until something is true, which must come true within a time."""
        await self.eventually(check, within_s, name).kept.wait()

    async def finished(self) -> History:
        """Wait until the application has ended by itself, and return its history.

        Raises:
            ApplicationFailed: a role or node failed; its error is the cause.
        """
        await self._engine.over.wait()
        if self._engine.failure is not None:
            self._failure_told = True
            raise self._engine.failure
        return history_of(self._deployed.app, self._ending, list(self.metrics), 0.0)

    @property
    def _ending(self) -> Ending:
        return self._engine.ending

    # ------------------------------------------------------------------------------------------ what there is

    @property
    def world(self) -> World:
        """The nodes, and all that may happen to them."""
        return self._engine.world

    @property
    def time_s(self) -> float:
        """Seconds since the beginning."""
        return self.world.loop.now_s() - self.world.began_s

    def role(self, role: str) -> Any:
        """Return the role itself, to look at; raise `RoleLost` or `UnknownRole` where there is none."""
        return self.world.directories.find(RoleId(role)).role

    def disk(self, node: str) -> Disk:
        """Return the disk of a node, which outlives its crashes: have it charged with what is written there."""
        return self.world.life(node).disk

    def proxy(self, role: str, role_class: type[Role] | None = None, *, of: str | None = None) -> Any:
        """Return what stands for a role to another node, or to its own: `await sim.proxy("a/echo", of="b").say(1)`."""
        wanted = RoleId(role)
        if role_class is None:
            role_class = type(self.role(role))
        return RoleProxy(self.world.life(of or wanted.home).node.native, wanted, role_class)

    # ------------------------------------------------------------------------------------------ what has happened

    @property
    def events(self) -> list[Event]:
        """What has happened of note, the last 100,000."""
        return self._log.events

    @property
    def packets(self) -> list[Packet]:
        """What was sent, the last 100,000; only with `trace=True`."""
        return list(self._log.packets)

    @property
    def digest(self) -> str:
        """A hash of all events and packets so far: the same seed gives the same, in every process."""
        return self._log.digest


def simulation(app: App | str | Path, **options: Any) -> Simulation:
    """Simulate an application; see `Simulation`.

    Args:
        app: the application, or the path of its file.
        options:
            seed: replaces the application's; else that of the loop does.
            sets: parameters to override, such as `"rounds=3"`.
            seam: `fast`, where nodes hand each other what they send, or `grpc`, where bytes go through the whole stack.
            faults: what goes wrong, beside what `at` says.
            swarm: the name of a profile, or a `Swarm`: faults drawn from the seed, in the first `swarm_s` seconds, that
                `spare` some nodes.
            network: how what is sent travels, in place of what the application says.
            checked: look for values that change after they were sent, as `rc.run` does.
            trace: keep the packets.
            observers: called with every record.
    """
    return Simulation(app, **options)
