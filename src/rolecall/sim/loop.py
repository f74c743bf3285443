"""An event loop in virtual time: when nothing is ready, time moves to the next timer, and nobody waits for it."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context
from functools import partial
from math import inf
from typing import Any, Final, Protocol, TypeAlias

from rolecall.core.place import HERE, context_of
from rolecall.sim.clocks import NodeClock
from rolecall.sim.collecting import Collector
from rolecall.sim.errors import Endless, Stuck
from rolecall.sim.hashing import SerialTask, use_serial_scopes
from rolecall.sim.inline import Threads, run_inline, use_inline_threads
from rolecall.sim.order import arrangement, task_of
from rolecall.sim.refusals import Refusing, refuse
from rolecall.sim.waiting import waiting_tasks
from rolecall.wire.daemon import DAEMON

__all__ = ("VirtualLoop",)

INSTANT_STEPS: Final = 5_000_000
STUCK_AFTER_S: Final = 60.0
"""How long only daemon timers may go off, and no task take a step, until the world is held to be stuck."""
_RECENT: Final = 1_000
_PRUNE: Final = 1_000


_Timed: TypeAlias = tuple[float, int, asyncio.TimerHandle] | tuple[float, int, "Arriving", bool]
"""When, a number, and a timer, or what arrives then; if the latter, whether it does so as a daemon."""


class _DaemonTimer(asyncio.TimerHandle):
    """A timer that does not keep the world alive."""

    __slots__ = ()


class Arriving(Protocol):
    """What is called again and again at times of the world, and needs no timer of its own for each."""

    contexts: tuple[Context, Context]
    """See `VirtualLoop.contexts`."""

    def arrive(self) -> None:
        """Do what is due."""


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
        self.steps = 0
        """How many callbacks and task steps have been run."""
        self.explain: list[Callable[[], Sequence[str]]] = []
        """Each returns lines about who waits for what, for `Stuck`."""
        self.on_advance: list[Callable[[], None]] = []
        """Called each time that time is about to move: all that could happen at this instant has happened."""
        self.network: Any = None
        """What answers `create_server`, `create_connection` and `getaddrinfo`."""
        self._arrange = arrange
        self._now_s = 0.0
        self._instant_steps, self._instant_began = instant_steps, 0
        self._recent: deque[asyncio.Handle] = deque(maxlen=_RECENT)
        self._timers: list[_Timed] = []
        self._numbers = itertools.count()
        self._serious = self._cancelled_timers = 0
        self._task_steps, self._idle = 0, (0, 0.0)
        self._clocks: dict[str | None, NodeClock] = {}
        self._held: dict[str | None, list[asyncio.Handle]] = {}
        self._contexts: dict[str, Context] = {}
        self._shared: dict[str, tuple[Context, Context]] = {}
        self._collector = Collector()

    # ------------------------------------------------------------------------------------------ time

    def time(self) -> float:
        """Return what the clock of the running node shows; see `now_s`."""
        if self._clocks and (clock := self._clocks.get(HERE.get())) is not None:
            return clock.shown(self._now_s)
        return self._now_s

    def now_s(self) -> float:
        """Return the time of the world, in seconds since it began."""
        return self._now_s

    @property
    def timers(self) -> int:
        """How many timers have been set that have neither gone off nor been cancelled."""
        return sum(not _is_cancelled(entry) for entry in self._timers)

    def skew(self, node: str, offset_s: float, rate: float = 1.0) -> None:
        """Set the clock of a node forward (or back), and have it run at another rate from now on."""
        clock = self._clocks.get(node, NodeClock())
        self._clocks[node] = clock.skewed(offset_s, rate, self._now_s)

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

    def arrive_at(self, when_s: float, target: Arriving) -> None:
        """Have something arrive at a time of the world; unlike a timer this cannot be taken back."""
        is_daemon = DAEMON.get()
        if not is_daemon:
            self._serious += 1
        heapq.heappush(self._timers, (when_s, next(self._numbers), target, is_daemon))

    def _schedule(
        self, when_s: float, shown_s: float, callback: Callable[..., Any], args: Sequence[Any], context: Context | None
    ) -> asyncio.TimerHandle:
        kind = _DaemonTimer if DAEMON.get() else asyncio.TimerHandle
        timer = kind(shown_s, callback, args, self, context)
        if when_s == inf:  # as of `anyio.sleep_forever`: it never goes off, and nobody lives by it
            return timer
        timer._scheduled = True  # type: ignore[attr-defined]
        if kind is not _DaemonTimer:
            self._serious += 1
        heapq.heappush(self._timers, (when_s, next(self._numbers), timer))
        return timer

    def _timer_handle_cancelled(self, timer: asyncio.TimerHandle) -> None:
        if timer._scheduled:  # type: ignore[attr-defined]
            timer._scheduled = False  # type: ignore[attr-defined]
            self._forget(timer)
            self._cancelled_timers += 1
            if self._cancelled_timers > _PRUNE and self._cancelled_timers > len(self._timers) // 4:
                self._timers = [entry for entry in self._timers if not _is_cancelled(entry)]
                heapq.heapify(self._timers)
                self._cancelled_timers = 0

    def _forget(self, timer: asyncio.TimerHandle) -> None:
        if type(timer) is not _DaemonTimer:
            self._serious -= 1

    def create_task(  # type: ignore[override]
        self, coro: Coroutine[Any, Any, Any], *, name: str | None = None, **options: Any
    ) -> asyncio.Task[Any]:
        """Start a task, whose hash is its number."""
        self._check_closed()  # type: ignore[attr-defined]
        return SerialTask(coro, loop=self, name=name, **options)

    # ------------------------------------------------------------------------------------------ nodes that stand still

    def pause(self, node: str) -> None:
        """Have nothing of a node run until `resume`."""
        self._held.setdefault(node, [])

    def resume(self, node: str) -> None:
        """Run what was held back, in order, and go on."""
        self._ready.extend(self._held.pop(node, ()))

    # ------------------------------------------------------------------------------------------ running

    _ready: deque[asyncio.Handle]
    _closed = True  # until it is there: a wrong argument leaves nothing to close

    def _run_once(self) -> None:
        """Do what is ready; if nothing is, move time to the next timer first."""
        ready = self._ready
        if not ready and not self._stopping:  # type: ignore[attr-defined]
            self._advance()
            if not ready and self._arrived_alone():
                return
        if self._timers and self._timers[0][0] <= self._now_s:
            self._take_due()
        if len(ready) == 1:  # most often, where latencies differ
            self._run_one(ready.popleft())
        else:
            self._run_all(ready)
        if (steps := self.steps - self._instant_began) > self._instant_steps:
            self._instant_began = self.steps
            raise Endless(self._now_s, steps, self._busiest())

    def _arrived_alone(self) -> bool:
        """Run what arrives now at once, if nothing else is due; return whether that was so."""
        timers, now_s = self._timers, self._now_s
        entry, due = timers[0], len(timers)
        if len(entry) == 3 or self._held:
            return False
        if (due > 1 and timers[1][0] <= now_s) or (due > 2 and timers[2][0] <= now_s):
            return False
        heapq.heappop(timers)
        _, _, target, is_daemon = entry
        if not is_daemon:
            self._serious -= 1
        self.steps += 1
        try:
            target.contexts[is_daemon].run(target.arrive)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            self.call_exception_handler({"message": f"something failed as it arrived: {target!r}", "exception": error})
        return True

    def _run_one(self, handle: asyncio.Handle) -> None:
        if not handle._cancelled:
            self._task_steps += task_of(handle) is not None
            self._run(handle)

    def _run_all(self, ready: deque[asyncio.Handle]) -> None:
        batch = deque(self._arranged([ready.popleft() for _ in range(len(ready))]))
        try:
            while batch:
                handle = batch.popleft()
                if not handle._cancelled:
                    self._run(handle)
        finally:
            ready.extendleft(reversed(batch))

    def _run(self, handle: asyncio.Handle) -> None:
        if self._held and (node := handle._context.get(HERE)) in self._held:  # type: ignore[attr-defined]
            self._held[node].append(handle)
            return
        self.steps += 1
        if self.steps - self._instant_began > self._instant_steps - _RECENT:
            self._recent.append(handle)
        handle._run()

    def _arranged(self, batch: list[asyncio.Handle]) -> list[asyncio.Handle]:
        """Return the same callbacks, with each contiguous run of task steps put in order by the seed."""
        if self._arrange is None or len(batch) < 2:
            self._task_steps += sum(task_of(handle) is not None for handle in batch)
            return batch
        arranged: list[asyncio.Handle] = []
        for is_step, run in itertools.groupby(batch, key=lambda handle: task_of(handle) is not None):
            steps = list(run)
            if is_step:
                self._task_steps += len(steps)
                self._arrange(steps)
            arranged += steps
        return arranged

    def _take_due(self) -> None:
        timers, now_s = self._timers, self._now_s
        while timers and timers[0][0] <= now_s:
            entry = heapq.heappop(timers)
            if len(entry) == 4:
                _, _, target, is_daemon = entry
                self._serious -= not is_daemon
                self._ready.append(asyncio.Handle(target.arrive, (), self, target.contexts[is_daemon]))
                continue
            timer = entry[2]
            if timer._cancelled:
                self._cancelled_timers -= 1
                continue
            timer._scheduled = False  # type: ignore[attr-defined]
            self._forget(timer)
            self._ready.append(timer)

    def _advance(self) -> None:
        """Move time to the next timer; raise `Stuck` when there is none, or only daemons for long."""
        if self.steps >= self._collector.due:
            self._collector.collect(self.steps)
        for listener in self.on_advance:
            listener()
        if self._ready:
            return
        timers = self._timers
        while timers and _is_cancelled(timers[0]):
            heapq.heappop(timers)
            self._cancelled_timers -= 1
        if self._serious or self._idle[0] != self._task_steps:
            self._idle = (self._task_steps, self._now_s)
        if not timers or self._now_s - self._idle[1] > STUCK_AFTER_S:
            raise Stuck(self._idle[1], self._who_waits())
        if timers[0][0] > self._now_s:
            self._now_s = timers[0][0]
            self._instant_began = self.steps

    def _who_waits(self) -> list[str]:
        explained = [line for explain in self.explain for line in explain()]
        return [*explained, *waiting_tasks(self)]

    def _busiest(self) -> list[str]:
        tasks = Counter(task.get_name() for handle in self._recent if (task := task_of(handle)) is not None)
        return [name for name, _ in tasks.most_common(3)]

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


def _is_cancelled(entry: _Timed) -> bool:
    return len(entry) == 3 and entry[2]._cancelled


def _refuse_sockets(options: dict[str, Any]) -> None:
    if options.get("sock") is not None:
        refuse("a socket")
    if options.get("ssl"):
        refuse("TLS", "Simulated links are plain")
