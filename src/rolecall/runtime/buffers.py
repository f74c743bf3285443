"""What waits to be taken: the messages of an inbox, the events of a subscription."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Sequence
from functools import partial
from typing import Generic, TypeAlias, TypeVar

from rolecall.core.errors import RolecallError, RoleLost
from rolecall.core.ids import RoleId
from rolecall.core.policies import MAILBOX_BYTES, EventOverflow

__all__ = ("Admission", "Buffer", "Distant", "admitted")

M = TypeVar("M")
RequireAlive: TypeAlias = Callable[[Iterable[RoleId]], None]


class Admission:
    """A message that waits for room: await `future`, or take it back."""

    __slots__ = ("future", "withdraw")

    def __init__(self, future: asyncio.Future[None], withdraw: Callable[[], None]) -> None:
        self.future, self.withdraw = future, withdraw


async def admitted(waiting: Sequence[Admission]) -> None:
    """Wait until all messages have been admitted; leaving the wait takes back those that have not.

    Raises:
        RolecallError: why the first of those that never will be was refused, after the others are in.
    """
    errors: list[RolecallError] = []
    try:
        for admission in waiting:
            try:
                await admission.future
            except RolecallError as error:
                errors.append(error)
    except asyncio.CancelledError:
        for admission in waiting:
            admission.withdraw()
            admission.future.add_done_callback(_heard)
        raise
    if errors:
        raise errors[0]


def _heard(future: asyncio.Future[None]) -> None:
    """Take note of an error for which nobody waits any more: asyncio would report it as forgotten."""
    if not future.cancelled():
        future.exception()


class _Entry(Generic[M]):
    """A message with its sender, its key and, while it waits for room, its sender's wait."""

    __slots__ = ("admission", "bytes", "item", "key", "source")

    def __init__(self, source: RoleId, key: Hashable, item: M, size: int) -> None:
        self.source, self.key, self.item, self.bytes = source, key, item, size
        self.admission: asyncio.Future[None] | None = None

    def let_go(self) -> None:
        """Let the sender go on."""
        if self.admission is not None and not self.admission.done():
            self.admission.set_result(None)


class Distant:
    """A sender on another node, whose next message found no room here and is there again.

    `promise` tells it that room is kept for the message; `probe` that it may send it again, as somebody waits for one.
    """

    __slots__ = ("probe", "promise", "size", "waiting")

    def __init__(self, size: int, promise: Callable[[], None], probe: Callable[[], None]) -> None:
        self.size, self.promise, self.probe = size, promise, probe
        self.waiting = True


class _Receipt(Generic[M]):
    """Someone who waits for one message of any source (None), or for one of each of several sources."""

    __slots__ = ("future", "key", "lacking", "taken")

    def __init__(self, key: Hashable, sources: Iterable[RoleId | None]) -> None:
        self.key = key
        self.taken: dict[RoleId | None, _Entry[M] | None] = dict.fromkeys(sources)
        self.lacking = len(self.taken)
        self.future: asyncio.Future[None] | None = None

    @property
    def missing(self) -> list[RoleId]:
        """The sources a message is still wanted from."""
        return [source for source, entry in self.taken.items() if entry is None and source is not None]

    @property
    def entries(self) -> list[_Entry[M]]:
        """What is there, in the order in which the sources were named."""
        return [entry for entry in self.taken.values() if entry is not None]

    def take(self, source: RoleId | None, entry: _Entry[M]) -> None:
        """Take a message that is wanted from a source."""
        self.taken[source] = entry
        self.lacking -= 1

    def accept(self, entry: _Entry[M]) -> bool:
        """Take a message, if it is wanted."""
        if not self.lacking or (self.key is not None and self.key != entry.key):
            return False
        if self.future is not None and self.future.done():
            return False
        source: RoleId | None = entry.source
        if source not in self.taken:
            source = None
        if self.taken.get(source, entry) is not None:
            return False
        self.take(source, entry)
        if self.future is not None and not self.lacking:
            self.future.set_result(None)
        return True


def _fits(entry: _Entry[M], key: Hashable, source: RoleId | None) -> bool:
    return (key is None or key == entry.key) and (source is None or source == entry.source)


