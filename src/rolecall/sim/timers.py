"""What is to happen when, in a virtual world: a queue ordered by time, and by number where times are the same.

A world of thousands of nodes has tens of thousands of messages under way, and a heap of so many is slow: each of the
comparisons on the way down finds its entry elsewhere in memory. So they are kept by the millisecond, and only the
earliest of these is in order.
"""

from __future__ import annotations

from bisect import bisect_left
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Final, TypeAlias

__all__ = ("DAEMON_ARRIVAL", "DAEMON_TIMER", "SERIOUS_ARRIVAL", "SERIOUS_TIMER", "Entry", "Kind", "Timers")

Kind: TypeAlias = int
SERIOUS_ARRIVAL: Final = 0
DAEMON_ARRIVAL: Final = 1  # daemons are odd: they do not keep the world alive
SERIOUS_TIMER: Final = 2
DAEMON_TIMER: Final = 3

Entry: TypeAlias = tuple[float, int, Any, Kind]
"""When, its number, what, and which kind of thing that is."""

_BUCKETS_A_SECOND: Final = 1_000.0
_FAR_S: Final = 1e12  # all that is later shares a bucket
_PRUNE: Final = 1_000


class Timers:
    """Timers, which may be cancelled, and arrivals, which may not."""

    __slots__ = ("_cancelled", "_due", "_key", "_keys", "_later", "_number", "_ordered", "next_s", "serious", "size")

    def __init__(self) -> None:
        self.next_s = inf
        """When the next one goes off, or would if it were not cancelled."""
        self.serious = 0
        """How many are left that are no daemons'."""
        self.size = 0
        """How many there are, some of which may have been cancelled."""
        self._number = self._cancelled = 0
        self._due: list[Entry] = []  # the earliest bucket, the first entry last; empty only when there is nothing
        self._key = 0  # of that bucket
        self._later: dict[int, list[Entry]] = {}
        self._keys: list[int] = []  # of later buckets; a heap
        self._ordered: set[int] = set()  # which of them are in order, since they were the earliest once

    def add(self, when_s: float, what: Any, kind: Kind) -> None:
        """Have something go off at a time, after all that has been added for the same time."""
        self._number += 1
        self.size += 1
        if not kind & 1:
            self.serious += 1
        entry: Entry = (when_s, self._number, what, kind)
        key = int(min(when_s, _FAR_S) * _BUCKETS_A_SECOND)
        if not self._due:
            self._begin(key, entry)
        elif key == self._key:
            self._due.insert(bisect_left(self._due, -when_s, key=_nearness), entry)
        elif key < self._key:
            self._later[self._key] = self._due
            self._ordered.add(self._key)
            heappush(self._keys, self._key)
            self._begin(key, entry)
        else:
            self._append(key, entry)
        if when_s < self.next_s:
            self.next_s = when_s

    def _begin(self, key: int, entry: Entry) -> None:
        self._due, self._key = [entry], key

    def _append(self, key: int, entry: Entry) -> None:
        bucket = self._later.get(key)
        if bucket is None:
            self._later[key] = [entry]
            heappush(self._keys, key)
            return
        bucket.append(entry)
        self._ordered.discard(key)

    def one_arrives(self, now_s: float) -> bool:
        """Return whether the next one is an arrival, due now and not before, and nothing else is due with it."""
        due = self._due
        return due[-1][3] < SERIOUS_TIMER and self.next_s == now_s and (len(due) < 2 or due[-2][0] > now_s)

    def pop(self) -> Entry:
        """Take off the next one, which may be a timer that has been cancelled."""
        entry = self._due.pop()
        self.size -= 1
        if _is_cancelled(entry):
            self._cancelled -= 1
        elif not entry[3] & 1:
            self.serious -= 1
        self._look()
        return entry

    def _look(self) -> None:
        if not self._due and self._keys:
            self._key = heappop(self._keys)
            self._due = self._later.pop(self._key)
            if self._key in self._ordered:
                self._ordered.remove(self._key)
            elif len(self._due) > 1:
                self._due.sort(reverse=True)
        self.next_s = self._due[-1][0] if self._due else inf

    # ---------------------------------------------------------------------------------------------- cancelled

    def cancelled(self, kind: Kind) -> None:
        """Take note that a timer has been cancelled; it is forgotten when there are many of them."""
        if not kind & 1:
            self.serious -= 1
        self._cancelled += 1
        if self._cancelled > _PRUNE and self._cancelled > self.size // 4:
            self._prune()

    def skip_cancelled(self) -> None:
        """Take off what has been cancelled, up to the next one that goes off."""
        while self._due and _is_cancelled(self._due[-1]):
            self.pop()

    def pending(self) -> list[Any]:
        """Return all timers that have neither gone off nor been cancelled, and arrivals, in no order."""
        entries = [*self._due, *(entry for bucket in self._later.values() for entry in bucket)]
        return [entry[2] for entry in entries if not _is_cancelled(entry)]

    def _prune(self) -> None:
        self._due = _without_cancelled(self._due)
        self._later = {key: kept for key, bucket in self._later.items() if (kept := _without_cancelled(bucket))}
        self._keys = list(self._later)
        heapify(self._keys)
        self._ordered &= self._later.keys()
        self.size -= self._cancelled
        self._cancelled = 0
        self._look()


def _nearness(entry: Entry) -> float:
    """Return what the earliest bucket is in the order of: the nearest comes last."""
    return -entry[0]


def _is_cancelled(entry: Entry) -> bool:
    return entry[3] >= SERIOUS_TIMER and bool(entry[2]._cancelled)


def _without_cancelled(bucket: list[Entry]) -> list[Entry]:
    return [entry for entry in bucket if not _is_cancelled(entry)]
