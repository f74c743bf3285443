"""Deadlines that say what missed them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import anyio

from rolecall.core.errors import DeadlineExceeded

__all__ = ("deadline", "note_cut")

_CUT: ContextVar[list[str] | None] = ContextVar("rolecall_cut", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[anyio.CancelScope]:
    """Give what is inside so many seconds: `with rc.deadline(5): await self.server.read(clock)`.

    It is `anyio.fail_after` with a better error. Any cancel scope of anyio sets the deadline of the calls inside it; it
    travels with them and is inherited by the calls their handlers make.

    Raises:
        DeadlineExceeded: time was up; it names the channels that had not answered.
    """
    cut: list[str] = []
    token = _CUT.set(cut)
    try:
        with anyio.move_on_after(seconds) as scope:
            yield scope
    finally:
        _CUT.reset(token)
    if scope.cancelled_caught:
        waited = ", ".join(dict.fromkeys(cut)) or "what was awaited"
        raise DeadlineExceeded(waited, seconds, "It has been cancelled")


def note_cut(channel: str) -> None:
    """Take note that a call of `channel` was left before its answer came."""
    cut = _CUT.get()
    if cut is not None:
        cut.append(channel)