class Buffer(Generic[M]):
    """A bounded queue with selective taking. All logic is synchronous; only waiting is not."""

    def __init__(
        self,
        capacity: int,
        overflow: EventOverflow = "wait",
        key: Callable[[M], Hashable] | None = None,
        capacity_bytes: int = MAILBOX_BYTES,
    ) -> None:
        self.capacity, self.capacity_bytes, self.overflow, self._key = capacity, capacity_bytes, overflow, key
        self._bytes = 0
        self._items: list[_Entry[M]] = []  # an empty deque takes ten times the memory
        self._parked: list[_Entry[M]] = []
        self._receipts: list[_Receipt[M]] = []
        self._distant: list[Distant] = []
        self._distant_turn = True
        self._promised = self._promised_bytes = 0

    def __len__(self) -> int:
        return len(self._items)

    # ------------------------------------------------------------------------------------------ putting

    def offer(self, source: RoleId, item: M, size: int) -> Admission | None:
        """Hand over an item of `size` bytes; return its wait when there is no room and its sender waits."""
        entry = _Entry(source, self._key(item) if self._key is not None else None, item, size)
        for receipt in self._receipts:
            if receipt.accept(entry):
                return None
        if self.overflow == "latest":
            self._forget(source)
        if self._parked or self._distant or not self._has_room(entry.bytes):
            return self._overflow(entry)
        self._admit(entry)
        return None

    def _has_room(self, size: int) -> bool:
        waiting, held = len(self._items) + self._promised, self._bytes + self._promised_bytes
        return waiting == 0 or (waiting < self.capacity and held + size <= self.capacity_bytes)

    def _admit(self, entry: _Entry[M]) -> None:
        self._items.append(entry)
        self._bytes += entry.bytes

    def _forget(self, source: RoleId) -> None:
        for entry in [entry for entry in self._items if entry.source == source]:
            self._discard(entry)

    def _discard(self, entry: _Entry[M]) -> None:
        self._items.remove(entry)
        self._bytes -= entry.bytes

    def _overflow(self, entry: _Entry[M]) -> Admission | None:
        if self.overflow == "wait":
            entry.admission = asyncio.get_running_loop().create_future()
            self._parked.append(entry)
            return Admission(entry.admission, partial(self._withdraw, entry))
        while not self._has_room(entry.bytes):
            self._discard(self._items[0])
        self._admit(entry)
        return None

    def _withdraw(self, entry: _Entry[M]) -> None:
        if entry in self._parked:
            self._parked.remove(entry)
            self._unpark()

    def _unpark(self) -> None:
        """Admit who waits for room: senders here and on other nodes in turn."""
        while self._parked or self._distant:
            distant = bool(self._distant) and (self._distant_turn or not self._parked)
            if not self._has_room(self._distant[0].size if distant else self._parked[0].bytes):
                return
            self._distant_turn = not distant
            if distant:
                self._promise(self._distant.pop(0))
            else:
                entry = self._parked.pop(0)
                self._admit(entry)
                entry.let_go()

    # ------------------------------------------------------------------------------------------ from other nodes

    def take_in(self, source: RoleId, item: M, size: int, *, promised: bool) -> bool:
        """Take an item of a sender on another node; return False where there is no room, and none was promised."""
        entry = _Entry(source, self._key(item) if self._key is not None else None, item, size)
        if any(receipt.accept(entry) for receipt in self._receipts):
            return True
        if not promised and (self._parked or self._distant or not self._has_room(size)):
            return False
        self._admit(entry)
        return True

    def wait(self, sender: Distant) -> None:
        """Promise room to a sender elsewhere as soon as there is some; it is kept until `redeem`."""
        self._distant.append(sender)

    def leave(self, sender: Distant) -> None:
        """Promise a sender nothing any more: it needs no room, or is gone."""
        if sender.waiting:
            self._distant.remove(sender)
            sender.waiting = False
            self._unpark()

    def redeem(self, size: int) -> None:
        """End a promise: what was promised room is here, or will not come; to be followed by `make_way`."""
        self._promised -= 1
        self._promised_bytes -= size

    def make_way(self) -> None:
        """Give the room there is to whoever waits for it."""
        self._unpark()

    def _promise(self, sender: Distant) -> None:
        sender.waiting = False
        self._promised += 1
        self._promised_bytes += sender.size
        sender.promise()

    # ------------------------------------------------------------------------------------------ taking

    async def take(
        self, key: Hashable = None, source: RoleId | None = None, alive: RequireAlive | None = None
    ) -> tuple[RoleId, M]:
        """Return the oldest item with this key and source, waiting for it; `alive` as for `collect`."""
        [entry] = await self._receive(key, (source,), alive)
        return entry.source, entry.item

    async def collect(
        self, sources: Iterable[RoleId], key: Hashable = None, alive: RequireAlive | None = None
    ) -> dict[RoleId, M]:
        """Return one item of each source, in the order of `sources`; nothing is taken until all are there.

        `alive` raises what is to be raised when the sources it is given are waited for in vain.
        """
        entries = await self._receive(key, sources, alive)
        return {entry.source: entry.item for entry in entries}

    async def _receive(
        self, key: Hashable, sources: Iterable[RoleId | None], alive: RequireAlive | None
    ) -> list[_Entry[M]]:
        receipt: _Receipt[M] = _Receipt(key, sources)
        try:
            for source in list(receipt.taken):
                if (entry := self._pop(key, source)) is not None:
                    receipt.take(source, entry)
            if receipt.lacking:
                if alive is not None:
                    alive(receipt.missing)
                await self._wait(receipt)
        except BaseException:
            self._give_back(receipt)
            raise
        return receipt.entries

    async def _wait(self, receipt: _Receipt[M]) -> None:
        receipt.future = asyncio.get_running_loop().create_future()
        self._receipts.append(receipt)
        for sender in self._distant:  # what is wanted may be what one of them has
            sender.probe()
        try:
            await receipt.future
        finally:
            self._receipts.remove(receipt)

    def _pop(self, key: Hashable, source: RoleId | None) -> _Entry[M] | None:
        """Take the oldest fitting item out, of those that wait for room too: a full queue may hold others."""
        for entry in self._items:
            if _fits(entry, key, source):
                self._discard(entry)
                self._unpark()
                return entry
        for entry in self._parked:
            if _fits(entry, key, source):
                self._parked.remove(entry)
                entry.let_go()
                return entry
        return None

    def _give_back(self, receipt: _Receipt[M]) -> None:
        """Return what someone took who did not get everything, to others who wait or to the front."""
        for entry in reversed(receipt.entries):
            if any(other.accept(entry) for other in self._receipts) or self._outdated(entry):
                continue
            self._items.insert(0, entry)
            self._bytes += entry.bytes

    def _outdated(self, entry: _Entry[M]) -> bool:
        """Whether an item that is given back has had to give way meanwhile."""
        if self.overflow == "latest":
            return any(other.source == entry.source for other in self._items)
        return self.overflow == "drop_oldest" and not self._has_room(entry.bytes)

    def drain(self) -> list[tuple[RoleId, M]]:
        """Return and remove all there is, items that wait for room included."""
        drained = [*self._items, *self._parked]
        self._items.clear()
        self._bytes = 0
        self.release()
        self._unpark()
        return [(entry.source, entry.item) for entry in drained]

    # ------------------------------------------------------------------------------------------ ending

    def lose(self, source: RoleId | None, error: RoleLost) -> None:
        """Fail those who wait for an item of a source that is gone; None for those who wait for any."""
        for receipt in self._receipts:
            waits = source in receipt.missing if source is not None else receipt.lacking
            if waits and receipt.future is not None and not receipt.future.done():
                receipt.future.set_exception(error.copied())

    def release(self) -> None:
        """Let the senders go that wait for room, and drop what they hold."""
        for entry in self._parked:
            entry.let_go()
        self._parked.clear()

    def close(self, error: RoleLost) -> None:
        """Fail the senders that wait for room."""
        for entry in self._parked:
            if entry.admission is not None and not entry.admission.done():
                entry.admission.set_exception(error.copied())
        self._parked.clear()
        while self._distant:  # they come, and are told what happened
            self._promise(self._distant.pop(0))
