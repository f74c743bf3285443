"""Which call is being handled here: who calls, and which calls led to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Protocol

from rolecall.core.errors import LifecycleError
from rolecall.core.ids import RoleId

__all__ = ("CURRENT", "Handling", "caller", "chain", "progress")


class Handling(Protocol):
    """The call, task, stream or event that the current handler serves."""

    parent: Handling | None

    @property
    def caller(self) -> RoleId:
        """Who sent it."""

    @property
    def where(self) -> str:
        """The channel served, as `client1/trainer.train`."""

    @property
    def key(self) -> str:
        """What tells it from every other call on any node; it ends with ` ` and `where`."""

    def report(self, progress: Any) -> None:
        """Pass a progress report to whoever started the task."""


CURRENT: ContextVar[Handling | None] = ContextVar("rolecall_handling", default=None)


def caller() -> RoleId:
    """Return the id of the role whose message the current handler serves.

    Raises:
        LifecycleError: outside a handler (in `main` or `setup`).
    """
    handling = CURRENT.get()
    if handling is None:
        raise LifecycleError("rc.caller() was used outside a handler: only a handler has a caller.")
    return handling.caller


def progress(report: Any) -> None:
    """Report progress from a task's handler to the `TaskHandle` of whoever started it.

    The newest reports are kept when the reader is slow; nothing waits. The type is the task's `progress=`.

    Raises:
        LifecycleError: outside a task's handler.
        WrongType: the report is not of the declared type.
    """
    handling = CURRENT.get()
    if handling is None:
        raise LifecycleError("rc.progress() was used outside a task's handler.")
    handling.report(report)


def chain(handling: Handling | None) -> Iterator[Handling]:
    """Yield the calls that wait for the one being handled, innermost first."""
    while handling is not None:
        yield handling
        handling = handling.parent
