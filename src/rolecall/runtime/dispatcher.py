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
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio

from rolecall.core.context import CURRENT, Handling, chain
from rolecall.core.errors import CallCycle, NodeLost, Overloaded, Refused, RemoteError, RoleLost, Superseded
from rolecall.core.policies import ChannelOptions
from rolecall.core.safe_points import is_parked
from rolecall.core.signatures import ANYTHING
from rolecall.runtime.calls import ENDED, PARKED, RUNNING, TAKEN, WAITING, Invocation, Port, portable

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("NO_QUEUE_YET", "Dispatcher", "Worker")

T = TypeVar("T")

IDLE_WORKERS = 8
NO_QUEUE_YET: Final[deque[Any]] = deque()
"""What each queue of a channel is until it has something: most channels of most roles never have a message.

Nothing is ever put into this one; see `_added`.
"""


class Dispatcher(Port):
    """A channel of a role instance: its bounded mailbox, its parked senders and its workers.

    While senders are parked the mailbox is full, and while messages wait in it no worker is free. What was handed
    to a free worker comes first, whichever worker is the first to look: so handlers start in the order in which
    their messages were submitted.
    """

    __slots__ = (
        "_distant_turn", "_promised", "_promised_bytes", "_room_wanted", "fresh", "handled", "handler", "idle",
        "instance", "mailbox", "mailbox_bytes", "parked", "taken", "workers",
    )  # fmt: skip

    def __init__(
        self,
        instance: RoleInstance,
        name: str,
        kind: str,
        handler: Callable[..., Any],
        options: ChannelOptions,
    ) -> None:
        channel = instance.declared.channels.get(name) if kind != "event" else None
        signature = channel.signature(instance.declared.role_class) if channel is not None else ANYTHING
        super().__init__(instance.node, instance.id, name, kind, signature, options)
        self.instance, self.handler = instance, handler
        self.taken: deque[Invocation] = NO_QUEUE_YET
        self.mailbox: deque[Invocation] = NO_QUEUE_YET
        self.mailbox_bytes = 0
        self.parked: deque[Invocation] = NO_QUEUE_YET
        self._room_wanted: deque[tuple[int, Callable[[], bool]]] = NO_QUEUE_YET
        self.workers: list[Worker] = []
        self.idle: deque[Worker] = NO_QUEUE_YET
        self.fresh = True
        """Whether there never has been a message."""
        self.handled = 0
        """How many messages have been given to the handler."""
        self._promised = 0
        self._promised_bytes = 0
        self._distant_turn = True

    @property
    def running(self) -> list[Invocation]:
        """The messages that workers hold, or are about to."""
        if not self.workers:
            return []
        held = [worker.current for worker in self.workers if worker.current is not None]
        return held + [invocation for invocation in self.taken if invocation.state != ENDED]

    # ------------------------------------------------------------------------------------------ admission

    def submit(self, invocation: Invocation, *, promised: bool = False) -> None:
        """Hand a message to a free worker, or admit it, or do what `overflow` says; never waits.

        A message whose room was promised is admitted in any case: its sender counts it as the next in order.

        Raises:
            CallCycle: the message's own chain holds every slot of this channel.
            Overloaded: the mailbox is full and the channel fails its callers.
            RoleLost: the role has ended.
        """
        if self.closed:
            raise self.instance.lost_error("none")
        self.fresh = False
        if self.instance.takes_work and not self.mailbox and (promised or not self.parked):
            worker = self._free_worker()
            if worker is not None:
                self._hand_over(invocation, worker)
                return
        if invocation.parent is not None:
            self.refuse_cycle(invocation.parent)
        if promised or (not self.parked and self._has_room(invocation)):
            self._admit(invocation)
        else:
            self._overflow(invocation)
        if not self.instance.takes_work:
            self.wake()

    def must_wait(self, size: int) -> bool:
        """Say whether a message of so many bytes from another node would find no room, and its sender waits."""
        if self.options.overflow != "wait" or self.closed:
            return False
        return bool(self.parked or self._room_wanted) or not self._fits(size)

    def when_room(self, size: int, promise: Callable[[], bool]) -> None:
        """Call a function, once, when there is room for so many bytes: it promises that to a sender on another node.

        The room is kept until `redeem`, so that senders here and elsewhere take turns. Where the function returns
        False there is nobody to promise anything to any more.
        """
        self._room_wanted = _added(self._room_wanted, (size, promise))

    def redeem(self, size: int) -> None:
        """End a promise: what was promised room is here, or will not come; to be followed by `make_way`."""
        self._promised -= 1
        self._promised_bytes -= size

    def _has_room(self, invocation: Invocation) -> bool:
        if self.mailbox and self.options.overflow == "latest":
            return False
        return self._fits(invocation.bytes)

    def _fits(self, size: int) -> bool:
        waiting, options = len(self.mailbox) + self._promised, self.options
        if waiting == 0:
            return True
        held = self.mailbox_bytes + self._promised_bytes
        return waiting < options.mailbox and held + size <= options.mailbox_bytes

    def _admit(self, invocation: Invocation) -> None:
        invocation.state = WAITING
        self.mailbox = _added(self.mailbox, invocation)
        self.mailbox_bytes += invocation.bytes
        if invocation.admission is not None and not invocation.admission.done():
            invocation.admission.set_result(True)

    def _overflow(self, invocation: Invocation) -> None:
        policy = self.options.overflow
        if policy == "fail":
            raise Overloaded(self.where, len(self.mailbox), self.mailbox_bytes)
        if policy == "wait":
            invocation.state = PARKED
            invocation.admission = asyncio.get_running_loop().create_future()
            self.parked = _added(self.parked, invocation)
            return
        while not self._has_room(invocation):
            self._pop().fail(Superseded(self.where, policy))
        self._admit(invocation)

    def refuse_cycle(self, parent: Handling) -> None:
        """Raise `CallCycle` if a message with this chain would wait for itself."""
        held = self.running
        if len(held) >= self.options.concurrent and all(_awaits(parent, call) for call in held):
            raise CallCycle([*(handling.where for handling in reversed(list(chain(parent)))), self.where])

    # ------------------------------------------------------------------------------------------ serving

    def next(self) -> Invocation | None:
        """Return the next message to handle, or None when there is none or the role takes none now."""
        while self.taken:
            invocation = self.taken.popleft()
            if invocation.state != ENDED:  # cancelled since it was taken
                return invocation
        return self._from_mailbox() if self.mailbox else None

    def _from_mailbox(self) -> Invocation | None:
        if not self.instance.takes_work:
            return self._next_awaited()
        invocation = self._pop()
        if self.parked or self._room_wanted:
            self._unpark()
        return invocation

    def _next_awaited(self) -> Invocation | None:
        """Return a message that a handler which is being drained waits for."""
        for invocation in (*self.mailbox, *self.parked):
            if self.instance.admits(invocation):
                self.forget(invocation)
                return invocation
        return None

    def forget(self, invocation: Invocation) -> None:
        """Take a message that waits out of its turn."""
        if invocation.state == PARKED:
            self.parked.remove(invocation)
        else:
            self.mailbox.remove(invocation)
            self.mailbox_bytes -= invocation.bytes
        self._unpark()

    def put_back(self, invocation: Invocation) -> None:
        """Return a message that was interrupted at a safe point to the head of the mailbox."""
        self.mailbox = deque((invocation, *self.mailbox))
        self.mailbox_bytes += invocation.bytes
        invocation.put_back()

    def wake(self) -> None:
        """Give what waits to the workers that are free; where none has taken a message by itself."""
        if self.fresh:
            return
        while self.mailbox and (worker := self._free_worker()) is not None:
            invocation = self._from_mailbox()
            if invocation is None:
                self._release(worker)
                return
            self._hand_over(invocation, worker)

    def _hand_over(self, invocation: Invocation, worker: Worker) -> None:
        invocation.state = TAKEN
        self.taken = _added(self.taken, invocation)
        worker.wake()

    def _release(self, worker: Worker) -> None:
        """Let a worker rest; or leave, when it never began."""
        if worker.began:
            self.rest(worker)
        else:
            self.workers.remove(worker)

    def close(self, why: str, error_class: type[RoleLost] = RoleLost) -> None:
        """End every message that waits; the running ones end with their workers."""
        self.closed = True
        for invocation in (*self.running, *self.mailbox, *self.parked):
            invocation.lose(why, error_class)
        self.taken.clear()
        self.mailbox.clear()
        self.parked.clear()
        while self._room_wanted:  # they come, and are told what happened
            self._room_wanted.popleft()[1]()

    def rest(self, worker: Worker) -> None:
        """Have a worker wait for the next message."""
        self.idle = _added(self.idle, worker)

    def _free_worker(self) -> Worker | None:
        if self.idle:
            return self.idle.popleft()
        if len(self.workers) < self.options.concurrent:
            worker = Worker(self)
            self.workers.append(worker)
            return worker
        return None

    def _pop(self) -> Invocation:
        invocation = self.mailbox.popleft()
        self.mailbox_bytes -= invocation.bytes
        return invocation

    def make_way(self) -> None:
        """Give the room there is to whoever waits for it, and what waits to the workers that are free."""
        self._unpark()
        self.wake()

    def _unpark(self) -> None:
        """Admit who waits for room: senders here and on other nodes in turn."""
        while self.parked or self._room_wanted:
            distant = bool(self._room_wanted) and (self._distant_turn or not self.parked)
            if not (self._fits(self._room_wanted[0][0]) if distant else self._has_room(self.parked[0])):
                return
            self._distant_turn = not distant
            if not distant:
                self._admit(self.parked.popleft())
            else:
                size, promise = self._room_wanted.popleft()
                if promise():
                    self._promised += 1
                    self._promised_bytes += size


