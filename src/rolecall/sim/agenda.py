"""What happens in a virtual world, and in which order: what is ready, and then, with time moved on, what is due."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any, Final

from rolecall.core.place import HERE
from rolecall.sim.collecting import Collector
from rolecall.sim.errors import Endless, Stuck
from rolecall.sim.order import Arrange, task_of
from rolecall.sim.timers import DAEMON_ARRIVAL, SERIOUS_ARRIVAL, SERIOUS_TIMER, Kind, Timers
from rolecall.wire.daemon import DAEMON

__all__ = ("Agenda", "Arriving")

STUCK_AFTER_S: Final = 60.0
"""How long only daemon timers may go off, and no task take a step, until the world is held to be stuck."""
_RECENT: Final = 1_000


class Arriving:
    """What is called again and again at times of the world, and needs no timer of its own for each."""

    __slots__ = ("_context", "_daemon_context")

    def __init__(self, contexts: tuple[Context, Context]) -> None:
        self._context, self._daemon_context = contexts

    def context(self, kind: Kind) -> Context:
        """Return what it arrives in."""
        return self._daemon_context if kind == DAEMON_ARRIVAL else self._context

    def arrive(self) -> None:
        """Do what is due."""
        raise NotImplementedError


class Agenda:
    """Runs what a virtual loop is to run, and moves its time.

    Args:
        loop: is told of what fails; what is ready is in its `_ready`, as in any loop of asyncio.
        arrange: puts task steps that are ready at once into order, if it is not None.
        instant_steps: how many steps may be taken without time moving.
        who_waits: returns lines about who waits for what, for `Stuck`.
    """

    __slots__ = (
        "_arrange", "_collector", "_held", "_idle_s", "_idle_steps", "_instant_began", "_instant_steps", "_loop",
        "_ready", "_recent", "_task_steps", "_who_waits", "now_s", "on_advance", "steps", "timers",
    )  # fmt: skip

    def __init__(
        self, loop: Any, arrange: Arrange | None, instant_steps: int, who_waits: Callable[[], list[str]]
    ) -> None:
        self._loop, self._arrange, self._who_waits = loop, arrange, who_waits
        self._ready: deque[asyncio.Handle] = loop._ready
        self.now_s = 0.0
        """The time of the world, in seconds since it began."""
        self.steps = 0
        """How many callbacks and task steps have been run."""
        self.timers = Timers()
        self.on_advance: list[Callable[[], None]] = []
        """Called each time that time is about to move: all that could happen at this instant has happened."""
        self._instant_steps, self._instant_began = instant_steps, 0
        self._recent: deque[asyncio.Handle] = deque(maxlen=_RECENT)
        self._task_steps = self._idle_steps = 0
        self._idle_s = 0.0
        self._held: dict[str | None, list[asyncio.Handle]] = {}
        self._collector = Collector()

    def arrive_at(self, when_s: float, target: Arriving) -> None:
        """Have something arrive at a time of the world; unlike a timer this cannot be taken back."""
        self.timers.add(when_s, target, DAEMON_ARRIVAL if DAEMON.get() else SERIOUS_ARRIVAL)

    # ------------------------------------------------------------------------------------------ nodes that stand still

    def pause(self, node: str) -> None:
        """Have nothing of a node run until `resume`."""
        self._held.setdefault(node, [])

    def resume(self, node: str) -> None:
        """Run what was held back, in order, and go on."""
        self._ready.extend(self._held.pop(node, ()))

    # ------------------------------------------------------------------------------------------ running

    def turn(self) -> None:
        """Do what is ready; if nothing is, move time to the next timer first."""
        ready, timers = self._ready, self.timers
        while not ready and not self._loop._stopping:
            self._advance()
            if ready or self._held or not timers.one_arrives(self.now_s):
                break
            self._arrive()
            self._require_end()
        if timers.next_s <= self.now_s:
            self._take_due()
        if len(ready) == 1:  # most often, where latencies differ
            self._run_one(ready.popleft())
        elif ready:
            self._run_all(ready)
        self._require_end()

    def _arrive(self) -> None:
        """Run what arrives now at once."""
        _, _, what, kind = self.timers.pop()
        target: Arriving = what
        self.steps += 1
        try:
            target.context(kind).run(target.arrive)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:
            told = {"message": f"something failed as it arrived: {target!r}", "exception": error}
            self._loop.call_exception_handler(told)

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
            for handle in batch:
                self._task_steps += task_of(handle) is not None
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
        while self.timers.next_s <= self.now_s:
            _, _, what, kind = self.timers.pop()
            if kind < SERIOUS_TIMER:
                target: Arriving = what
                self._ready.append(asyncio.Handle(target.arrive, (), self._loop, target.context(kind)))
            elif not what._cancelled:
                what._scheduled = False
                self._ready.append(what)

    def _advance(self) -> None:
        """Move time to the next timer; raise `Stuck` when there is none, or only daemons for long."""
        timers = self.timers
        if self.steps >= self._collector.due:
            self._collector.collect(self.steps, timers.size)
        for listener in self.on_advance:
            listener()
        if self._ready:
            return
        timers.skip_cancelled()
        if timers.serious or self._idle_steps != self._task_steps:
            self._idle_steps, self._idle_s = self._task_steps, self.now_s
        if not timers.size or self.now_s - self._idle_s > STUCK_AFTER_S:
            raise Stuck(self._idle_s, self._who_waits())
        if timers.next_s > self.now_s:
            self.now_s = timers.next_s
            self._instant_began = self.steps

    def _require_end(self) -> None:
        """Raise `Endless` when all too much has happened at this instant."""
        steps = self.steps - self._instant_began
        if steps > self._instant_steps:
            self._instant_began = self.steps
            raise Endless(self.now_s, steps, self._busiest())

    def _busiest(self) -> Sequence[str]:
        tasks = Counter(task.get_name() for handle in self._recent if (task := task_of(handle)) is not None)
        return [name for name, _ in tasks.most_common(3)]
