"""How nodes talk: values as bytes, and what is accepted from outside."""

from __future__ import annotations

from rolecall.wire.arguments import ArgsCodec
from rolecall.wire.chunk import chunk_decode, chunk_encode
from rolecall.wire.codec import Codec, Segment, decode, encode
from rolecall.wire.fingerprint import fingerprint
from rolecall.wire.limits import DEFAULT_LIMITS, LimitExceeded, Limits, LinkOverflow, Malformed
from rolecall.wire.session import Acks, Session, SessionStatistics
from rolecall.wire.session_limits import SessionLimits
from rolecall.wire.sizes import size_bytes
from rolecall.wire.suspicion import Suspicion
from rolecall.wire.values import load_value, save_value

__all__ = (
    "DEFAULT_LIMITS",
    "Acks",
    "ArgsCodec",
    "Codec",
    "LimitExceeded",
    "Limits",
    "LinkOverflow",
    "Malformed",
    "Segment",
    "Session",
    "SessionLimits",
    "SessionStatistics",
    "Suspicion",
    "chunk_decode",
    "chunk_encode",
    "decode",
    "encode",
    "fingerprint",
    "load_value",
    "save_value",
    "size_bytes",
)
