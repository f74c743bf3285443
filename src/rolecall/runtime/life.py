"""The life of a role: the statuses it goes through, and its tasks, none of which outlives it."""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from rolecall.core.context import CURRENT
from rolecall.core.errors import LifecycleError, NodeLost, RoleLost
from rolecall.core.ids import RoleId
from rolecall.core.on_use import OnUse
from rolecall.core.place import context_of
from rolecall.core.records import StatusChange
from rolecall.core.role import Role
from rolecall.core.safe_points import Parked, is_parked
from rolecall.core.status import Status
from rolecall.runtime.calls import CANCEL_WAIT_S, ENDED, Invocation
from rolecall.runtime.signals import Signal

if TYPE_CHECKING:
    from anyio.abc import TaskGroup

    from rolecall.runtime.node import Node

__all__ = ("RoleLife",)

TEARDOWN_S = 10.0


class RoleLife(ABC):
    """A role from its start to its end; what it is made of, and what its messages are, derived classes know."""

    __slots__ = (
        "_begun", "_early", "_end", "_ended_", "_over_", "_resumed_", "_starting", "_tasks", "draining", "id", "node",
        "node_lost", "role", "since_s", "status", "takes_work", "why_lost",
    )  # fmt: skip

    role: Role
    _ended = OnUse(Signal)
    _resumed = OnUse(Signal)
    _over = OnUse(Signal)

    def __init__(self, node: Node, id: RoleId) -> None:
        self.node, self.id = node, id
        self.status = Status.DECLARED
        self.since_s = node.time_s
        self.takes_work = False
        self.draining = False
        self.node_lost = False
        self.why_lost = "it has stopped"
        self._tasks: TaskGroup | None = None
        self._begun = False
        self._early: tuple[tuple[Callable[[], Coroutine[Any, Any, Any]], str], ...] = ()
        self._end = Signal()
        self._starting: anyio.CancelScope | None = None

    # ------------------------------------------------------------------------------------------ of what it is

    @abstractmethod
    async def _prepare(self) -> None:
        """Have all that `setup()` may use: elements, state, subscriptions."""

    @abstractmethod
    async def _save(self) -> None:
        """Save the elements, after `teardown()`."""

    @property
    @abstractmethod
    def running(self) -> list[Invocation]:
        """The messages that are being handled, on all channels."""

    @abstractmethod
    def _wake(self) -> None:
        """Have the messages handled that wait."""

    @abstractmethod
    def _let_go(self, why: str, error_class: type[RoleLost]) -> None:
        """End what is handled and what waits; nothing is taken any more."""

    @abstractmethod
    def _be_gone(self) -> None:
        """Have the node and the other roles know that the role is gone."""

    # ------------------------------------------------------------------------------------------ tasks

    async def live(self) -> None:
        """Keep the tasks of the role until it ends; nothing of a role outlives this.

        A cancellation of what is around the node does not reach them: the node stops its roles then, in order.
        """
        try:
            async with anyio.create_task_group() as self._tasks:
                self._tasks.cancel_scope.shield = True
                early, self._early = self._early, ()
                for function, name in early:
                    self.spawn(function, name)
                await self._end.wait()
                self._tasks.cancel_scope.cancel()
        finally:
            self._ended.set()

    def spawn(self, function: Callable[[], Coroutine[Any, Any, Any]], name: str) -> None:
        """Start a task of the role, in a context of its own: nothing of the caller's leaks into it."""
        if self._tasks is not None:
            _ = context_of(self.node.name).run(functools.partial(self._tasks.start_soon, function, name=name))
            return
        self._early += ((function, name),)
        if not self._begun:  # many roles never have a task, and a node may be one of thousands
            self._begun = True
            self.node.spawn(self.live, str(self.id))

    # ------------------------------------------------------------------------------------------ statuses

    async def start(self) -> None:
        """Load elements, restore state, subscribe and set up; afterwards the role handles messages.

        Raises:
            Exception: whatever loading or `setup()` raised; the role is `failed` then.
        """
        await anyio.lowlevel.checkpoint()
        if self.status is not Status.DECLARED:
            raise LifecycleError(f"{self.id} cannot start: it is {self.status.value}.")
        self._enter(Status.STARTING)
        try:
            with anyio.CancelScope() as self._starting:
                await self._prepare()
                await self.role.setup()
        except Exception as error:
            await self.fail(f"setup failed: {error}")
            raise
        finally:
            self._starting = None
        if self._end.is_set():
            raise self.lost_error("none")
        self._enter(Status.READY)
        self._take_work()

    @property
    def has_main(self) -> bool:
        """Whether the role has a main routine of its own."""
        return type(self.role).main is not Role.main

    def start_main(self, ended: Callable[[Exception | None], None]) -> None:
        """Start the main routine and tell when it has ended, and with which error if it failed."""

        async def run() -> None:
            failure: Exception | None = None
            try:
                await self.role.main()
            except Exception as error:
                failure = error
            except BaseException as error:
                if not is_parked(error):
                    raise
            finally:
                ended(failure)

        self.spawn(run, f"{self.id}.main")

    async def pause(self) -> None:
        """Stop taking new work and wait until the running handlers have ended or reached their safe point."""
        if self.status is not Status.READY:
            raise LifecycleError(f"{self.id} cannot pause: it is {self.status.value}.")
        self.takes_work = False
        self._resumed = Signal()
        self._enter(Status.PAUSING)
        try:
            await self._quiet()
        except BaseException:  # whoever wanted the pause does not any more
            if self._is(Status.PAUSING):
                self._go_on()
            raise
        if not self._is(Status.PAUSING):
            raise self.lost_error("none")
        self._enter(Status.PAUSED)

    async def _quiet(self) -> None:
        """Wait until no message is being handled."""
        while self._is(Status.PAUSING) and (running := self.running):
            if running[0].state == ENDED:
                await anyio.lowlevel.checkpoint()  # its worker is about to let go of it
            else:
                await asyncio.wait([running[0].let_go()])

    async def resume(self) -> None:
        """Take work again."""
        if self.status is not Status.PAUSED:
            raise LifecycleError(f"{self.id} cannot resume: it is {self.status.value}.")
        self._go_on()

    def _go_on(self) -> None:
        self._enter(Status.RESUMING)
        self._enter(Status.READY)
        self._take_work()
        self._resumed.set()

    async def stop(self) -> None:
        """End the role: what waits is lost, what runs is cancelled, `teardown()` runs, elements are saved."""
        if self.status is Status.STOPPING:
            await self._over.wait()
        if self.status.over:
            return
        was_set_up = self.status not in (Status.DECLARED, Status.STARTING)
        self._enter(Status.STOPPING)
        with anyio.CancelScope(shield=True):  # begun, it is done: who asked may have gone
            await self._end_tasks("it has stopped")
            if was_set_up:
                await self._tear_down()
        if not self.status.over:
            self._enter(Status.STOPPED)

    async def fail(self, why: str) -> None:
        """End the role because it cannot go on."""
        if not self._end.is_set():
            self._enter(Status.FAILED)
            with anyio.CancelScope(shield=True):
                await self._end_tasks(why)

    def lose(self, why: str, error_class: type[RoleLost]) -> None:
        """End at once and without teardown, as in a crash."""
        self.node_lost = error_class is not RoleLost
        self._close(why, error_class)
        self._enter(Status.FAILED)

    async def _end_tasks(self, why: str) -> None:
        self._close(why, RoleLost)
        if not self._begun:
            self._ended.set()
        with anyio.move_on_after(CANCEL_WAIT_S):
            await self._ended.wait()
        if not self._ended.is_set():
            busy = ", ".join(dict.fromkeys(call.where for call in self.running)) or "a task of its own"
            self.node.say("warning", self.id, f"does not stop before {busy} does, which was cancelled")
            await self._ended.wait()

    def _close(self, why: str, error_class: type[RoleLost]) -> None:
        if self._end.is_set():
            return
        self.why_lost, self.takes_work = why, False
        if self._starting is not None:
            self._starting.cancel()
        self._let_go(why, error_class)
        self._end.set()
        self._be_gone()
        self._resumed.set()

    async def _tear_down(self) -> None:
        try:
            with anyio.move_on_after(TEARDOWN_S) as scope:
                await self.role.teardown()
                await self._save()
            if scope.cancelled_caught:
                raise TimeoutError(f"it took more than {TEARDOWN_S:g} s and was cancelled")
        except Exception as error:
            self.node.bury("teardown", self.id, "teardown", error)

    def _is(self, status: Status) -> bool:
        return self.status is status

    def _enter(self, status: Status) -> None:
        self.status, self.since_s = status, self.node.time_s
        if status.over:
            self._over.set()
        self.node.status_changed(StatusChange(self.node.time_s, self.id, status.value))

    def _take_work(self) -> None:
        self.takes_work = True
        self._wake()

    def lost_error(self, effect: str) -> RoleLost:
        """Return the error for those who reach for this role after its end."""
        return (NodeLost if self.node_lost else RoleLost)(self.id, self.why_lost, effect)

    # ------------------------------------------------------------------------------------------ safe points

    async def safe_point(self) -> None:
        handling = CURRENT.get()
        resumable = isinstance(handling, Invocation) and handling.dispatcher.options.resumable
        if self.draining and (resumable or handling is None):
            raise Parked
        if self.status not in (Status.PAUSING, Status.PAUSED):
            await anyio.lowlevel.checkpoint()  # a routine may await nothing else
            return
        if resumable:
            raise Parked
        if handling is None:
            await self._resumed.wait()
            await self.safe_point()

    def drain(self) -> None:
        """End the main routine and the resumable tasks at their next safe point, for good."""
        self.draining = True
