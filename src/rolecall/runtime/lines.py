"""The order of messages between nodes: the sending and the receiving end of one (caller, role, channel).

Messages of a line are numbered. Where a mailbox is full the receiver drops the message and answers "full"; from there
on it takes nothing of that line but the message it refused, until it has it. The sender keeps what came back, and
all that is sent later, until it hears "ready". So a full mailbox holds up its own senders only, and no link.
A message that the link has no room for is kept in the same way, until it has.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from rolecall.core.errors import RolecallError
from rolecall.runtime.buffers import Buffer, Distant
from rolecall.wire.limits import LinkOverflow

__all__ = ("InLine", "OutLine")

M = TypeVar("M")

BATCH = 2
"""Messages that are sent again when there is room for one."""


class Promiser(Protocol):
    """What keeps room for messages from other nodes."""

    def redeem(self, size: int) -> None:
        """End a promise of room for so many bytes."""

    def make_way(self) -> None:
        """Give the room to whoever waits for it."""


class OutLine(Generic[M]):
    """The sending end: `send(message, order)` is called for each message when it is its turn.

    It raises `LinkOverflow` where the link has no room: the message is kept, and so are those after it, until what
    `wait` was given is called. What else it raises keeps the message from being sent; for one that was kept, `failed`
    is called with that.
    """

    def __init__(
        self,
        send: Callable[[M, int], None],
        failed: Callable[[M, RolecallError], None],
        wait: Callable[[Callable[[], None]], None],
    ) -> None:
        self._send, self._failed, self._wait = send, failed, wait
        self._next = 0
        self._returned: dict[int, M] = {}
        self._due: list[int] = []
        """Which of those that were returned go as soon as the link has room."""
        self._kept: deque[M] = deque()
        self._waits = False

    @property
    def blocked(self) -> bool:
        """Whether the other end has said that it is full, and not yet that it is ready."""
        return bool(self._returned)

    def submit(self, message: M) -> bool:
        """Send a message now, or keep it while the other end is full or the link is; return whether it was sent."""
        if self._returned or self._kept or not self._forward(message):
            self._kept.append(message)
            return False
        return True

    def refused(self, message: M, order: int) -> None:
        """Take back a message that the other end had no room for."""
        self._returned[order] = message

    def ready(self) -> None:
        """Send what came back, under its old number, and then what was kept.

        Of many messages that came back only some go at once: the others would come back again. The other end says
        "ready" after each that it takes, as long as there are later ones it has refused.
        """
        self._due = sorted(self._returned)[:BATCH]
        self._go_on()

    def forget(self, message: M) -> bool:
        """Drop a message that was kept and has no number yet; return False when it has one and must be sent."""
        if message not in self._kept:
            return False
        self._kept.remove(message)
        return True

    def drop(self) -> list[M]:
        """Forget the messages that came back or were kept, and return them: the other end is gone."""
        held = [*self._returned.values(), *self._kept]
        self._returned.clear()
        self._kept.clear()
        self._due.clear()
        return held

    def _go_on(self) -> None:
        while self._due:
            order = self._due[0]
            if not self._try(self._returned[order], order):
                return
            del self._due[0], self._returned[order]
        while self._kept and not self._returned and self._forward_kept():
            pass

    def _forward_kept(self) -> bool:
        message = self._kept[0]
        try:
            if not self._forward(message):
                return False
        except RolecallError as error:
            self._failed(message, error)
        self._kept.popleft()
        return True

    def _forward(self, message: M) -> bool:
        if not self._try(message, self._next):
            return False
        self._next += 1  # not for one that cannot be sent: the other end would wait for it for ever
        return True

    def _try(self, message: M, order: int) -> bool:
        try:
            self._send(message, order)
        except LinkOverflow:
            if not self._waits:
                self._waits = True
                self._wait(self._has_room)
            return False
        return True

    def _has_room(self) -> None:
        self._waits = False
        self._go_on()


class InLine:
    """The receiving end: says which message may be taken, and whether the sender must be told to go on."""

    __slots__ = ("_expected", "_inbox", "_refused_below", "asked", "promised", "promised_bytes")

    def __init__(self) -> None:
        self._expected = 0
        self._refused_below = 0
        self.promised: Promiser | None = None
        """Who keeps room for the next message, once it had none."""
        self.promised_bytes = 0
        self.asked: Distant | None = None
        """How the next message waits for room in an inbox, which had none."""
        self._inbox: Buffer[Any] | None = None

    def ask(self, inbox: Buffer[Any], size: int, ready: Callable[[], None]) -> None:
        """Have the sender of the next message hear "ready" when there is room for it, or somebody waits for one."""

        def promise() -> None:
            self.asked, self.promised, self.promised_bytes = None, inbox, size
            ready()

        self._inbox, self.asked = inbox, Distant(size, promise, ready)
        inbox.wait(self.asked)

    def withdraw(self) -> None:
        """Want no more room for the next message: it is in, or will not come."""
        asked, self.asked = self.asked, None
        if asked is not None and self._inbox is not None:
            self._inbox.leave(asked)

    def redeem(self) -> Promiser | None:
        """End the promise that there is room, if there is one; return who made it."""
        promised, self.promised = self.promised, None
        if promised is not None:
            promised.redeem(self.promised_bytes)
        return promised

    def is_next(self, order: int) -> bool:
        """Say whether a message is the next of its line; one that is not is to be refused."""
        if order == 0 < self._expected:  # the first of another sending end
            self._expected = self._refused_below = 0
        if order != self._expected:
            self._refused_below = max(self._refused_below, order + 1)
            return False
        return True

    def took(self) -> bool:
        """Count a message as taken; return whether the sender waits to hear that it may go on."""
        self._expected += 1
        return self._refused_below > self._expected
