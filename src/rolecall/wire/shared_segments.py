"""Memory without a name that processes of one machine share: made by one of them, seen by those it is passed to.

The one that made a segment goes on writing to it; its size is sealed, so that reading it can never fail, and so is
writing by anybody else. What the writer may change meanwhile are numbers in arrays: nothing that is parsed is ever read
from a segment.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import stat
import sys
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from rolecall.wire.limits import Malformed

__all__ = ("GRAIN_BYTES", "PREFIX", "SUPPORTED", "Segment", "map_readonly")

PREFIX: Final = "rolecall"
"""What the kernel shows of a segment in `/proc/PID/maps`, after `memfd:`."""
GRAIN_BYTES: Final = 1 << 20
SUPPORTED: Final = sys.platform == "linux" and hasattr(os, "memfd_create")

if SUPPORTED:
    _SIZE_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW
    _SEAL_FUTURE_WRITE: Final = getattr(fcntl, "F_SEAL_FUTURE_WRITE", 0x10)  # Linux 5.1, Python 3.14

_UNTRACKED: dict[str, Any] = {"trackfd": False} if sys.version_info >= (3, 13) else {}  # one descriptor less


class Segment:
    """A segment of this process, of `size` bytes, which may be written by way of `view`.

    Raises `OSError` where the system has no memory or no descriptor for it. Nothing need be closed but `fd`, which
    `close` does: the memory is let go with the last view, here and elsewhere.
    """

    __slots__ = ("fd", "number", "size", "used_s", "view")

    def __init__(self, number: int, size: int) -> None:
        self.number, self.size = number, size
        self.used_s = 0.0
        """When it was given back to its pool."""
        self.fd = os.memfd_create(PREFIX, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.ftruncate(self.fd, size)
            writable = mmap.mmap(self.fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, **_UNTRACKED)
            _seal(self.fd)
        except BaseException:
            self.close()
            raise
        self.view = memoryview(writable)

    def close(self) -> None:
        """Let go of the descriptor: nobody else can be given the segment any more."""
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            os.close(fd)


def _seal(fd: int) -> None:
    try:
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS | _SEAL_FUTURE_WRITE | fcntl.F_SEAL_SEAL)
    except OSError:  # an older kernel
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SIZE_SEALS | fcntl.F_SEAL_SEAL)


def map_readonly(fd: int, size: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of another process's segment, read-only; `fd` may be closed afterwards.

    Raises `Malformed` for what is no sealed memory of that size, and `OSError` where this process cannot map it.
    """
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_size != size or not size:
        raise Malformed(f"Shared memory of {size:,} bytes was announced, and {found.st_size:,} came.")
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
    except OSError:
        seals = 0
    if seals & _SIZE_SEALS != _SIZE_SEALS:
        raise Malformed("Shared memory came whose size can still change.")
    return np.frombuffer(mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ, **_UNTRACKED), np.uint8)
