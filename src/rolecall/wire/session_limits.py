"""What bounds a session."""

from __future__ import annotations

import msgspec

from rolecall.wire.limits import DEFAULT_LIMITS, Limits

__all__ = ("SessionLimits",)


class SessionLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How much a session keeps, and in what portions it sends."""

    wire: Limits = DEFAULT_LIMITS
    """What is accepted from the other side, and sent to it."""
    outbox_bytes: int = 1 << 30
    """Bytes kept until the other side has them; one frame may go beyond. Control frames do not count. Results may fill
    it twice, and what others wait for and holds little (errors, `Full`, `Ready`, credits) three times."""
    outbox_frames: int = 65_536
    """Frames kept until the other side has them, on each lane; the same holds for results and the rest."""
    bulk_bytes: int = 256 << 10
    """A larger payload goes by the bulk lane."""
    piece_bytes: int = 256 << 10
    """Bytes of a piece of such a payload."""
    bulk_credit_bytes: int = 512 << 10
    """Bytes on the bulk lane that may be sent before the other side acknowledges some (but one piece always)."""
    ack_frames: int = 64
    """Frames received after which an acknowledgement goes out, if it cannot go with something else."""
    ack_bytes: int = 128 << 10
    """The same in bytes. Anything on the bulk lane is acknowledged at once."""
