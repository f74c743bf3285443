"""The life of a role instance, as its statuses."""

from __future__ import annotations

import enum

__all__ = ("Status",)


class Status(enum.Enum):
    """Where a role instance is in its life."""

    DECLARED = "declared"
    STARTING = "starting"
    READY = "ready"
    PAUSING = "pausing"
    PAUSED = "paused"
    RESUMING = "resuming"
    STOPPING = "stopping"
    STOPPED = "stopped"
    MOVED = "moved"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        """Whether the instance will handle nothing any more."""
        return self in (Status.STOPPED, Status.MOVED, Status.FAILED)
