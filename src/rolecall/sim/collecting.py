"""Garbage collection at points that the run determines, since finalizers and weak references can change its course."""

from __future__ import annotations

import gc
from typing import Final

from rolecall.sim.huge_pages import HugePages

__all__ = ("Collector",)

_STEPS: Final = 20_000
_AS_MANY: Final = (1, 20, 400)
"""After how many times that each generation is collected."""
_STEPS_EACH: Final = 10
"""Or after so many steps for each timer and message under way, if that is more: before, most of what is young lives."""


class Collector:
    """Collects when it is told that something is due; the automatic collection is off meanwhile."""

    def __init__(self) -> None:
        self._next = [_STEPS * times for times in _AS_MANY]
        self._pages = HugePages()
        self.due = self._next[0]
        """After how many steps there is something to collect."""

    def collect(self, steps: int, pending: int) -> None:
        """Collect the oldest generation whose time has come, `steps` steps after the beginning; at least `due`.

        `pending` is how many timers and messages are under way.
        """
        due = max(generation for generation, at in enumerate(self._next) if steps >= at)
        gc.collect(due)
        self._pages.settle()
        apart = max(_STEPS, _STEPS_EACH * pending)
        for generation in range(due + 1):
            self._next[generation] = steps + apart * _AS_MANY[generation]
        self.due = self._next[0]
