"""Writes and reads what `rolecall.wire.heads` describes: the first segments of chunks."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Final

import msgspec

from rolecall.wire.extensions import Segment
from rolecall.wire.heads import HEAD_BYTES, Acks, Head, Shared
from rolecall.wire.limits import LimitExceeded, Malformed

__all__ = ("batch_start", "decode_head", "entry_head", "head_of_one", "head_start", "piece_head", "shared_head")

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Head] = msgspec.msgpack.Decoder(Head)
_decode: Final = _decoder.decode
_start_batch = struct.Struct(">BBBQBI").pack  # array of 3: small number, 64 bits, array of so many
_PREFIX: Final = [bytes([0x92, segments]) for segments in range(0x80)]


def entry_head(frame: bytes, segments: int, unpacked: Sequence[int] = (), sizes: Sequence[int] = ()) -> bytes:
    """Return the entry of an encoded frame, with `segments` segments or with pieces of `sizes` to come."""
    if not sizes and not unpacked and segments < 0x80:
        return _PREFIX[segments] + frame
    fields = [unpacked, sizes] if sizes else [unpacked] if unpacked else []
    start = bytes([0x92 + len(fields)]) + _encoder.encode(0 if sizes else segments)
    return b"".join([start, frame, *map(_encoder.encode, fields)])


def piece_head(segments: int) -> bytes:
    """Return the entry of a piece; without segments, of one that voids the frame."""
    return entry_head(b"\xc0", segments)


def shared_head(frame: bytes, shared: Shared) -> bytes:
    """Return the entry of an encoded frame whose payload, but for its first segment, is in shared memory."""
    return b"\x95\x01%b\xc0\xc0%b" % (frame, _encoder.encode(shared))


def head_start(acks: Acks, batches: int) -> bytes:
    """Return the beginning of the first segment of a chunk; so many batches follow."""
    return b"\x92%b%c" % (_encoder.encode(acks), 0x90 + batches)


def head_of_one(acks: Acks, lane: int, first: int, entry: bytes) -> bytes:
    """Return the whole first segment of a chunk that brings one entry."""
    return b"\x92%b\x91%b%b" % (_encoder.encode(acks), _start_batch(0x93, lane, 0xCF, first, 0xDD, 1), entry)


def batch_start(lane: int, first: int, entries: int) -> bytes:
    """Return the beginning of a batch; so many entries follow."""
    return _start_batch(0x93, lane, 0xCF, first, 0xDD, entries)


def decode_head(segment: Segment) -> Head:
    """Return what the first segment of a chunk says; raise `Malformed` or `LimitExceeded`."""
    if len(segment) > HEAD_BYTES:
        raise LimitExceeded("bytes of a chunk's first segment", len(segment), HEAD_BYTES)
    try:
        return _decode(segment)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # of which wrong types are a kind
        raise Malformed(f"The first segment of a chunk is not what it should be: {error}.") from None
    except RecursionError:
        raise Malformed("The first segment of a chunk is nested too deeply for Python's stack.") from None
