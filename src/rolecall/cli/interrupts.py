"""Ctrl-C and SIGTERM: the first ends a run in good order, the second at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any, TypeVar

import anyio

from rolecall.cli.failures import Aborted

__all__ = ("Interrupts",)

T = TypeVar("T")

_GRACE_S = 2.0
"""How long an aborted run may take to come down before the process ends without asking it."""


class Interrupts(AbstractContextManager["Interrupts"]):
    """Turn signals into a drain, then an abort, of the run that `run` awaits.

    `notice` is told what the first signal did; `last_words` gets the exit code when the aborted run does not
    come down within 2 s (a worker thread that never looks up, a handler that blocks the loop) and the process
    is about to end. Use it as a context manager around the whole event loop, in the main thread; in another
    thread it changes nothing.

    Plain signal handlers rather than the loop's own: they also run while a handler blocks the loop.
    """

    def __init__(self, notice: Callable[[str], None], last_words: Callable[[int], None]) -> None:
        self._notice = notice
        self._last_words = last_words
        self._before: dict[int, Any] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: anyio.Event | None = None
        self._scope: anyio.CancelScope | None = None
        self._asked = False
        self._signal: int | None = None
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._timer is not None:
            self._timer.cancel()  # the run came down by itself

    async def run(self, body: Callable[[anyio.Event], Awaitable[T]]) -> T:
        """Await `body(stop)`, where `stop` is set by the first signal; raise `Aborted` after the second."""
        self._loop = asyncio.get_running_loop()
        self._stop = anyio.Event()
        with anyio.CancelScope() as self._scope:
            if self._asked:
                self._stop.set()
            return await body(self._stop)
        raise Aborted(self._signal or signal.SIGINT)

    def stop(self) -> None:
        """Ask the run to end in good order; from any thread, at any time, any number of times."""
        self._asked = True
        if self._loop is not None and self._stop is not None:
            self._soon(self._loop, self._stop.set)

    def _received(self, number: int, frame: FrameType | None) -> None:
        if self._loop is None:
            raise Aborted(number)  # nothing runs yet, so there is nothing to drain
        if self._signal is None:
            self._signal = number
            self.stop()
            self._notice("Stopping in good order; once more to abort.")
        else:
            self._signal = number
            self._abort(self._loop, Aborted(number).exit_code)

    def _abort(self, loop: asyncio.AbstractEventLoop, exit_code: int) -> None:
        if self._timer is None:
            self._timer = threading.Timer(_GRACE_S, self._end, [exit_code])
            self._timer.daemon = True
            self._timer.start()
        if self._scope is not None:
            self._soon(loop, self._scope.cancel)

    def _end(self, exit_code: int) -> None:
        try:
            self._last_words(exit_code)
        finally:
            os._exit(exit_code)

    @staticmethod
    def _soon(loop: asyncio.AbstractEventLoop, act: Callable[[], object]) -> None:
        try:
            loop.call_soon_threadsafe(act)
        except RuntimeError:
            pass  # the loop has closed: the run is over
