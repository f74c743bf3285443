"""The message that a thread is decoding: what its hooks look at, and count in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy.typing as npt

    from rolecall.wire.limits import Limits

__all__ = ("Message",)


class Message:
    """The segments of a message, and what has been found in it so far."""

    __slots__ = ("bfloat16", "limits", "segments", "tensors")

    def __init__(self, segments: Sequence[bytes | memoryview], limits: Limits) -> None:
        self.segments, self.limits = segments, limits
        self.tensors = 0
        """How many arrays there were."""
        self.bfloat16: tuple[npt.NDArray[Any], ...] = ()
        """Those of them that numpy can only hold as float32."""
