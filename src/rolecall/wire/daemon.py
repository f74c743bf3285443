"""Timers that are no sign of life: a world in which only they are left will never do anything again.

Heartbeats and the like go on for ever. The simulator tells a run that waits in vain from one that waits for something
by not counting them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ("DAEMON", "daemon")

DAEMON: ContextVar[bool] = ContextVar("rolecall_daemon", default=False)
"""Whether what is scheduled now goes on by itself, and nobody waits for it."""


@contextmanager
def daemon(is_daemon: bool = True) -> Iterator[None]:
    """Mark what is scheduled inside, and what that schedules in turn, as background work (or as none)."""
    token = DAEMON.set(is_daemon)
    try:
        yield
    finally:
        DAEMON.reset(token)
