"""The watchdog: a thread that notices when the event loop stands still, and names the handler to blame."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self

import msgspec

__all__ = ("Blockage", "Watchdog")

BLOCKED_S = 0.5


class Blockage(msgspec.Struct, frozen=True):
    """The loop stood still: in which task (named after its channel), where in the code, how long so far."""

    task: str
    place: str
    blocked_s: float

    def __str__(self) -> str:
        return (
            f"blocks the event loop for more than {self.blocked_s:.2f} s at {self.place}. Await instead, or "
            "run the work in a "
            "thread with `await self.compute(...)`."
        )


class Watchdog:
    """Watches the running loop from a thread of its own while it is entered.

    Args:
        tell: called on the loop, once it moves again, with each blockage.
        blocked_s: how long the loop may stand still.
    """

    def __init__(self, tell: Callable[[Blockage], None], blocked_s: float = BLOCKED_S) -> None:
        self._tell, self._blocked_s = tell, blocked_s
        self._stop = threading.Event()
        self._beat_s = 0.0

    def __enter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._beat_s = time.monotonic()
        self._timer = self._loop.call_soon(self._beat)
        self._thread = threading.Thread(target=self._watch, name="rolecall-watchdog", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        self._stop.set()
        self._thread.join(timeout=2 * self._blocked_s)

    def _beat(self) -> None:
        self._beat_s = time.monotonic()
        self._timer = self._loop.call_later(self._blocked_s / 4, self._beat)

    def _watch(self) -> None:
        reported_s = 0.0
        while not self._stop.wait(self._blocked_s / 4):
            beat_s = self._beat_s
            if beat_s != reported_s and time.monotonic() - beat_s > self._blocked_s:
                reported_s = beat_s
                self._report()

    def _report(self) -> None:
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._loop_thread)
        if task is None or frame is None:
            return
        blockage = Blockage(task.get_name(), _place(frame), self._blocked_s)
        self._loop.call_soon_threadsafe(self._tell, blockage)


def _place(frame: FrameType) -> str:
    """Return where the innermost code outside the standard library and installed packages is."""
    stack = traceback.extract_stack(frame)
    own = [f for f in stack if "site-packages" not in f.filename and "/lib/python" not in f.filename]
    innermost = (own or list(stack))[-1]
    return f"{innermost.filename}:{innermost.lineno} in {innermost.name}"
