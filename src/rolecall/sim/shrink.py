"""Finds the little that matters in a schedule of faults under which something fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from rolecall.sim.faults import Fault, Partition
from rolecall.sim.schedule import Schedule, Timed

__all__ = ("Shrunk", "shrink")


class Shrunk(msgspec.Struct, frozen=True):
    """A schedule that still fails, how many runs that took, and whether nothing simpler was found in them."""

    schedule: Schedule
    runs: int
    is_minimal: bool


class _OutOfRuns(Exception):
    """Raised when the budget is spent."""


def shrink(schedule: Schedule, fails: Callable[[Schedule], bool], *, runs_max: int = 200) -> Shrunk:
    """Return a schedule with fewer, shorter and rounder faults for which `fails` still says True.

    First whole faults are left out, by delta debugging (Zeller and Hildebrandt, "Simplifying and isolating
    failure-inducing input", 2002: ddmin), then those that are left are simplified one by one.

    Args:
        schedule: one that fails.
        fails: runs the world with a schedule, from the same seed, and says whether it fails in the same way.
        runs_max: how often `fails` may be asked; what has been found by then is returned.
    """
    search = _Search(schedule, fails, runs_max)
    try:
        search.leave_out()
        while search.simplify():
            search.leave_out()
    except _OutOfRuns:
        return Shrunk(search.best, search.runs, is_minimal=False)
    return Shrunk(search.best, search.runs, is_minimal=True)


class _Search:
    def __init__(self, schedule: Schedule, fails: Callable[[Schedule], bool], runs_max: int) -> None:
        self.best, self.runs = schedule, 0
        self._fails, self._runs_max = fails, runs_max
        self._known: dict[str, bool] = {}

    def leave_out(self) -> None:
        """Leave out as many faults as possible: all, then halves of them, then smaller parts."""
        if self._try(Schedule()):
            return
        parts = 2
        while len(self.best.faults) >= 2:
            faults = self.best.faults
            parts = min(parts, len(faults))
            bounds = [len(faults) * i // parts for i in range(parts + 1)]
            chunks = [(bounds[i], bounds[i + 1]) for i in range(parts)]
            if any(self._try(Schedule((*faults[:start], *faults[end:]))) for start, end in chunks):
                parts = max(parts - 1, 2)
            elif parts == len(faults):
                return
            else:
                parts *= 2

    def simplify(self) -> bool:
        """Try simpler forms of each fault; return whether one was found."""
        found = False
        for index in range(len(self.best.faults)):
            if index < len(self.best.faults):
                found = self._simplify_one(index) or found
        return found

    def _simplify_one(self, index: int) -> bool:
        faults = self.best.faults
        for simpler in _simpler(faults[index]):
            if self._try(Schedule((*faults[:index], simpler, *faults[index + 1 :]))):
                return True
        return False

    def _try(self, schedule: Schedule) -> bool:
        """Run a schedule, unless that has been done; keep it if it fails."""
        key = schedule.to_json()
        if key not in self._known:
            if self.runs >= self._runs_max:
                raise _OutOfRuns
            self.runs += 1
            self._known[key] = self._fails(schedule)
        if self._known[key]:
            self.best = schedule
        return self._known[key]


def _simpler(timed: Timed) -> Iterator[Timed]:
    """Yield simpler forms of a fault, the simplest first; none of them leads back to it."""
    for digits in (0, 1, 2):
        rounded = round(timed.at_s, digits)
        if rounded != timed.at_s:
            yield Timed(rounded, timed.fault)
    for fault in _plainer(timed.fault):
        yield Timed(timed.at_s, fault)


def _plainer(fault: Fault) -> Iterator[Fault]:
    for_s = getattr(fault, "for_s", None)
    if for_s is not None:
        for shorter_s in (round(for_s, 1), round(for_s / 2, 2)):
            if 0 < shorter_s < for_s:
                yield msgspec.structs.replace(fault, for_s=shorter_s)
    if isinstance(fault, Partition) and len(fault.groups) == 2 and len(fault.groups[0]) > 1:
        alone, others = fault.groups
        for node in alone:  # fewer and fewer on the one side, so that it does not go to and fro
            left = tuple(each for each in alone if each != node)
            yield msgspec.structs.replace(fault, groups=(left, tuple(sorted((*others, node)))))
