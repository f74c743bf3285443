"""Inboxes of roles on other nodes: messages go out in order, and their senders wait until they are in."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from rolecall.core.errors import RolecallError, RoleLost
from rolecall.core.ids import RoleId
from rolecall.core.inboxes import Inbox
from rolecall.runtime.buffers import Admission
from rolecall.runtime.lines import OutLine
from rolecall.runtime.wire_errors import from_wire
from rolecall.wire import Segment
from rolecall.wire import frames as f

if TYPE_CHECKING:
    from rolecall.runtime.remote import RemoteRole

__all__ = ("RemoteBox",)


class _Message:
    __slots__ = ("caller", "future", "segments")

    def __init__(self, caller: RoleId, segments: list[Segment]) -> None:
        self.caller, self.segments = caller, segments
        self.future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def lose(self, error: RoleLost, effect: str) -> None:
        """End the wait: the role is gone."""
        if not self.future.done():
            self.future.set_exception(type(error)(error.role, error.why, effect))


class RemoteBox:
    """An inbox of a role on another node."""

    def __init__(self, remote: RemoteRole, inbox: Inbox[Any]) -> None:
        self._remote, self._name, self._compress = remote, inbox.name, inbox.compress
        self._lines: dict[RoleId, OutLine[_Message]] = {}
        self._under_way: dict[int, tuple[_Message, int]] = {}
        self._kept: dict[_Message, None] = {}

    @property
    def where(self) -> str:
        """What goes there, for errors."""
        return f"{self._remote.id}.{self._name}: message"

    def offer(self, caller: RoleId, item: Any) -> Admission:
        """Send a message of a role here; the wait ends when it is in the inbox.

        Leaving the wait takes it back while it is kept here. One that is on its way may get in all the same.
        """
        message = _Message(caller, self._remote.network.encoded(item, self))
        if not self._line(caller).submit(message):
            self._kept[message] = None
        return Admission(message.future, partial(self._withdraw, message))

    def admitted(self, number: int) -> None:
        """End the wait of a message."""
        found = self._settle(number)
        if found is not None and not found.future.done():
            found.future.set_result(None)

    def failed(self, number: int, error: f.WireError) -> None:
        """End the wait of a message with an error."""
        found = self._settle(number)
        if found is not None and not found.future.done():
            found.future.set_exception(from_wire(error))

    def full(self, number: int) -> None:
        """Keep a message until its turn comes."""
        found = self._under_way.pop(number, None)
        self._remote.network.forget(number)
        if found is not None:
            self._kept[found[0]] = None
            self._line(found[0].caller).refused(*found)

    def ready(self, caller: RoleId) -> None:
        """Send what was kept."""
        if caller in self._lines:
            self._lines[caller].ready()

    def never_left(self, number: int) -> None:
        """Take note that a message which was held for sent has not left this node, and will not."""
        if number in self._under_way:
            self._kept[self._under_way.pop(number)[0]] = None
            self._remote.network.forget(number)

    def close(self, error: RoleLost) -> None:
        """End every wait: the role is gone."""
        for message in self._kept:
            message.lose(error, "none")
        for number, (message, _) in self._under_way.items():
            self._remote.network.forget(number)
            message.lose(error, "unknown")
        self._under_way.clear()
        self._kept.clear()

    def _line(self, caller: RoleId) -> OutLine[_Message]:
        line = self._lines.get(caller)
        if line is None:
            line = self._lines[caller] = OutLine(self._send, self._unsendable, self._remote.when_room)
        return line

    def _send(self, message: _Message, order: int) -> None:
        number = self._remote.network.number(self, self._remote.home)
        self._under_way[number] = (message, order)
        frame = f.Put(number, self._remote.id, self._name, message.caller, order)
        try:
            self._remote.network.send(self._remote.home, frame, message.segments, compress=self._compress)
        except RolecallError:
            self._settle(number)
            raise
        self._kept.pop(message, None)

    def _unsendable(self, message: _Message, error: RolecallError) -> None:
        if not message.future.done():
            message.future.set_exception(error)

    def _withdraw(self, message: _Message) -> None:
        if self._line(message.caller).forget(message):
            self._kept.pop(message, None)
        else:  # it has a number, so something must come; without a payload it is none
            message.segments = []

    def _settle(self, number: int) -> _Message | None:
        found = self._under_way.pop(number, None)
        self._remote.network.forget(number)
        return found[0] if found is not None else None
