"""Large worlds in huge pages: what thousands of nodes hold is read all over, and each page has to be found again."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from functools import cache
from mmap import PAGESIZE
from pathlib import Path
from typing import Any, Final

__all__ = ("HugePages",)

PAGE_BYTES: Final = 2 << 20
WORTH_BYTES: Final = 128 << 20
"""How much a process must have grown since the beginning for it to pay."""
GROWTH: Final = 1.1
"""How much more it must hold than the last time."""

_MADV_COLLAPSE: Final = 25  # of Linux 6.1; older ones refuse it, which does no harm


class HugePages:
    """Has Linux put the memory of this process into pages of 2 MB, again whenever it has grown by a tenth.

    It is no more than advice: where the kernel does not take it (before 6.1, with `transparent_hugepage` set to
    `never`, without free memory in one piece, elsewhere than on Linux), nothing changes.
    """

    def __init__(self) -> None:
        self._next_bytes = _held_bytes() + WORTH_BYTES

    def settle(self) -> None:
        """Do so, if there is enough to do; it takes some milliseconds for each of the megabytes that are new."""
        held = _held_bytes()
        if held >= self._next_bytes:
            self._next_bytes = int(GROWTH * held)
            for begin, end in _private_memory(Path("/proc/self/maps").read_text()):
                for page in range(begin, end, PAGE_BYTES):
                    _libc().madvise(page, PAGE_BYTES, _MADV_COLLAPSE)


def _held_bytes() -> int:
    """Return what this process holds; 0 where there is nothing to be done."""
    if sys.platform != "linux":
        return 0
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGESIZE


def _private_memory(maps: str) -> Iterator[tuple[int, int]]:
    """Return where whole huge pages fit into what the process has allocated, from what `/proc/self/maps` says."""
    for line in maps.splitlines():
        place, rights, _, _, inode, *name = line.split(maxsplit=5)
        if rights == "rw-p" and inode == "0" and (not name or name[0] == "[heap]"):
            begin, end = (int(address, 16) for address in place.split("-"))
            begin, end = begin + -begin % PAGE_BYTES, end - end % PAGE_BYTES
            if begin < end:
                yield begin, end


@cache
def _libc() -> Any:
    found = ctypes.CDLL(None)
    found.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return found
