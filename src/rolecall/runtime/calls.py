"""One message to a handler, from its sending to its end: a call, a task, a stream or an event."""

from __future__ import annotations

import asyncio
import builtins
import traceback
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

import anyio

from rolecall.core.annotations import type_name
from rolecall.core.context import Handling
from rolecall.core.ends import Outcome
from rolecall.core.errors import (
    LifecycleError,
    Refused,
    RemoteError,
    RolecallError,
    RoleLost,
    Superseded,
    WrongType,
)
from rolecall.core.ids import RoleId

if TYPE_CHECKING:
    from rolecall.runtime.dispatcher import Dispatcher, Worker

__all__ = ("CANCEL_WAIT_S", "Invocation", "portable")

CANCEL_WAIT_S = 1.0
PROGRESS_REPORTS = 256

NEW, PARKED, WAITING, RUNNING, ENDED = range(5)


class Invocation:
    """A message with its fate: parked at the sender, waiting in the mailbox, running, or ended.

    The caller awaits `future`; `admitted` resolves when the mailbox has taken the message.
    """

    __slots__ = (
        "admission", "args", "bytes", "caller", "cancel_asked", "deadline", "dispatcher", "ended",
        "frozen", "future",
        "items", "kwargs", "on_ended", "parent", "reports", "state", "worker",
    )  # fmt: skip

    def __init__(
        self,
        dispatcher: Dispatcher,
        caller: RoleId,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        *,
        future: asyncio.Future[Any] | None = None,
        parent: Handling | None = None,
        deadline: float = inf,
    ) -> None:
        self.dispatcher, self.caller, self.args, self.kwargs = dispatcher, caller, args, kwargs
        self.future, self.parent, self.deadline = future, parent, deadline
        self.state = NEW
        self.bytes = 0
        self.cancel_asked = False
        self.worker: Worker | None = None
        self.admission: asyncio.Future[None] | None = None
        self.ended: asyncio.Future[None] | None = None
        self.items: Any = None
        self.reports: Reports | None = None
        self.frozen: Any = None
        self.on_ended: Callable[[Invocation], None] | None = None

    @property
    def where(self) -> str:
        """The channel, as `client1/trainer.train`."""
        return self.dispatcher.where

    def report(self, progress: Any) -> None:
        """Pass on a progress report."""
        declared = self.dispatcher.options.progress
        if declared is None or self.dispatcher.kind != "task":
            raise LifecycleError(
                f"{self.where} reports progress but is not declared `@rc.task(progress=...)`."
            )
        if isinstance(declared, type) and not isinstance(progress, declared):
            raise WrongType(f"{self.where}: progress", type_name(declared), type_name(type(progress)))
        if self.reports is not None:
            self.reports.add(progress)

    # ------------------------------------------------------------------------------------------ ending

    def finish(self, result: Any) -> None:
        """End with a result."""
        self._end()
        if self.future is not None and not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """End with an error; where nobody waits for it, it becomes a dead letter."""
        self._end()
        if self.future is None:
            self._bury(error)
        elif not self.future.done():
            self.future.set_exception(error)
        elif not self.cancel_asked:
            self._bury(error)

    def end_cancelled(self) -> None:
        """End without a result or an error, since nobody wants one."""
        self._end()
        if self.future is not None:
            self.future.cancel()

    def lose(self, why: str, error_class: type[RoleLost] = RoleLost) -> None:
        """End because the role or its node is gone."""
        effect = "unknown" if self.state == RUNNING else "none"
        self.fail(error_class(self.dispatcher.instance.id, why, effect))

    def _end(self) -> None:
        self.state = ENDED
        self.parent = None
        if self.reports is not None:
            self.reports.close()
        if self.items is not None:
            self.items.close()
        for waiter in (self.ended, self.admission):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)
        if self.on_ended is not None:
            self.on_ended(self)

    def _bury(self, error: Exception) -> None:
        # An event that gave way to newer ones did so because its subscriber asked for it.
        gave_way = self.future is None and isinstance(error, Superseded)
        if not isinstance(error, Refused) and not gave_way:
            kind = "event" if self.future is None else self.dispatcher.kind
            self.dispatcher.instance.node.bury(kind, self.dispatcher.instance.id, self.dispatcher.name, error)

    # ------------------------------------------------------------------------------------------ cancelling

    def cancel(self) -> None:
        """Ask for the end: at once where it waits, at its next await where it runs."""
        if self.state == ENDED or self.cancel_asked:
            return
        self.cancel_asked = True
        if self.state in (WAITING, PARKED):
            self.dispatcher.forget(self)
            self.end_cancelled()
        elif self.worker is not None:
            self.worker.interrupt(self)

    async def stopped(self) -> bool:
        """Wait until the handler has stopped, 1 s at most; return whether it has."""
        if self.state == ENDED:
            return True
        if self.ended is None:
            self.ended = asyncio.get_running_loop().create_future()
        with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_WAIT_S):
            await asyncio.shield(self.ended)
        return self.ended.done()

    async def outcome(self) -> Outcome:
        """Cancel and say what became of it."""
        self.cancel()
        if not await self.stopped():
            return Outcome.UNKNOWN
        if self.future is None or self.future.cancelled() or not self.future.done():
            return Outcome.CANCELLED
        return Outcome.FAILED if self.future.exception() is not None else Outcome.FINISHED


class Reports:
    """The newest progress reports of a task and whoever waits for the next."""

    def __init__(self) -> None:
        self.waiting: deque[Any] = deque(maxlen=PROGRESS_REPORTS)
        self.closed = False
        self._news: asyncio.Future[None] | None = None

    def add(self, report: Any) -> None:
        """Keep a report, dropping the oldest of too many."""
        self.waiting.append(report)
        self._tell()

    def close(self) -> None:
        """Say that no more will come."""
        self.closed = True
        self._tell()

    async def next(self) -> Any:
        """Return the next report; raise `StopAsyncIteration` when the task has ended."""
        while not self.waiting:
            if self.closed:
                raise StopAsyncIteration
            if self._news is None or self._news.done():
                self._news = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._news)
        return self.waiting.popleft()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


def portable(error: Exception, where: str) -> Exception:
    """Return the error as any caller would see it: known types as they are, others as `RemoteError`."""
    kind = type(error)
    if isinstance(error, RolecallError) or getattr(builtins, kind.__name__, None) is kind:
        note = f"raised by {where}"
        if not isinstance(error, Refused) and note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        return error
    text = "".join(traceback.format_exception(error))
    wrapped = RemoteError(f"{kind.__module__}.{kind.__qualname__}", str(error), where, text)
    wrapped.__cause__ = error
    return wrapped
