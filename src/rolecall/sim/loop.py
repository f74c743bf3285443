"""An event loop in virtual time: when nothing is ready, time moves to the next timer, and nobody waits for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from functools import partial
from math import inf
from typing import Any, Final

from rolecall.core.place import HERE, context_of
from rolecall.sim.agenda import Agenda
from rolecall.sim.clocks import NodeClock
from rolecall.sim.hashing import SerialTask, use_serial_scopes
from rolecall.sim.inline import Threads, run_inline, use_inline_threads
from rolecall.sim.order import arrangement
from rolecall.sim.refusals import Refusing, refuse
from rolecall.sim.timers import DAEMON_TIMER, SERIOUS_TIMER
from rolecall.sim.waiting import waiting_tasks
from rolecall.wire.daemon import DAEMON

__all__ = ("VirtualLoop",)

INSTANT_STEPS: Final = 5_000_000


class _DaemonTimer(asyncio.TimerHandle):
    """A timer that does not keep the world alive."""

    __slots__ = ()


class VirtualLoop(Refusing):
    """Runs tasks in virtual time, which begins at 0; see `rolecall.sim.simulate.simulate`.

    Args:
        seed: chooses the order of task steps.
        order: `fifo`, `shuffled` or `adversarial`; see `rolecall.sim.order`.
        threads: what becomes of work for worker threads: `refuse`, or `inline`, where it is done.
        instant_steps: how many steps may be taken without time moving.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        order: str = "shuffled",
        threads: Threads = "refuse",
        instant_steps: int = INSTANT_STEPS,
    ) -> None:
        arrange = arrangement(order, seed)
        super().__init__()
        use_serial_scopes()
        use_inline_threads()
        self.seed, self.threads = seed, threads
        self.explain: list[Callable[[], Sequence[str]]] = []
        """Each returns lines about who waits for what, for `Stuck`."""
        self.network: Any = None
        """What answers `create_server`, `create_connection` and `getaddrinfo`."""
        self.agenda = Agenda(self, arrange, instant_steps, self._who_waits)
        """What is to happen, and the time of the world."""
        self._clocks: dict[str | None, NodeClock] = {}
        self._contexts: dict[str, Context] = {}
        self._shared: dict[str, tuple[Context, Context]] = {}

    # ------------------------------------------------------------------------------------------ time

    def time(self) -> float:
        """Return what the clock of the running node shows; see `now_s`."""
        if self._clocks and (clock := self._clocks.get(HERE.get())) is not None:
            return clock.shown(self.agenda.now_s)
        return self.agenda.now_s

    def now_s(self) -> float:
        """Return the time of the world, in seconds since it began."""
        return self.agenda.now_s

    @property
    def steps(self) -> int:
        """How many callbacks and task steps have been run."""
        return self.agenda.steps

    def skew(self, node: str, offset_s: float, rate: float = 1.0) -> None:
        """Set the clock of a node forward (or back), and have it run at another rate from now on."""
        clock = self._clocks.get(node, NodeClock())
        self._clocks[node] = clock.skewed(offset_s, rate, self.agenda.now_s)

    def _world(self, shown_s: float) -> float:
        if self._clocks and (clock := self._clocks.get(HERE.get())) is not None:
            return clock.world(shown_s)
        return shown_s

    # ------------------------------------------------------------------------------------------ scheduling

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back after a delay by the clock of the running node."""
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., Any], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """Call back when the clock of the running node shows `when`."""
        self._check_closed()  # type: ignore[attr-defined]
        return self._schedule(self._world(when), when, callback, args, context)

    def at(self, when_s: float, node: str | None, callback: Callable[..., Any], *args: Any) -> asyncio.TimerHandle:
        """Call back at a time of the world, as a node, or as nobody."""
        return self._schedule(when_s, when_s, callback, args, self.context(node))

    def context(self, node: str | None) -> Context:
        """Return a fresh context of a node; what is scheduled from a daemon's is a daemon too."""
        made = Context() if node is None else self._context(node)
        if DAEMON.get():
            made.run(DAEMON.set, True)
        return made

    def _context(self, node: str) -> Context:
        if node not in self._contexts:
            self._contexts[node] = context_of(node)
        return self._contexts[node].copy()

    def contexts(self, node: str) -> tuple[Context, Context]:
        """Return the two contexts of a node that all that arrives there runs in, the second as a daemon."""
        found = self._shared.get(node)
        if found is None:
            found = self._shared[node] = (self._context(node), self._context(node))
            found[1].run(DAEMON.set, True)
        return found

    def _schedule(
        self, when_s: float, shown_s: float, callback: Callable[..., Any], args: Sequence[Any], context: Context | None
    ) -> asyncio.TimerHandle:
        is_daemon = DAEMON.get()
        timer = (_DaemonTimer if is_daemon else asyncio.TimerHandle)(shown_s, callback, args, self, context)
        if when_s != inf:  # as of `anyio.sleep_forever`: it never goes off, and nobody lives by it
            timer._scheduled = True  # type: ignore[attr-defined]
            self.agenda.timers.add(when_s, timer, DAEMON_TIMER if is_daemon else SERIOUS_TIMER)
        return timer

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        if timer._scheduled:  # type: ignore[attr-defined]
            timer._scheduled = False  # type: ignore[attr-defined]
            self.agenda.timers.cancelled(DAEMON_TIMER if type(timer) is _DaemonTimer else SERIOUS_TIMER)

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        """Start a task, whose hash is its number."""
        self._check_closed()  # type: ignore[attr-defined]
        return SerialTask(coro, loop=self, name=name, **options)

    # ------------------------------------------------------------------------------------------ running

    _closed = True  # until it is there: a wrong argument leaves nothing to close

    def _run_once(self) -> None:
        self.agenda.turn()

    def _who_waits(self) -> list[str]:
        explained = [line for explain in self.explain for line in explain()]
        return [*explained, *waiting_tasks(self)]

    def _write_to_self(self) -> None:
        """Do nothing: the loop never sleeps, and so need not be woken."""

    # ------------------------------------------------------------------------------------------ the outside

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run a function where it is, if threads are `inline`; else refuse."""
        self._require_inline()
        future = self.create_future()
        try:
            future.set_result(run_inline(partial(func, *args)))
        except Exception as error:
            future.set_exception(error)
        return future

    def _require_inline(self) -> None:
        if self.threads != "inline":
            refuse("a worker thread", "Use `await self.compute(...)`, or simulate with threads='inline'")

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        """Return the address of a simulated node."""
        return self._require_network("a name looked up").addresses(host, port)

    async def getnameinfo(self, sockaddr: Any, flags: int = 0) -> Any:
        """Return host and port as they are."""
        return sockaddr[:2]

    async def create_connection(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """Connect with a simulated node."""
        _refuse_sockets(options)
        return await self._require_network("a connection").connect(protocol_factory, host, port)

    async def create_server(self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any) -> Any:
        """Listen on a simulated node."""
        _refuse_sockets(options)
        return self._require_network("a server").listen(protocol_factory, host, port)

    def _require_network(self, what: str) -> Any:
        if self.network is None:
            refuse(what, "There is no network here: use `rc.simulation(...)`, or set one up with sim.memory_net")
        return self.network


def _refuse_sockets(options: dict[str, Any]) -> None:
    if options.get("sock") is not None:
        refuse("a socket")
    if options.get("ssl"):
        refuse("TLS", "Simulated links are plain")
