"""The lane of large frames: one after the other, in pieces, and never much of them in flight."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rolecall.wire.heads import BULK
from rolecall.wire.lanes import Lane, Taken
from rolecall.wire.parcels import Outgoing, Parcel, abandon
from rolecall.wire.routing import Flow

__all__ = ("BulkLane",)


class BulkLane(Lane):
    """Frames are cut only as their turn comes; `flows` are those that have something here."""

    __slots__ = ("_credit_bytes", "_cutting", "_parcel", "_piece_bytes", "_uncut", "flows", "uncut_bytes")

    def __init__(self, piece_bytes: int, credit_bytes: int) -> None:
        super().__init__(BULK)
        self._piece_bytes, self._credit_bytes = piece_bytes, credit_bytes
        self._uncut: list[Parcel] = []
        self.uncut_bytes = 0
        self._parcel: Parcel | None = None
        """The parcel being cut, if it has flows; it is not in `_uncut` any more."""
        self._cutting: Iterator[Outgoing] = iter(())
        self.flows: Counter[Flow] = Counter()

    @property
    def frames(self) -> int:
        """How many entries and uncut frames are kept."""
        return len(self.flying) + len(self.waiting) + len(self._uncut)

    @property
    def busy(self) -> bool:
        """Whether anything is kept, or being cut."""
        return bool(self.flying or self.waiting or self._uncut or self.uncut_bytes)

    def add(self, parcel: Parcel) -> None:
        """Add a frame at the end."""
        self._uncut.append(parcel)
        self.uncut_bytes += parcel.size
        self.flows.update(parcel.flows)

    # ------------------------------------------------------------------------------------------------- sending

    def ready(self, normal_sent: int) -> bool:
        """Return whether an entry may be sent, when so many of the normal lane have been."""
        if not self.waiting and not self._cut():
            return False
        entry = self.waiting[0]
        within = not self.flying_bytes or self.flying_bytes + entry.size <= self._credit_bytes
        return within and entry.after <= normal_sent

    def take_ready(self, normal_sent: int) -> Taken:
        """Send what may be sent, one piece at most; there must be something."""
        first, size = self.sent, 0
        taken: list[Outgoing] = []
        while self.ready(normal_sent) and (not taken or size + self.waiting[0].size <= self._piece_bytes):
            entry = self.waiting.pop(0)
            taken.append(entry)
            size += entry.size
            self.waiting_bytes -= entry.size
            self.flying_bytes += entry.size
        self.flying = self.flying + taken  # few are in flight at a time
        return self.lane, first, taken

    def _cut(self) -> bool:
        """Cut the next entry; return whether there was one."""
        while (entry := next(self._cutting, None)) is None:
            if not self._uncut or not self._uncut[0].ready:
                return False
            self._parcel = self._uncut.pop(0)
            self._cutting = self._parcel.entries(self._piece_bytes)
        if entry.flows:  # it is the last
            self._parcel = None
        self.uncut_bytes -= entry.size if entry.parcel is None else entry.parcel.size
        self.push(entry)
        return True

    # --------------------------------------------------------------------------------------------- letting go

    def withdraw(self, flow: Flow) -> bool:
        """Drop the frame of that flow, if it cannot have arrived; return whether there was one."""
        for index, parcel in enumerate(self._uncut):
            if flow in parcel.flows:
                del self._uncut[index]
                self.uncut_bytes -= parcel.size
                self._leave(parcel.flows)
                parcel.let_go()
                return True
        if self._parcel is None or flow not in self._parcel.flows:
            return False
        self.push(abandon(self._parcel))
        self._parcel, self._cutting = None, iter(())
        self.uncut_bytes = sum(parcel.size for parcel in self._uncut)
        return True

    def acknowledge(self, received: int) -> list[Outgoing]:
        """Let go of the entries that have arrived, and of the flows that have nothing here any more."""
        arrived = super().acknowledge(received)
        for entry in arrived:
            self._leave(entry.flows)
            if entry.parcel is not None:
                entry.parcel.let_go()
        return arrived

    def let_go(self) -> None:
        """Drop everything: the link has ended, and who still has it must not keep shared memory by it."""
        for parcel in self._uncut:
            parcel.let_go()
        for entry in (*self.flying, *self.waiting):
            if entry.parcel is not None:
                entry.parcel.let_go()
        self._uncut, self.flying, self.waiting = [], [], []  # among them pieces that are views of a segment
        self._parcel, self._cutting = None, iter(())
        self.uncut_bytes = self.flying_bytes = self.waiting_bytes = 0
        self.flows.clear()

    def rewind(self) -> int:
        """Have everything sent again, by the connection where there is no shared memory any more."""
        count = super().rewind()
        if any(entry.parcel is not None and entry.parcel.stranded for entry in self.waiting):
            self._recut()
        return count

    def _recut(self) -> None:
        # What waits has not arrived, as the other side has just said, and so may get other numbers.
        entries = list(self.waiting)
        self.waiting.clear()
        self.waiting_bytes = 0
        self.resumed = self.base
        for entry in entries:
            if entry.parcel is None or not entry.parcel.stranded:
                self.push(entry)
                continue
            for piece in entry.parcel.unshared().entries(self._piece_bytes):
                self.push(piece)

    def _leave(self, flows: tuple[Flow, ...]) -> None:
        for flow in flows:
            self.flows[flow] -= 1
            if not self.flows[flow]:
                del self.flows[flow]
