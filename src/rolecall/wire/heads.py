"""What the first segment of a `Chunk` says: what has been received, and which frames follow on which lane.

It is MessagePack, `[acks, batches]`, and says whose the other segments of the chunk are:

- `acks` is `[control, normal, bulk]`, how many entries have been received on each lane since the session began;
- a batch is `[lane, first, entries]`: consecutive entries of a lane, the first of which has the number `first`
  (entries are numbered from 0 on each lane; on lane 0, which is about the connection, they have no numbers);
- an entry is `[segments, frame]`: a frame, and how many of the chunk's segments are its payload; or
  `[segments, frame, unpacked]`, where `unpacked` has the size of each segment once decompressed with zstd, or 0
  for one that is not compressed; or
  `[0, frame, unpacked, sizes]`: a frame whose payload follows in pieces, with the sizes of its segments; or
  `[1, frame, nil, nil, [lease, segment, places]]`: a frame whose segments after the first are in shared memory, at
  those places, each an offset and a size; or
  `[segments, nil]`: the next piece of it; or
  `[0, nil]`: the sender has thought better of it, and the frame is void.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from rolecall.wire.extensions import Segment
from rolecall.wire.frames import Count, Frame, Id
from rolecall.wire.limits import LimitExceeded, Malformed

__all__ = (
    "BULK",
    "CONTROL",
    "HEAD_BYTES",
    "NORMAL",
    "UNNUMBERED",
    "Acks",
    "Batch",
    "Entry",
    "Head",
    "Shared",
    "batch_start",
    "decode_head",
    "entry_head",
    "head_of_one",
    "head_start",
    "piece_head",
    "shared_head",
)

UNNUMBERED, CONTROL, NORMAL, BULK = range(4)
"""The lanes: about the connection, what must not wait, the small frames, and the large ones."""

HEAD_BYTES = 1 << 20
"""The largest first segment that is accepted; a session makes them of a third of that at most."""


class Acks(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """How many entries have been received on each lane, since the session began."""

    control: Id = 0
    normal: Id = 0
    bulk: Id = 0


Sizes: TypeAlias = Annotated[list[Id], Meta(max_length=1 << 20)]


class Shared(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Where a payload is in a segment of shared memory; the reader says so when it needs the lease no more."""

    lease: Id
    segment: Id
    places: Annotated[list[tuple[Id, Id]], Meta(max_length=1 << 16)]


class Entry(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """One entry of a lane, as it arrives; see the module."""

    segments: Count
    frame: Frame | None
    unpacked: Sizes | None = None
    sizes: Sizes | None = None
    shared: Shared | None = None


class Batch(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """Consecutive entries of a lane, as they arrive."""

    lane: Annotated[int, Meta(ge=UNNUMBERED, le=BULK)]
    first: Id
    entries: list[Entry]


class Head(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """The first segment of a chunk."""

    acks: Acks
    batches: list[Batch]


_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Head] = msgspec.msgpack.Decoder(Head)
_start_batch = struct.Struct(">BBBQBI").pack  # array of 3: small number, 64 bits, array of so many
_PREFIX = [bytes([0x92, segments]) for segments in range(0x80)]


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
        return _decoder.decode(segment)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:  # of which wrong types are a kind
        raise Malformed(f"The first segment of a chunk is not what it should be: {error}.") from None
    except RecursionError:
        raise Malformed("The first segment of a chunk is nested too deeply for Python's stack.") from None
