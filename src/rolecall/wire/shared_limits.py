"""How much memory a node shares with others on its machine."""

from __future__ import annotations

import msgspec

__all__ = ("SharedMemoryLimits",)


class SharedMemoryLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of the segments that a node writes, all its links together, and that it takes from each peer.

    What does not fit in goes over the link's connection instead, which is slower.
    """

    total_bytes: int = 1 << 30
    """Bytes of all segments, those that are kept for what comes next included."""
    segments: int = 64
    """Their number: each takes one or two descriptors here, and at most one at each reader."""
    idle_s: float = 30.0
    """How long a segment is kept that nobody uses."""
    head_bytes: int = 64 << 10
    """A message whose MessagePack alone is larger takes the connection."""
    handshake_s: float = 5.0
    """How long a peer may take to connect."""
    pending: int = 64
    """Connections from processes that have not said yet who they are."""
