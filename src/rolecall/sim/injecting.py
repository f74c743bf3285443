"""Puts faults into effect, and ends them; where several of a kind overlap, the effect lasts until the last ends."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any, TypeAlias

from rolecall.sim.courier import Timeline
from rolecall.sim.faults import (
    Crash,
    Cut,
    DiskFull,
    Fault,
    Faulty,
    Heal,
    Isolate,
    Partition,
    Pause,
    Restart,
    Skew,
    Slow,
    StateKind,
)  # fmt: skip

__all__ = ("Injector",)

End: TypeAlias = Callable[[], None]


class Injector:
    """Applies faults to a world; `tell` hears of each that begins, and of each that ends by itself."""

    def __init__(
        self, world: Faulty, timeline: Timeline, tell: Callable[[str, Fault], None] = lambda what, fault: None
    ) -> None:
        self._world, self._timeline, self._tell = world, timeline, tell
        self._down: dict[str, object] = {}
        self._paused: dict[str, list[object]] = defaultdict(list)
        self._slow: dict[str, dict[object, float]] = defaultdict(dict)
        self._full: dict[str, dict[object, int]] = defaultdict(dict)

    @property
    def down(self) -> list[str]:
        """The nodes that have crashed and not come back."""
        return list(self._down)

    def at(self, at_s: float, fault: Fault) -> None:
        """Have a fault begin at a time of the world."""
        self._timeline.at(max(at_s, self._timeline.now_s()), None, self.begin, fault)

    def begin(self, fault: Fault) -> None:
        """Have a fault begin now, and end when it should."""
        self._tell("begin", fault)
        end = self._begun(fault)
        for_s = getattr(fault, "for_s", None)
        if end is not None and for_s is not None:
            self._timeline.at(self._timeline.now_s() + for_s, None, self._end, fault, end)

    def _end(self, fault: Fault, end: End) -> None:
        self._tell("end", fault)
        end()

    def _begun(self, fault: Fault) -> End | None:
        world = self._world
        match fault:
            case Crash():
                return self._crash(fault)
            case Restart():
                self._restart(fault.node, fault.state, self._down.get(fault.node))
            case Pause():
                return self._pause(fault)
            case Slow():
                return self._apply(self._slow[fault.node], fault.factor, partial(self._set_slow, fault.node))
            case DiskFull():
                return self._apply(self._full[fault.node], fault.free_bytes, partial(self._set_disk, fault.node))
            case Skew():
                world.skew(fault.node, fault.offset_s, fault.rate)
            case Cut():
                return partial(world.mend, world.cut(fault.a, fault.b, both=fault.both, how=fault.how))
            case Isolate():
                return partial(world.mend, world.isolate(fault.node, how=fault.how))
            case Partition():
                return partial(world.mend, world.partition(fault.groups, how=fault.how))
            case Heal():
                world.heal(fault.a, fault.b)
        return None

    def _crash(self, fault: Crash) -> End | None:
        if fault.node in self._down:
            return None
        life = self._down[fault.node] = object()
        self._world.crash(fault.node, how=fault.how)
        return partial(self._restart, fault.node, fault.state, life)

    def _restart(self, node: str, state: StateKind, life: object | None) -> None:
        """Have a node come back, unless it has done so since that life of it ended."""
        if life is not None and self._down.get(node) is life:
            del self._down[node]
            self._world.restart(node, state=state)

    def _pause(self, fault: Pause) -> End:
        token = object()
        self._paused[fault.node].append(token)
        if len(self._paused[fault.node]) == 1:
            self._world.pause(fault.node)
        return partial(self._resume, fault.node, token)

    def _resume(self, node: str, token: object) -> None:
        self._paused[node].remove(token)
        if not self._paused[node]:
            self._world.resume(node)

    def _apply(self, active: dict[object, Any], value: Any, update: Callable[[], None]) -> End:
        token = object()
        active[token] = value
        update()

        def end() -> None:
            del active[token]
            update()

        return end

    def _set_slow(self, node: str) -> None:
        self._world.slow(node, prod(self._slow[node].values(), start=1.0))

    def _set_disk(self, node: str) -> None:
        self._world.fill_disk(node, min(self._full[node].values(), default=None))
