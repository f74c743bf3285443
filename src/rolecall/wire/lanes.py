"""A lane on the sending side: numbered entries that are kept until the other side has them."""

from __future__ import annotations

from typing import Final, TypeAlias

from rolecall.wire.limits import Malformed
from rolecall.wire.parcels import Outgoing

__all__ = ("Lane", "Taken", "UnnumberedLane")


Taken: TypeAlias = tuple[int, int, list[Outgoing]]
"""Lane, number of the first, and entries."""


_NONE: Final[list[Outgoing]] = []
"""What a lane holds that holds nothing; it is never changed."""


class Lane:
    """Entries in the order of their numbers: those in flight on the present connection, then those that wait."""

    __slots__ = ("base", "flying", "flying_bytes", "lane", "resumed", "waiting", "waiting_bytes")

    flying: list[Outgoing]
    waiting: list[Outgoing]

    def __init__(self, lane: int) -> None:
        self.lane = lane
        self.base = 0
        """The number of the first entry that is kept: all before it have arrived."""
        self.flying = self.waiting = _NONE  # there are lanes by the thousand, and most of them hold nothing
        self.flying_bytes = self.waiting_bytes = 0
        self.resumed = 0
        """The number of the first entry that had not been sent when the present connection began."""

    @property
    def reached(self) -> int:
        """The number of the first entry that has never been sent."""
        return max(self.resumed, self.sent)

    @property
    def sent(self) -> int:
        """The number of the first entry that has not been sent on the present connection."""
        return self.base + len(self.flying)

    @property
    def end(self) -> int:
        """The number that the next entry will get."""
        return self.base + len(self.flying) + len(self.waiting)

    def push(self, entry: Outgoing) -> None:
        """Add an entry."""
        if self.waiting:
            self.waiting.append(entry)
        else:
            self.waiting = [entry]
        self.waiting_bytes += entry.size

    def take(self, room_bytes: int) -> Taken:
        """Send what waits, up to about `room_bytes`, but one entry at least."""
        first = self.base + len(self.flying)
        if self.waiting_bytes <= room_bytes:
            taken, size, self.waiting = self.waiting, self.waiting_bytes, _NONE
        else:
            taken, size = self._some(room_bytes)
        if self.flying:
            self.flying += taken
        else:
            self.flying = taken
        self.flying_bytes += size
        self.waiting_bytes -= size
        return self.lane, first, taken

    def _some(self, room_bytes: int) -> tuple[list[Outgoing], int]:
        count = size = 0
        for entry in self.waiting:
            if count and size + entry.size > room_bytes:
                break
            count, size = count + 1, size + entry.size
        taken = self.waiting[:count]
        del self.waiting[:count]
        return taken, size

    def acknowledge(self, received: int) -> list[Outgoing]:
        """Let go of the entries that have arrived, and return them; raise `Malformed` if they never left."""
        count = received - self.base
        if not 0 <= count <= len(self.flying):
            return self._acknowledge_earlier(received)
        self.base = received
        if count == len(self.flying):
            arrived, self.flying, self.flying_bytes = self.flying, _NONE, 0
            return arrived
        arrived = self.flying[:count]
        del self.flying[:count]
        for entry in arrived:
            self.flying_bytes -= entry.size
        return arrived

    def _acknowledge_earlier(self, received: int) -> list[Outgoing]:
        """Let go also of entries that wait to be sent again, having arrived by an earlier connection."""
        if not self.base <= received <= self.reached:
            raise Malformed(
                f"The other side acknowledges {received:,} entries of lane {self.lane}, where it had acknowledged "
                f"{self.base:,} before and has been sent {self.reached:,}."
            )
        arrived = self.acknowledge(self.sent)
        earlier = self.waiting[: received - self.base]
        del self.waiting[: received - self.base]
        for entry in earlier:
            self.waiting_bytes -= entry.size
        self.base = received
        return arrived + earlier

    def rewind(self) -> int:
        """Have everything that is kept sent again, on a new connection; return how many were in flight."""
        count = len(self.flying)
        self.resumed = self.reached
        self.waiting = self.flying + self.waiting
        self.waiting_bytes += self.flying_bytes
        self.flying, self.flying_bytes = _NONE, 0
        return count


class UnnumberedLane(Lane):
    """What is about the present connection: neither numbered nor kept."""

    __slots__ = ()

    def take(self, room_bytes: int) -> Taken:
        """Send what waits, up to about `room_bytes`, and forget it."""
        taken = super().take(room_bytes)
        self.flying, self.flying_bytes = _NONE, 0
        return taken[0], 0, taken[2]

    def rewind(self) -> int:
        """Forget what waits: it was about a connection that is gone."""
        self.waiting, self.waiting_bytes = _NONE, 0
        return 0
