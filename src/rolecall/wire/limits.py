"""What a node accepts from outside, and the errors for what it does not accept."""

from __future__ import annotations

import msgspec

from rolecall.core.errors import RolecallError

__all__ = ("DEFAULT_LIMITS", "LimitExceeded", "Limits", "LinkOverflow", "Malformed")


class Malformed(RolecallError):
    """Raised when bytes that arrived are not a message: cut short, damaged, or written by something else."""


class LimitExceeded(Malformed):
    """Raised when what arrived claims more than this node accepts, before memory is taken for it."""

    def __init__(self, limit: str, found: int, allowed: int) -> None:
        other = f", or raise Limits({limit}=...) on the receiving node" if limit in Limits.__struct_fields__ else ""
        super().__init__(
            f"A message exceeds the limit `{limit}`: {found:,}, where {allowed:,} are allowed. "
            f"Send less at once{other}."
        )
        self.limit, self.found, self.allowed = limit, found, allowed


class LinkOverflow(RolecallError):
    """Raised when too much waits for a link: its peer takes less than is sent, or is cut off."""

    def __init__(self, peer: str, limit: str, found: int, allowed: int) -> None:
        super().__init__(
            f"The link to {peer} holds {found:,} {limit} that have not been acknowledged, and {allowed:,} are "
            "allowed. Wait until it has sent some (back-pressure), send less at once, or raise "
            f"SessionLimits(outbox_{limit}=...)."
        )
        self.peer, self.limit, self.found, self.allowed = peer, limit, found, allowed


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Upper bounds for what comes from another node, checked before memory is taken for it."""

    frame_bytes: int = 64 << 20
    """Bytes of one `Chunk`."""
    message_bytes: int = 4 << 30
    """Bytes of all segments of one message, put together from any number of chunks."""
    segments: int = 65_536
    """Segments of one `Chunk` or of one message."""
    tensors: int = 8_192
    """Arrays in one message, each array inside `Tensors` included."""
    packed_bytes: int = 4 << 20
    """Bytes of what is compressed in one message, once unpacked: the event loop does it, at 2 to 6 ms a megabyte."""
    depth: int = 64
    """Levels of lists, dicts and structs inside one another."""

    def check(self, limit: str, found: int) -> None:
        """Raise `LimitExceeded` if `found` is more than the limit of that name."""
        allowed: int = getattr(self, limit)
        if found > allowed:
            raise LimitExceeded(limit, found, allowed)


DEFAULT_LIMITS = Limits()
