"""A role's own inbox."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

from rolecall.core.annotations import type_name
from rolecall.core.ends import InboxEnd
from rolecall.core.errors import DeclarationError
from rolecall.core.ids import RoleId
from rolecall.core.inboxes import Inbox
from rolecall.core.signatures import accepted_classes
from rolecall.runtime.buffers import Buffer

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("OwnInbox",)

T = TypeVar("T")


class OwnInbox(InboxEnd[T], Generic[T]):
    """The inbox where its role takes from it."""

    def __init__(self, instance: RoleInstance, inbox: Inbox[T]) -> None:
        self._instance, self.declaration, self.name = instance, inbox, inbox.name
        self.accepted = accepted_classes(inbox.type)
        self.buffer: Buffer[T] = Buffer(inbox.capacity, key=inbox.key, capacity_bytes=inbox.capacity_bytes)

    async def put(self, item: T, /) -> None:
        await self._instance.put(self._instance.id, self.declaration, item)

    async def take(self, key: Hashable = None, *, source: RoleId | None = None) -> T:
        self._require_key(key)
        return (await self.buffer.take(key, source, self._instance.node.require_alive))[1]

    async def collect(self, sources: Iterable[RoleId], *, key: Hashable = None) -> dict[RoleId, T]:
        self._require_key(key)
        return await self.buffer.collect(sources, key, self._instance.node.require_alive)

    def _require_key(self, key: Hashable) -> None:
        if key is not None and self.declaration.key is None:
            raise DeclarationError(
                f"{type_name(type(self._instance.role))}.{self.name}",
                f"its messages have no key, so none would ever be taken by the key {key!r}",
                hint="Declare it as `rc.Inbox(..., key=lambda message: ...)`",
            )

    def drain(self) -> list[tuple[RoleId, T]]:
        return self.buffer.drain()

    def __len__(self) -> int:
        return len(self.buffer)
