"""A regular call by the loop's own timer, which notices when the loop itself was held up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rolecall.wire.daemon import daemon

__all__ = ("Ticker",)


class Ticker:
    """Calls `on_tick` with the time every `interval_s`, and before it `on_stall` with how late it was, if it was.

    Such a delay means that this process has not been listening: no silence during it is a peer's fault.
    """

    __slots__ = ("_due_s", "_interval_s", "_on_stall", "_on_tick", "_timer")

    def __init__(self, interval_s: float, on_tick: Callable[[float], None], on_stall: Callable[[float], None]) -> None:
        self._interval_s, self._on_tick, self._on_stall = interval_s, on_tick, on_stall
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = 0.0

    def start(self) -> None:
        """Begin."""
        self._again(asyncio.get_running_loop())

    def stop(self) -> None:
        """End."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _again(self, loop: asyncio.AbstractEventLoop) -> None:
        self._due_s = loop.time() + self._interval_s
        with daemon():
            self._timer = loop.call_at(self._due_s, self._tick, loop)

    def _tick(self, loop: asyncio.AbstractEventLoop) -> None:
        now_s = loop.time()
        late_s = now_s - self._due_s
        self._again(loop)
        if late_s > self._interval_s:
            self._on_stall(late_s)
        self._on_tick(now_s)
