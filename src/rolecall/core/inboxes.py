"""Inboxes: one-way messages that a role takes when it wants, in the order it wants."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from types import UnionType
from typing import Any, Generic, TypeVar, overload

from rolecall.core.annotations import type_name
from rolecall.core.ends import InboxEnd
from rolecall.core.errors import DeclarationError
from rolecall.core.policies import MAILBOX_BYTES, MAILBOX_MESSAGES

__all__ = ("Inbox", "UnboundInbox")

M = TypeVar("M")
O = TypeVar("O")  # noqa: E741 - the owner of an inbox
O_contra = TypeVar("O_contra", contravariant=True)


class UnboundInbox(Generic[O_contra, M]):
    """An inbox of any role of a class: what `Worker.chunks` is."""

    def __init__(self, inbox: Inbox[M], owner: type) -> None:
        self.inbox, self.owner, self.name = inbox, owner, inbox.name

    def __call__(self, role: O_contra, /) -> InboxEnd[M]:
        """Return this inbox of `role`."""
        end: InboxEnd[M] = getattr(role, self.name)
        return end


class Inbox(Generic[M]):
    """Declare an inbox of messages of one type: `chunks = rc.Inbox(Chunk, key=lambda c: c.step)`.

    Args:
        type_: the type of the messages. A type checker must be told of a union:
            `orders: rc.Inbox[Buy | Sell] = rc.Inbox(Buy | Sell)`.
        key: what `take(key)` selects by.
        capacity: how many messages may wait before senders do.
        capacity_bytes: how many bytes these may hold.
        compress: messages are packed with zstd on their way from other nodes, where that makes them smaller.

    Raises:
        DeclarationError: nothing could ever wait.
    """

    kind = "inbox"

    def __init__(
        self,
        type_: type[M] | UnionType,
        *,
        key: Callable[[M], Hashable] | None = None,
        capacity: int = MAILBOX_MESSAGES,
        capacity_bytes: int = MAILBOX_BYTES,
        compress: bool = False,
    ) -> None:
        if capacity < 1 or capacity_bytes < 1:
            raise DeclarationError(f"rc.Inbox({type_name(type_)})", "capacity and capacity_bytes must be at least 1")
        self.type: Any = type_
        self.key = key
        self.capacity, self.capacity_bytes, self.compress = capacity, capacity_bytes, compress
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, obj: None, owner: type[O]) -> UnboundInbox[O, M]: ...
    @overload
    def __get__(self, obj: object, owner: type) -> InboxEnd[M]: ...
    def __get__(self, obj: Any, owner: type) -> Any:
        return UnboundInbox(self, owner) if obj is None else obj._host.inbox(self)
