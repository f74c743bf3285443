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

from typing import Annotated, TypeAlias

import msgspec
from msgspec import Meta

from rolecall.wire.frames import Count, Frame, Id

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
