"""The engine `processes`: every node of an application in a process of its own, on this machine."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, cast

import anyio
import msgspec

from rolecall.core.errors import ApplicationFailed, RolecallError
from rolecall.core.ids import RoleId
from rolecall.core.records import LogLine, Observer
from rolecall.fleet.conductor import Conductor
from rolecall.fleet.course import Course, Ending
from rolecall.fleet.deployment import Deployment
from rolecall.fleet.forking import ForkServer
from rolecall.fleet.forkserver import Spawn
from rolecall.fleet.management import OnManagement, require_joiner
from rolecall.fleet.node_process import ENTRY, NodeConfig
from rolecall.fleet.output import Output
from rolecall.fleet.plan import Plan
from rolecall.fleet.portable import ImportPolicy, modules, portable
from rolecall.fleet.preloading import preloaded
from rolecall.fleet.structure import first_nodes
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.instance import Hosting
from rolecall.runtime.links import Links
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.relations import Target
from rolecall.wire.exchange import ExchangeLimits
from rolecall.wire.security import new_secret

__all__ = ("ProcessEngine",)

JOIN_S: Final = 60.0
"""How long a new process may take to join."""
LAST_WORDS_S: Final = 0.2
"""How long what a process wrote before it ended may take to arrive."""
EXIT_S: Final = 5.0
"""How long a process may take to end when all its roles have."""

# A process that ends is noticed at once; one that is only silent is busy, for much longer than a machine would be.
_LIMITS: Final = ExchangeLimits(suspicion_min_s=10.0, suspicion_max_s=10.0)


class ProcessEngine:
    """Runs one application; none of its processes outlives `run`, nor this process, however that ends."""

    def __init__(
        self,
        deployed: Deployment,
        observers: Sequence[Observer],
        *,
        checked: bool,
        stop: anyio.Event,
        on_management: OnManagement | None = None,
    ) -> None:
        self._on_management = on_management
        self._app, self._observers = deployed.app, list(observers)
        self._began_s = anyio.current_time()
        self._course = Course(self._app, self._say, stop)
        self._deployed, self._checked = deployed, checked
        self._processes: dict[str, _Process] = {}
        self._is_over = False
        self._secret = new_secret()
        self._home = _free_name(deployed)

    async def run(self) -> Ending:
        """Run the application until it ends, is stopped or fails.

        Raises:
            ApplicationFailed: a node or a role failed; its error is the cause.
            CallerError: the application does not fit together.
        """
        self._plan = await self._planned()
        async with ForkServer() as server:
            self._server = server
            await server.preload(preloaded(self._plan.application, checked=self._plan.checked))
            try:
                return await self._conducted()
            finally:
                with anyio.CancelScope(shield=True):
                    await self._end_processes()

    async def _planned(self) -> Plan:
        """Make data of the application, which looks for modules in files."""
        return Plan(
            deployed=self._deployed,
            application=await anyio.to_thread.run_sync(portable, self._app),
            course=self._course,
            observers=self._observers,
            began_s=self._began_s,
            checked=self._checked,
        )

    async def _conducted(self) -> Ending:
        role = RoleId(f"{self._home}/conductor")
        agents = Target(tuple(f"{name}/{NATIVE}" for name in self._app.nodes))
        options = NodeOptions(role_relationships={role.name: {"agents": agents}})
        async with Node(self._home, options=options, began_s=self._began_s) as node:
            async with Links(
                node,
                secret=self._secret,
                on_joined=self._joined,
                on_lost=self._cut_off,
                on_refused=lambda remote, why: node.audit("deny", who=remote, why=why),
                limits=_LIMITS,
            ) as links:
                self._node, self._links = node, links
                hosting = Hosting(id=role, role_class=Conductor, options={"plan": self._plan, "links": links})
                instance = node.host(hosting)
                await instance.start()
                self._conductor = cast(Conductor, instance.role)
                try:
                    return await self._conductor.conduct(self._start_processes)
                finally:
                    self._is_over = True

    # ------------------------------------------------------------------------------------------ processes

    async def _start_processes(self) -> None:
        """Fork a process for each node; return when all have joined."""
        self._address = await self._links.exchange.listen()
        names = first_nodes(self._app)
        for name in names:
            await self._start_process(name)
        await self._all_joined(names)
        if self._on_management is not None:
            self._on_management(self._conductor.management(self._join))

    async def _start_process(self, name: str) -> None:
        process = self._processes[name] = _Process(name)
        out, err = await process.output.open()
        try:
            order = Spawn(name, ENTRY, self._config(name, self._address))
            process.pid = await self._server.spawn(order, out, err, partial(self._exited, process))
        finally:
            os.close(out)
            os.close(err)

    async def _all_joined(self, names: Sequence[str]) -> None:
        with anyio.move_on_after(JOIN_S):
            await self._conductor.all_joined(names)
            return
        missing = next(name for name in names if name not in self._links.exchange.links)
        raise ApplicationFailed(f"node {missing}", "start", TimeoutError(f"it has not joined within {JOIN_S:g} s"))

    async def _join(self, name: str) -> None:
        """Fork a process for a node that joins later, or comes again after it was lost."""
        former = self._processes.get(name)
        require_joiner(self._app, name, () if former is not None and former.code is not None else self._processes)
        if former is not None:
            await former.output.ended()
            former.output.close()
        await self._start_process(name)
        await self._all_joined([name])
        await self._conductor.admitted(name)

    def _config(self, name: str, address: str) -> bytes:
        own = {module.partition(".")[0] for module in modules(self._plan.application)}
        config = NodeConfig(
            name=name,
            secret=self._secret,
            conductor=f"{self._home}/conductor",
            address=address,
            policy=ImportPolicy(tuple(sorted(own | {"rolecall"})), tuple(self._app.import_from)),
            limits=_LIMITS,
            log_levels=_log_levels(),
        )
        return msgspec.msgpack.encode(config)

    async def _end_processes(self) -> None:
        """Wait until all processes have ended by themselves, and end those that do not."""
        with anyio.move_on_after(EXIT_S):
            for process in self._processes.values():
                await process.ended()
        for process in self._processes.values():
            await self._kill(process)
        with anyio.move_on_after(EXIT_S):
            for process in self._processes.values():
                await process.ended()
                await process.output.ended()
        for process in self._processes.values():
            process.output.close()

    async def _kill(self, process: _Process) -> None:
        if process.pid is not None and process.code is None:
            try:
                await self._server.kill(process.pid, signal.SIGKILL)
            except RolecallError:  # it has ended, and its nodes with it
                pass

    # ------------------------------------------------------------------------------------------ what happens

    def _joined(self, peer: str) -> None:
        if peer in self._processes:
            self._conductor.joined(peer)
        else:
            self._links.part(peer, "it is no node of this application")

    def _cut_off(self, peer: str, why: str) -> None:
        """End a process that cannot be talked to."""
        if peer in self._processes:
            self._node.spawn(partial(self._kill, self._processes[peer]), f"kill {peer}")
            self._conductor.lose(peer, why)

    def _exited(self, process: _Process, code: int) -> None:
        process.code = code
        process.over.set()
        if not self._is_over:
            self._node.spawn(partial(self._judge, process), f"exit of {process.name}")

    async def _judge(self, process: _Process) -> None:
        """Take a node for lost whose process has ended, and say why, as far as it has said so itself."""
        with anyio.move_on_after(LAST_WORDS_S):
            await process.output.ended()
        self._conductor.lose(process.name, process.end)

    def _say(self, level: str, source: str, text: str) -> None:
        for observer in self._observers:
            observer(LogLine(anyio.current_time() - self._began_s, level, source, text))


class _Process:
    """The process of one node."""

    def __init__(self, name: str) -> None:
        self.name, self.output = name, Output(name)
        self.pid: int | None = None
        self.code: int | None = None
        self.over = anyio.Event()

    async def ended(self) -> None:
        """Wait until it has ended, if it ever began."""
        if self.pid is not None:
            await self.over.wait()

    @property
    def end(self) -> str:
        """How it ended, in words."""
        code = self.code or 0
        how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        words = f"; its last words: {' | '.join(self.output.last_words)}" if self.output.last_words else ""
        return f"its process {self.pid} {how}{words}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _free_name(deployed: Deployment) -> str:
    """Return a name for the conductor's node that no node of the application has."""
    name = "conductor"
    while name in deployed.app.nodes:
        name += "_"
    return name


def _log_levels() -> dict[str, int]:
    """Return the levels of the loggers that have one; the root's has the name ''."""
    known: dict[str, Any] = logging.root.manager.loggerDict
    loggers = {name: logger for name, logger in known.items() if isinstance(logger, logging.Logger)}
    return {name: logger.level for name, logger in {"": logging.root, **loggers}.items() if logger.level}
