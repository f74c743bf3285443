"""The frames that pass between simulated nodes, for those who want something to happen exactly then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import msgspec

from rolecall.wire.extensions import Segment
from rolecall.wire.frames import Frame
from rolecall.wire.head_codec import decode_head

__all__ = ("Moment", "Passing", "Watcher", "frames_of")

Moment: TypeAlias = Literal["sent", "arrived"]


class Passing(msgspec.Struct, frozen=True):
    """A frame that `src` is about to send to `dst`, or that `dst` has just taken; once more if it is sent again."""

    moment: Moment
    src: str
    dst: str
    frame: Frame


Watcher: TypeAlias = Callable[[Passing], None]


def frames_of(head: Segment) -> list[Frame]:
    """Return the frames of a chunk, whose first segment is given; those in pieces with their first piece."""
    entries = [entry for batch in decode_head(memoryview(head)).batches for entry in batch.entries]
    return [entry.frame for entry in entries if entry.frame is not None]
