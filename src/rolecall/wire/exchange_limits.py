"""How many links a node has, and how long it waits for what."""

from __future__ import annotations

import msgspec

from rolecall.wire.session_limits import SessionLimits
from rolecall.wire.shared_limits import SharedMemoryLimits

__all__ = ("ExchangeLimits",)


class ExchangeLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of an `Exchange`."""

    session: SessionLimits = SessionLimits()
    """Those of each link."""
    shared_memory: SharedMemoryLimits | None = SharedMemoryLimits()
    """Those of the memory shared with nodes on the same machine; None to send everything instead."""
    links: int = 1_024
    """Links of this node."""
    connections: int = 2_048
    """Connections others have made to it, those that are no links (yet) included."""
    handshake_s: float = 5.0
    """From the beginning of a connection until the link is there."""
    dial_attempts: int = 8
    """How often a dial tries, and ..."""
    dial_pause_s: float = 0.05
    """... how long it waits after the first attempt; twice as long after each further one, 2 s at most."""
    heartbeat_s: float = 0.4
    suspicion_min_s: float = 2.0
    """A peer may be silent for so long, however regular it was before, and ..."""
    suspicion_max_s: float = 2.5
    """... not longer than that, however irregular."""
    resume_s: float = 2.0
    """How long a link may be without a connection."""
    replaces: bool = True
    """Whether a node that has been started again takes the place of its former life at once; or else only when that
    is lost, so that nobody else of its name can push it aside."""
    close_s: float = 1.0
    """How long closing waits for what is on its way."""
