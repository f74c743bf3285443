"""What a run tells its observers: metrics, changes of status, dead letters, log lines, and who had what done."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from rolecall.core.ids import RoleId

__all__ = (
    "DEPLOYMENT", "SIMULATION", "Audited", "DeadLetter", "LogLine", "Metric", "Observer", "Record", "StatusChange",
)  # fmt: skip


DEPLOYMENT = "deployment"
"""The source of log lines that say how far the nodes of a run are before it starts."""
SIMULATION = "sim"
"""The source of the log line that says what a simulation has come to: its last, with the digest of its events."""


class Metric(msgspec.Struct, frozen=True, tag="metric"):
    """What a role recorded with `self.log(...)`, `time_s` seconds after the run began."""

    time_s: float
    role: RoleId
    values: dict[str, float | int | str]


class StatusChange(msgspec.Struct, frozen=True, tag="status"):
    """A role has entered the status `status`."""

    time_s: float
    role: RoleId
    status: str


class DeadLetter(msgspec.Struct, frozen=True, tag="dead-letter"):
    """A message that could not be delivered or answered, and why."""

    time_s: float
    kind: str
    role: RoleId
    channel: str
    reason: str


class LogLine(msgspec.Struct, frozen=True, tag="log"):
    """A line of text about the run; `level` is one of "info", "warning", "error"."""

    time_s: float
    level: str
    source: str
    text: str


class Audited(msgspec.Struct, frozen=True, tag="audit"):
    """Somebody had something done to a node, or was refused it; `facts` say who, what and why, by name."""

    time_s: float
    node: str
    what: str
    facts: dict[str, Any]


Record: TypeAlias = Metric | StatusChange | DeadLetter | LogLine | Audited
Observer: TypeAlias = Callable[[Record], None]
