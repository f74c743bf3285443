"""A role's own inbox."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TYPE_CHECKING, Generic, TypeVar

from rolecall.core.ends import InboxEnd
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
        self.buffer: Buffer[T] = Buffer(inbox.capacity, key=inbox.key)

    async def put(self, item: T, /) -> None:
        await self._instance.put(self._instance.id, self.name, item)

    async def take(self, key: Hashable = None, *, source: RoleId | None = None) -> T:
        if source is not None:
            found = self.buffer.take_nowait(key, source)
            if found is not None:
                return found[1]
            self._instance.node.require_alive([source])
        return (await self.buffer.take(key, source))[1]

    async def collect(self, sources: Iterable[RoleId], *, key: Hashable = None) -> dict[RoleId, T]:
        return {source: await self.take(key, source=source) for source in list(sources)}

    def drain(self) -> list[tuple[RoleId, T]]:
        return self.buffer.drain()

    def __len__(self) -> int:
        return len(self.buffer)
