"""Where large messages arrive, again and again in the same memory: the kernel clears each page that it gives anew.

Clearing takes a third of what receiving takes. A model comes again every round, and what it arrived in is free by then.
"""

from __future__ import annotations

import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ("Landing",)

WORTH_BYTES: Final = 1 << 20
"""What is smaller comes from the memory that the process has anyway."""
KEPT: Final = 2
"""How many buffers are kept: one is read while the other is filled."""
KEPT_S: Final = 10.0
"""How long they are kept that nobody has any more, at most twice."""
_SLACK: Final = 1.25
_OWN_REFERENCES: Final = 2  # that of the tuple, and that of `getrefcount`


class Landing:
    """Gives out memory for messages to arrive in, and knows its last pieces again when nobody has them any more.

    For one thread. Who gets a piece has it as long as any view of it lives, and fills it before showing it to anyone:
    what was there before is still in it.
    """

    __slots__ = ("_kept", "_since_s", "_used")

    def __init__(self) -> None:
        self._kept: tuple[npt.NDArray[np.uint8], ...] = ()
        self._used = False
        self._since_s = 0.0

    @property
    def kept_bytes(self) -> int:
        """How much is known, in use or not."""
        return sum(buffer.nbytes for buffer in self._kept)

    def take(self, size: int) -> memoryview[Any]:
        """Return so many bytes to be filled."""
        if size < WORTH_BYTES:
            return np.empty(size, np.uint8).data
        self._used = True
        for i in range(len(self._kept)):
            if size <= self._kept[i].nbytes <= size * _SLACK and self._is_free(i):
                return self._kept[i][:size].data
        self.forget_free()  # before there is more
        buffer = np.empty(size, np.uint8)  # not touched before it is filled, unlike a bytearray
        self._kept = (*self._kept, buffer)[-KEPT:]
        return buffer.data

    def trim(self, now_s: float) -> None:
        """Give back what nobody has and nothing has arrived in for long."""
        if self._used:
            self._used, self._since_s = False, now_s
        elif self._kept and now_s - self._since_s > KEPT_S:
            self._kept = ()

    def forget_free(self) -> None:
        """Give back what nobody has."""
        self._kept = tuple(self._kept[i] for i in range(len(self._kept)) if not self._is_free(i))

    def _is_free(self, i: int) -> bool:
        return sys.getrefcount(self._kept[i]) == _OWN_REFERENCES
