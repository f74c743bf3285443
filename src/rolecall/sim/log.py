"""What happened in a simulation, in order, and a digest of it: the same seed gives the same digest."""

from __future__ import annotations

import hashlib
import re
import struct
from collections import deque
from typing import Any, Final

import msgspec

from rolecall.core.records import Audited, DeadLetter, Metric, Record, StatusChange
from rolecall.sim.events import Event, Packet

__all__ = ("EventLog",)

EVENTS_KEPT: Final = 100_000
PACKETS_KEPT: Final = 100_000
_ADDRESS: Final = re.compile(r"0x[0-9a-f]{6,}")
_ENDS: Final = struct.Struct("<II")
_PACKET: Final = struct.Struct("<d8sQ")


class EventLog:
    """Keeps the last events, and packets where `trace` is set; all of them count in the digest."""

    began_s = 0.0
    """When the run began, by the clock that times are given by; they are kept from there on."""

    def __init__(self, *, trace: bool = False) -> None:
        self._events: deque[bytes] = deque(maxlen=EVENTS_KEPT)  # packed, as they take a third of the memory then
        self.packets: deque[Packet] = deque(maxlen=PACKETS_KEPT)
        self._trace = trace
        self._hash = hashlib.blake2b(digest_size=16)
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    @property
    def digest(self) -> str:
        """A hash of all that has happened so far."""
        return self._hash.hexdigest()

    @property
    def events(self) -> list[Event]:
        """What has happened, the last 100,000."""
        return [msgspec.msgpack.decode(packed, type=Event) for packed in self._events]

    def add(self, now_s: float, node: str, kind: str, **facts: Any) -> None:
        """Take note of something; facts are plain values."""
        event = Event(now_s - self.began_s, node, kind, {name: _plain(facts[name]) for name in facts})
        packed = msgspec.msgpack.encode(event)
        self._events.append(packed)
        self._hash.update(packed)

    def ends(self, src: str, dst: str) -> bytes:
        """Return what stands for a sender and a receiver in `packet`."""
        return _ENDS.pack(self._number(src), self._number(dst))

    def packet(self, now_s: float, ends: bytes, size_bytes: int) -> None:
        """Take note that bytes were sent."""
        time_s = now_s - self.began_s
        self._hash.update(_PACKET.pack(time_s, ends, size_bytes))
        if self._trace:
            src, dst = _ENDS.unpack(ends)
            self.packets.append(Packet(time_s, self._names[src], self._names[dst], size_bytes))

    def record(self, now_s: float, node: str, record: Record) -> None:
        """Take note of what a node tells its observers."""
        if isinstance(record, StatusChange):
            self.add(now_s, node, "status", role=record.role, status=record.status)
        elif isinstance(record, Metric):
            self.add(now_s, node, "metric", role=record.role, **{f".{k}": v for k, v in record.values.items()})
        elif isinstance(record, DeadLetter):
            where = f"{record.role}.{record.channel}"
            self.add(now_s, node, "dead-letter", what=record.kind, to=where, reason=record.reason)
        elif isinstance(record, Audited):
            self.add(now_s, node, "audit", what=record.what, **{f".{k}": v for k, v in record.facts.items()})
        else:
            self.add(now_s, node, "log", level=record.level, source=record.source, text=record.text)

    def _number(self, node: str) -> int:
        number = self._numbers.setdefault(node, len(self._numbers))
        if number == len(self._names):
            self._names.append(node)
        return number


def _plain(value: Any) -> Any:
    """Return a value that hashes alike in every process: no addresses of objects, no types of numpy."""
    if isinstance(value, str):
        return _ADDRESS.sub("0x", value)
    if type(value) in (bool, int, float, type(None)):
        return value
    item = getattr(value, "item", None)
    return item() if callable(item) else _ADDRESS.sub("0x", str(value))
