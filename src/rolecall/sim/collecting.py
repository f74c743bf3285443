"""Garbage collection at points that the run determines, since finalizers and weak references can change its course."""

from __future__ import annotations

import gc
from typing import Final

from rolecall.sim.huge_pages import HugePages

__all__ = ("Collector",)

_STEPS: Final = (20_000, 400_000, 8_000_000)
"""After how many steps each generation is collected."""


class Collector:
    """Collects when it is told that something is due; the automatic collection is off meanwhile."""

    def __init__(self) -> None:
        self._next = list(_STEPS)
        self._pages = HugePages()
        self.due = self._next[0]
        """After how many steps there is something to collect."""

    def collect(self, steps: int) -> None:
        """Collect the oldest generation whose time has come, `steps` steps after the beginning; at least `due`."""
        due = max(generation for generation, at in enumerate(self._next) if steps >= at)
        gc.collect(due)
        if due:
            self._pages.settle()
        for generation in range(due + 1):
            self._next[generation] = steps + _STEPS[generation]
        self.due = self._next[0]
