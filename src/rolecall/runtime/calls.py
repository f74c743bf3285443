"""One message to a handler, from its sending to its end: a call, a task, a stream or an event."""

from __future__ import annotations

import asyncio
import builtins
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any, TypeGuard

import anyio

from rolecall.core.annotations import type_name
from rolecall.core.context import Handling
from rolecall.core.ends import Outcome
from rolecall.core.errors import (
    DeadlineExceeded,
    LifecycleError,
    Refused,
    RemoteError,
    RolecallError,
    RoleLost,
    Superseded,
    WrongType,
)
from rolecall.core.ids import RoleId
from rolecall.core.policies import ChannelOptions
from rolecall.core.signatures import Signature, accepted_classes

if TYPE_CHECKING:
    from rolecall.runtime.dispatcher import Worker
    from rolecall.runtime.node import Node
    from rolecall.runtime.remote import RemoteChannel
    from rolecall.wire import Segment

__all__ = ("CANCEL_WAIT_S", "Answer", "Invocation", "Port", "outlive", "portable", "stopped")

CANCEL_WAIT_S = 1.0
GRACE_S = 0.05
PROGRESS_REPORTS = 256

NEW, PARKED, WAITING, TAKEN, RUNNING, ENDED = range(6)


class Port:
    """Where messages of a channel go: its mailbox, or the link to the node that has it."""

    __slots__ = ("closed", "guarded", "kind", "name", "node", "options", "role", "signature", "where")

    def __init__(
        self, node: Node, role: RoleId, name: str, kind: str, signature: Signature, options: ChannelOptions
    ) -> None:
        self.node, self.role, self.name, self.kind = node, role, name, kind
        self.signature, self.options = signature, options
        self.guarded = options.allow is not None
        """Whether only some may send messages."""
        self.where = f"{role}.{name}"
        self.closed = False
        """Whether the role has ended."""

    def submit(self, invocation: Invocation) -> None:
        """Send a message on its way; never waits."""
        raise NotImplementedError

    def forget(self, invocation: Invocation) -> None:
        """Take a message that waits out of its turn."""
        raise NotImplementedError


class Answer:
    """How a message from another node ends: what came of it goes there at once, and only once."""

    __slots__ = ("given",)

    def __init__(self) -> None:
        self.given = False

    def finish(self, result: Any) -> None:
        """Tell the result."""
        raise NotImplementedError

    def fail(self, error: Exception) -> None:
        """Tell what went wrong."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Tell that there will be no result."""
        raise NotImplementedError


