"""What two processes of one machine say to each other over the socket by which they share memory; sans-IO.

It is a Unix socket that keeps the boundaries of messages (`SOCK_SEQPACKET`). Each message is MessagePack, an array that
begins with its kind.
"""

from __future__ import annotations

from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from rolecall.wire.frames import Id
from rolecall.wire.limits import Malformed
from rolecall.wire.security import proof_of, proves

__all__ = (
    "MESSAGE_BYTES",
    "RELEASES_MAX",
    "Announce",
    "Greeting",
    "Message",
    "Offer",
    "Release",
    "Retire",
    "decode_message",
    "encode_message",
    "greeting_of",
    "is_from",
)

MESSAGE_BYTES: Final = 8 << 10
"""The largest message that is accepted."""
RELEASES_MAX: Final = 500
"""Leases released by one message."""


class Offer(msgspec.Struct, frozen=True):
    """Where a peer can connect for it, if it is on the same machine: an abstract Unix address, and a key for once."""

    name: Annotated[str, Meta(pattern=r"\Arolecall-[0-9a-f]{32}\Z")]
    number: Id
    key: Annotated[bytes, Meta(min_length=16, max_length=64)]


class _Message(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Base of the messages."""


class Greeting(_Message, frozen=True, tag=1):
    """The first message of each side: which offer it is about, proof of the key, and what this side takes in."""

    number: Id
    proof: Annotated[bytes, Meta(max_length=64)]
    bytes_max: Id
    segments_max: Id


class Announce(_Message, frozen=True, tag=2):
    """A segment of so many bytes; its descriptor comes with the message."""

    segment: Id
    size: Id


class Retire(_Message, frozen=True, tag=3):
    """A segment that will not be spoken of again."""

    segment: Id


class Release(_Message, frozen=True, tag=4):
    """Leases of the other side's segments that have ended: nobody here looks at those bytes any more."""

    leases: Annotated[list[Id], Meta(max_length=RELEASES_MAX)]


Message: TypeAlias = Greeting | Announce | Retire | Release

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode_message(message: Message) -> bytes:
    """Return a message as it is sent."""
    return _encoder.encode(message)


def decode_message(data: bytes) -> Message:
    """Return a message that has come; raise `Malformed` for anything else."""
    try:
        return _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"What came about shared memory is no message: {error}.") from None


def greeting_of(offer: Offer, side: str, bytes_max: int, segments_max: int) -> Greeting:
    """Return what `side` ("dialler" or "acceptor") of an offer says first."""
    return Greeting(offer.number, proof_of(offer.key, _label(side), offer.name.encode()), bytes_max, segments_max)


def is_from(greeting: Greeting, offer: Offer, side: str) -> bool:
    """Return whether a greeting comes from who was meant by the offer."""
    return proves(greeting.proof, offer.key, _label(side), offer.name.encode())


def _label(side: str) -> str:
    return f"rolecall shared memory {side}"
