"""The mailbox of one channel and the resident workers that serve it.

A worker is a task of the role that lives as long as the role does; it enters one cancel scope and leaves it
only when a handler was cancelled, since entering a scope for each message would cost more than the message.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

import anyio

from rolecall.core.context import CURRENT, Handling, chain
from rolecall.core.errors import CallCycle, NodeLost, Overloaded, RoleLost, Superseded
from rolecall.core.policies import ChannelOptions
from rolecall.core.signatures import ANYTHING
from rolecall.runtime.calls import PARKED, RUNNING, WAITING, Invocation, portable

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("Dispatcher", "Parked", "Worker")

IDLE_WORKERS = 8


class Parked(BaseException):
    """Unwinds a resumable task at its safe point; no `Exception`, so that no handler catches it."""


class Dispatcher:
    """A channel of a role instance: its bounded mailbox, its parked senders and its workers."""

    def __init__(
        self,
        instance: RoleInstance,
        name: str,
        kind: str,
        handler: Callable[..., Any],
        options: ChannelOptions,
    ) -> None:
        self.instance, self.name, self.kind = instance, name, kind
        self.handler, self.options = handler, options
        self.where = f"{instance.id}.{name}"
        channel = instance.declared.channels.get(name) if kind != "event" else None
        self.signature = channel.signature(instance.declared.role_class) if channel is not None else ANYTHING
        self.mailbox: deque[Invocation] = deque()
        self.parked: deque[Invocation] = deque()
        self.mailbox_bytes = 0
        self.workers: list[Worker] = []
        self.idle: deque[Worker] = deque()
        self.closed = False

    @property
    def running(self) -> list[Invocation]:
        """The messages being handled."""
        return [worker.current for worker in self.workers if worker.current is not None]

    # ------------------------------------------------------------------------------------------ admission

    def submit(self, invocation: Invocation) -> None:
        """Admit a message, or do what the channel's `overflow` says; never waits.

        Raises:
            CallCycle: the message's own chain holds every slot of this channel.
            Overloaded: the mailbox is full and the channel fails its callers.
            RoleLost: the role has ended.
        """
        if self.closed:
            raise self.instance.lost_error("none")
        if invocation.parent is not None and not self.idle and len(self.workers) >= self.options.concurrent:
            self._refuse_cycle(invocation.parent)
        if not self.parked and self._has_room(invocation):
            self._admit(invocation)
        else:
            self._overflow(invocation)

    def _has_room(self, invocation: Invocation) -> bool:
        waiting, options = len(self.mailbox), self.options
        if options.overflow == "latest":
            return waiting == 0
        return waiting == 0 or (
            waiting < options.mailbox and self.mailbox_bytes + invocation.bytes <= options.mailbox_bytes
        )

    def _admit(self, invocation: Invocation) -> None:
        invocation.state = WAITING
        self.mailbox.append(invocation)
        self.mailbox_bytes += invocation.bytes
        if invocation.admission is not None and not invocation.admission.done():
            invocation.admission.set_result(None)
        self._wake_one(invocation)

    def _overflow(self, invocation: Invocation) -> None:
        policy = self.options.overflow
        if policy == "fail":
            raise Overloaded(self.where, len(self.mailbox), self.mailbox_bytes)
        if policy == "wait":
            invocation.state = PARKED
            invocation.admission = asyncio.get_running_loop().create_future()
            self.parked.append(invocation)
            return
        while self.mailbox and not self._has_room(invocation):
            displaced = self._pop()
            displaced.fail(Superseded(self.where, policy))
        self._admit(invocation)

    def _refuse_cycle(self, parent: Handling) -> None:
        waiting = list(chain(parent))
        held = self.running
        if len(held) >= self.options.concurrent and all(any(call is w for w in waiting) for call in held):
            raise CallCycle([*(handling.where for handling in reversed(waiting)), self.where])

    def forget(self, invocation: Invocation) -> None:
        """Take a message that has not started out of the mailbox."""
        if invocation.state == PARKED:
            self.parked.remove(invocation)
        else:
            self.mailbox.remove(invocation)
            self.mailbox_bytes -= invocation.bytes
            self._unpark()

    # ------------------------------------------------------------------------------------------ serving

    def next(self) -> Invocation | None:
        """Return the next message to handle, or None when there is none or the role takes none now."""
        if not self.mailbox:
            return None
        if not self.instance.takes_work:
            return self._next_awaited()
        invocation = self._pop()
        if self.parked:
            self._unpark()
        return invocation

    def _next_awaited(self) -> Invocation | None:
        """Return a message that a handler which is being drained waits for."""
        for invocation in self.mailbox:
            if self.instance.admits(invocation):
                self.mailbox.remove(invocation)
                self.mailbox_bytes -= invocation.bytes
                return invocation
        return None

    def put_back(self, invocation: Invocation) -> None:
        """Return a message that was interrupted at a safe point to the head of the mailbox."""
        invocation.state = WAITING
        if invocation.ended is not None and not invocation.ended.done():
            invocation.ended.set_result(None)
        invocation.ended = None
        self.mailbox.appendleft(invocation)
        self.mailbox_bytes += invocation.bytes

    def wake(self) -> None:
        """Let the workers look again; after a pause, or when the role has become ready."""
        for invocation in list(self.mailbox):
            self._wake_one(invocation)

    def close(self, why: str, error_class: type[RoleLost] = RoleLost) -> None:
        """End every message that waits; the running ones end with their workers."""
        self.closed = True
        for invocation in (*self.running, *self.mailbox, *self.parked):
            invocation.lose(why, error_class)
        self.mailbox.clear()
        self.parked.clear()

    def _pop(self) -> Invocation:
        invocation = self.mailbox.popleft()
        self.mailbox_bytes -= invocation.bytes
        return invocation

    def _unpark(self) -> None:
        while self.parked and self._has_room(self.parked[0]):
            self._admit(self.parked.popleft())

    def _wake_one(self, invocation: Invocation) -> None:
        if not self.instance.takes_work and not self.instance.admits(invocation):
            return
        if self.idle:
            self.idle.popleft().wake()
        elif len(self.workers) < self.options.concurrent:
            worker = Worker(self)
            self.workers.append(worker)
            self.instance.spawn(worker.run, self.where)


class Worker:
    """A resident task that handles the messages of a channel one after another."""

    __slots__ = ("_alarm", "_scope", "current", "dispatcher")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.current: Invocation | None = None
        self._alarm: asyncio.Future[None] | None = None
        self._scope = anyio.CancelScope()

    def wake(self) -> None:
        """End the idle wait."""
        if self._alarm is not None and not self._alarm.done():
            self._alarm.set_result(None)

    def interrupt(self, invocation: Invocation) -> None:
        """Cancel the handler, if it is still this message's."""
        if self.current is invocation:
            self._scope.cancel()

    async def run(self) -> None:
        """Serve until the role ends."""
        try:
            while await self._serve():
                pass
        finally:
            self.dispatcher.workers.remove(self)
            if self in self.dispatcher.idle:
                self.dispatcher.idle.remove(self)

    async def _serve(self) -> bool:
        """Serve until a handler was cancelled or the worker is not needed; return whether to go on."""
        dispatcher = self.dispatcher
        with anyio.CancelScope() as self._scope:
            while not self._scope.cancel_called:
                invocation = dispatcher.next()
                if invocation is not None:
                    await self._handle(invocation)
                elif len(dispatcher.idle) >= IDLE_WORKERS:
                    return False
                else:
                    await self._rest()
        return True

    async def _rest(self) -> None:
        self._alarm = asyncio.get_running_loop().create_future()
        self.dispatcher.idle.append(self)
        await self._alarm

    async def _handle(self, invocation: Invocation) -> None:
        self.current = invocation
        invocation.worker = self
        invocation.state = RUNNING
        CURRENT.set(invocation)
        if invocation.deadline != inf:
            self._scope.deadline = invocation.deadline
        try:
            await self._run_handler(invocation)
        finally:
            self.current = None
            CURRENT.set(None)
            if invocation.deadline != inf:
                self._scope.deadline = inf

    async def _run_handler(self, invocation: Invocation) -> None:
        dispatcher = self.dispatcher
        try:
            result = None
            if invocation.items is None:
                result = await dispatcher.handler(*invocation.args, **invocation.kwargs)
            else:
                await self._write_items(invocation)
        except asyncio.CancelledError:
            self._cancelled(invocation)
            raise
        except Parked:
            if dispatcher.instance.draining:
                invocation.cancel_asked = True
                invocation.end_cancelled()
            else:
                dispatcher.put_back(invocation)
        except Exception as error:
            dispatcher.instance.node.count_error(dispatcher.where, error)
            invocation.fail(portable(error, dispatcher.where))
        else:
            check = dispatcher.instance.node.checker
            if check is not None:
                check.returned(invocation, result)
            else:
                invocation.finish(result)

    async def _write_items(self, invocation: Invocation) -> None:
        items, checker = invocation.items, self.dispatcher.instance.node.checker
        async with contextlib.aclosing(
            self.dispatcher.handler(*invocation.args, **invocation.kwargs)
        ) as written:
            async for item in written:
                await items.write(item if checker is None else checker.item(invocation, item))

    def _cancelled(self, invocation: Invocation) -> None:
        """The handler was cancelled: by its caller, by its deadline, or with the role."""
        if not self._scope.cancel_called:
            instance = self.dispatcher.instance
            invocation.lose(instance.why_lost, NodeLost if instance.node_lost else RoleLost)
            return
        if not invocation.cancel_asked:
            self.dispatcher.instance.node.note_deadline(self.dispatcher.where)
        invocation.cancel_asked = True
        invocation.end_cancelled()
