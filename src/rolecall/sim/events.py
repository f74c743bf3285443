"""What an event log holds: events, and packets between nodes."""

from __future__ import annotations

from typing import Any

import msgspec

__all__ = ("Event", "Packet")


class Event(msgspec.Struct, frozen=True):
    """Something that happened, at a time of the world, on a node (or to none in particular)."""

    time_s: float
    node: str
    kind: str
    facts: dict[str, Any]

    def __str__(self) -> str:
        facts = " ".join(f"{name}={value}" for name, value in self.facts.items())
        return f"{self.time_s:12.6f}  {self.node or '-':<12} {self.kind:<12} {facts}"


class Packet(msgspec.Struct, frozen=True):
    """Bytes that a node sent to another, headers included."""

    time_s: float
    src: str
    dst: str
    size_bytes: int