class Invocation:
    """A message with its fate.

    It is parked at the sender, waits in the mailbox, is taken by a worker, runs, and ends. A caller on this node
    awaits `future`, one on another gets the `answer`, and nobody waits for what became of an event. `admission`
    resolves when the mailbox has taken a parked message (true), or never will (false).
    """

    __slots__ = (
        "_key", "admission", "answer", "args", "attempts", "begun", "bytes", "call_id", "caller", "cancel_asked",
        "deadline", "dispatcher", "ended", "frozen", "future", "items", "kwargs", "on_ended", "order", "parent",
        "reports", "segments", "state", "worker",
    )  # fmt: skip

    def __init__(
        self,
        dispatcher: Port,
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
        self.answer: Answer | None = None
        self.state = NEW
        self._key: str | None = None
        self.bytes = 0
        self.attempts = self.call_id = self.order = 0
        self.segments: Sequence[Segment] = ()  # its arguments, on their way to another node
        self.begun = False  # with somebody who is lost
        self.cancel_asked = False
        self.worker: Worker | RemoteChannel | None = None
        self.admission: asyncio.Future[Any] | None = None
        self.ended: asyncio.Future[None] | None = None
        self.items: Any = None
        self.reports: Reports | None = None
        self.frozen: Any = None
        self.on_ended: Callable[[Invocation], None] | None = None

    @property
    def where(self) -> str:
        """The channel, as `client1/trainer.train`."""
        return self.dispatcher.where

    @property
    def key(self) -> str:
        """What tells it from every other call on any node."""
        if self._key is None:
            node = self.dispatcher.node
            self._key = f"{node.name}:{node.incarnation:x}:{node.next_number()} {self.where}"
        return self._key

    def known_as(self, key: str) -> bool:
        """Say whether that is its key; one that no other node has ever been told of has none."""
        return self._key is not None and self._key == key

    @property
    def awaited(self) -> bool:
        """Whether somebody still waits for what becomes of it."""
        if self.answer is not None:
            return not self.answer.given
        return self.future is not None and not self.future.done()

    def report(self, progress: Any) -> None:
        """Pass on a progress report, from whatever thread."""
        declared = self.dispatcher.options.progress
        if declared is None or self.dispatcher.kind != "task":
            raise LifecycleError(f"{self.where} reports progress but is not declared `@rc.task(progress=...)`.")
        if not isinstance(progress, accepted_classes(declared)):
            raise WrongType(f"{self.where}: progress", type_name(declared), type_name(type(progress)))
        if self.reports is not None:
            self.dispatcher.node.on_loop(self.reports.add, progress)

    # ------------------------------------------------------------------------------------------ ending

    def finish(self, result: Any) -> None:
        """End with a result."""
        self._end()
        if self.answer is not None:
            if not self.answer.given:
                self.answer.finish(result)
        elif self.future is not None and not self.future.done():
            self.future.set_result(result)

    def fail(self, error: Exception) -> None:
        """End with an error; where nobody waits for it, it becomes a dead letter."""
        self._end()
        if self.awaited:
            self._tell(error)
        elif not isinstance(error, Refused | Superseded):
            kind = "event" if self.future is None and self.answer is None else self.dispatcher.kind
            self.dispatcher.node.bury(kind, self.dispatcher.role, self.dispatcher.name, error)

    def lose(self, why: str, error_class: type[RoleLost] = RoleLost) -> None:
        """End because the role or its node is gone."""
        effect = "unknown" if self.begun or self.state == RUNNING else "none"
        if self.awaited:
            self.fail(error_class(self.dispatcher.role, why, effect))
        else:  # an event goes with the role that was to handle it
            self._end()

    def end_cancelled(self) -> None:
        """End without a result, since nobody wants one any more or the caller's deadline has passed."""
        late = self.deadline != inf and anyio.current_time() >= self.deadline
        if late:
            self._say_late()
        self._end()
        if not self.awaited:
            return
        if late and not self.cancel_asked:  # the caller ends by its own scope, unless that was changed
            text = f"{self.where} did not answer before the deadline it was called with."
            self._tell(DeadlineExceeded.rebuilt(text, {}))
        else:
            self._tell_nothing()

    def _tell(self, error: Exception) -> None:
        if self.answer is not None:
            self.answer.fail(error)
        elif self.future is not None:
            self.future.set_exception(error)

    def _tell_nothing(self) -> None:
        if self.answer is not None:
            self.answer.cancel()
        elif self.future is not None:
            self.future.cancel()

    def _end(self) -> None:
        if self.state == ENDED:
            return
        self.state = ENDED
        self.parent = None
        if self.reports is not None:
            self.reports.close()
        if self.items is not None:
            self.items.close()
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)
        if self.admission is not None and not self.admission.done():
            self.admission.set_result(False)
        if self.on_ended is not None:
            self.on_ended(self)

    def _say_late(self) -> None:
        passed = f"the deadline of its caller {self.caller} passed"
        running = self.state == RUNNING
        text = f"was cancelled: {passed} while it ran" if running else f"was not handled: {passed} while it waited"
        self.dispatcher.node.say("warning", self.where, text)

    # ------------------------------------------------------------------------------------------ cancelling

    def cancel(self) -> None:
        """Give it up: nobody wants an answer any more."""
        if self.awaited:
            self._tell_nothing()
        elif self.future is not None and not self.future.cancelled():
            self.future.exception()  # it came at the same moment, and nobody will ask for it
        self.stop()

    def stop(self) -> None:
        """Ask for the end: at once where it waits, at its next await where it runs."""
        if self.state == ENDED or self.cancel_asked:
            return
        self.cancel_asked = True
        if self.state == RUNNING:
            if self.worker is not None:
                self.worker.interrupt(self)
            return
        if self.state in (WAITING, PARKED):
            self.dispatcher.forget(self)
        self.end_cancelled()

    def let_go(self) -> asyncio.Future[None]:
        """Return what resolves when no worker holds it any more: ended, or put back at a safe point."""
        if self.ended is None:
            self.ended = asyncio.get_running_loop().create_future()
        return self.ended

    def put_back(self) -> None:
        """Wait again, to be entered anew."""
        self.state = WAITING
        if self.ended is not None:
            self.ended.set_result(None)
            self.ended = None

    async def outcome(self) -> Outcome:
        """Cancel and say what became of it."""
        self.stop()
        await stopped(self)
        if self.state != ENDED:
            return Outcome.UNKNOWN
        if self.future is None or not self.future.done() or self.future.cancelled():
            return Outcome.CANCELLED
        error = self.future.exception()
        if isinstance(error, RoleLost):
            return Outcome.UNKNOWN if error.effect == "unknown" else Outcome.CANCELLED
        return Outcome.FINISHED if error is None else Outcome.FAILED


async def stopped(*invocations: Invocation) -> None:
    """Wait until the handlers have stopped, 1 s in all, and say which have not."""
    left = [invocation for invocation in invocations if invocation.state != ENDED]
    if not left:
        return
    with anyio.CancelScope(shield=True), anyio.move_on_after(CANCEL_WAIT_S):
        await asyncio.wait([invocation.let_go() for invocation in left])
    for invocation in left:
        if invocation.state != ENDED:
            invocation.dispatcher.node.say(
                "warning", invocation.where,
                f"has not stopped {CANCEL_WAIT_S:g} s after it was cancelled; the channel is busy until it has",
            )  # fmt: skip


async def outlive(deadline: float) -> None:
    """Before an error is raised: let the scope whose deadline has passed end the caller, as it is about to.

    The timers of both ends of a call fire in either order. Where the scope was changed since, the error will do.
    """
    if anyio.current_time() >= deadline:
        await anyio.sleep(GRACE_S)


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

    def __aiter__(self) -> Reports:
        return self

    async def __anext__(self) -> Any:
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


def portable(error: BaseException, where: str) -> Exception:
    """Return the error as any caller would see it: known types as they are, others as `RemoteError`."""
    if isinstance(error, RolecallError) or _is_plain(error):
        note = f"raised by {where}"
        if not isinstance(error, Refused) and note not in getattr(error, "__notes__", ()):
            error.add_note(note)
        return error
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    wrapped = RemoteError(name, _message(error), where, _traceback(error))
    wrapped.__cause__ = error
    return wrapped


def _is_plain(error: BaseException) -> TypeGuard[Exception]:
    """Whether it is one of Python's own errors, made of text and numbers, that may cross a call."""
    kind = type(error)
    known = getattr(builtins, kind.__name__, None) is kind and isinstance(error, Exception)
    return known and not isinstance(error, StopIteration | StopAsyncIteration | ExceptionGroup)


def _message(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return f"{error.message}: " + "; ".join(f"{type(e).__name__}: {_message(e)}" for e in error.exceptions)
    try:
        return str(error)
    except Exception as problem:
        return f"(its message cannot be shown: {type(problem).__name__})"


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