def _awaits(parent: Handling, call: Invocation) -> bool:
    """Say whether a call is one of a chain; of one that has been on other nodes, only its key comes back."""
    return any(
        waiting is call or (waiting.where == call.where and call.known_as(waiting.key)) for waiting in chain(parent)
    )


def _added(queue: deque[T], item: T) -> deque[T]:
    """Return a queue with an item at its end: a new one, where there was none yet."""
    if queue is NO_QUEUE_YET:
        return deque((item,))
    queue.append(item)
    return queue


class Worker:
    """A resident task that handles the messages of a channel one after another."""

    __slots__ = ("_alarm", "_scope", "current", "dispatcher")

    def __init__(self, dispatcher: Dispatcher) -> None:
        self.dispatcher = dispatcher
        self.current: Invocation | None = None
        self._alarm: asyncio.Future[None] | None = None
        self._scope = anyio.CancelScope()

    @property
    def began(self) -> bool:
        """Whether its task has served anything yet."""
        return self._alarm is not None

    def wake(self) -> None:
        """Look for a message; only for a worker that is free."""
        if self._alarm is None:
            self.dispatcher.instance.spawn(self.run, self.dispatcher.where)
        else:
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
                    self._begin(invocation)
                    try:
                        if self._in_time(invocation):
                            await self._run_handler(invocation)
                    finally:
                        self._end()
                elif len(dispatcher.idle) >= IDLE_WORKERS:
                    return False
                else:
                    await self._rest()
        return True

    async def _rest(self) -> None:
        self._alarm = self.dispatcher.node.loop.create_future()
        self.dispatcher.rest(self)
        await self._alarm

    def _begin(self, invocation: Invocation) -> None:
        self.current = invocation
        invocation.worker, invocation.state = self, RUNNING
        self.dispatcher.handled += 1
        CURRENT.set(invocation)

    def _in_time(self, invocation: Invocation) -> bool:
        """Have the handler end by the deadline; or end the message, when that has passed."""
        deadline = invocation.deadline
        if deadline == inf:
            return True
        if anyio.current_time() < deadline:
            self._scope.deadline = deadline
            return True
        invocation.state = WAITING
        invocation.end_cancelled()
        return False

    def _end(self) -> None:
        if self.current is not None and self.current.deadline != inf:
            self._scope.deadline = inf
        self.current = None
        CURRENT.set(None)

    async def _run_handler(self, invocation: Invocation) -> None:
        dispatcher = self.dispatcher
        try:
            result = None
            if invocation.items is None:
                result = await dispatcher.handler(*invocation.args, **invocation.kwargs)
            else:
                await self._write_items(invocation)
            checker = dispatcher.node.checker
            if checker is None:
                invocation.finish(result)
            else:
                checker.returned(invocation, result)
        except asyncio.CancelledError:
            if not self._goes_on(invocation):
                raise
        except Exception as error:
            if not isinstance(error, Refused):
                dispatcher.node.count_error(dispatcher.where, error)
            failure, checker = portable(error, dispatcher.where), dispatcher.node.checker
            invocation.fail(failure if checker is None else checker.raised(failure, dispatcher.where))
        except BaseException as error:
            self._unwound(invocation, error)

    async def _write_items(self, invocation: Invocation) -> None:
        items, checker = invocation.items, self.dispatcher.node.checker
        async with contextlib.aclosing(self.dispatcher.handler(*invocation.args, **invocation.kwargs)) as written:
            async for item in written:
                await items.write(item if checker is None else checker.item(invocation, item))

    # ------------------------------------------------------------------------------------------ unwinding

    def _goes_on(self, invocation: Invocation) -> bool:
        """End a message whose handler was cancelled; return whether the worker serves the next."""
        instance = self.dispatcher.instance
        if self.dispatcher.closed:
            return False
        if self._scope.cancel_called:  # by its caller or by its deadline
            invocation.end_cancelled()
            return True
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # from outside, as when the loop shuts down
            invocation.lose("its worker was cancelled", NodeLost if instance.node_lost else RoleLost)
            return False
        problem = "something it awaited was cancelled"
        invocation.fail(RemoteError("CancelledError", problem, self.dispatcher.where))
        return True

    def _unwound(self, invocation: Invocation, error: BaseException) -> None:
        """End a message whose handler was left by something that is no `Exception`."""
        if is_parked(error):
            self._park(invocation)
            return
        invocation.fail(portable(error, self.dispatcher.where))
        if isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit):
            raise error

    def _park(self, invocation: Invocation) -> None:
        if invocation.cancel_asked:
            invocation.end_cancelled()
        elif self.dispatcher.instance.draining:
            invocation.lose("it is being stopped, and the task ended at its safe point")
        else:
            self.dispatcher.put_back(invocation)
