"""A modelled disk, which may be full; what it takes is written to the real one."""

from __future__ import annotations

import errno
import os

__all__ = ("Disk",)


class Disk:
    """Says whether there is room for what a node writes. It has no limit until `limit` is called."""

    __slots__ = ("_full_at", "written_bytes")

    def __init__(self) -> None:
        self.written_bytes = 0
        """All that has been written."""
        self._full_at: int | None = None

    def limit(self, free_bytes: int | None) -> None:
        """Leave room for so many bytes more; None for no limit."""
        self._full_at = None if free_bytes is None else self.written_bytes + free_bytes

    def charge(self, size_bytes: int) -> None:
        """Take note that so many bytes are about to be written; raise `OSError` when there is no room for them."""
        if self._full_at is not None and self.written_bytes + size_bytes > self._full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.written_bytes += size_bytes
