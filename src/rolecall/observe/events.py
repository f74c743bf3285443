"""The event stream: one JSON object a line, for programs that watch a run.

| event         | when                             | keys beside `event`                                     |
|---------------|----------------------------------|---------------------------------------------------------|
| `started`     | first                            | name, architecture, engine, seed, nodes, roles, ...     |
| `status`      | a role enters a status           | time_s, role, status                                    |
| `metric`      | a role logs numbers              | time_s, role, and the numbers under their own names     |
| `log`         | a line of text                   | time_s, level, source, text                             |
| `dead-letter` | a message could not be delivered | time_s, kind, role, channel, reason                     |
| `finished`    | last, of a run with a result     | terminal, status, accuracy, wall_s, digest, returned... |
| `failed`      | last, of a run without           | terminal, status, error, error_type, exit_code, ...     |

Exactly one line has `"terminal": true`: the last. A metric that a role logs under the name `event`, `role` or
`time_s` appears with an underscore after it. Numbers that JSON cannot express (nan, infinities) are null.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Mapping
from typing import Any, TextIO

import msgspec

from rolecall.core.records import Audited, Metric, Record
from rolecall.observe.summary import Failure, Plan, Summary

__all__ = ("EventStream", "event_of", "line_of")

_RESERVED = ("event", "role", "time_s", "terminal")
_TIMES = ("time_s", "wall_s")


def event_of(record: Record) -> dict[str, Any]:
    """Return a record as the object that stands for it in the event stream."""
    if isinstance(record, Metric):
        values = {f"{name}_" if name in _RESERVED else name: value for name, value in record.values.items()}
        return {"event": "metric", "role": record.role, "time_s": record.time_s, **values}
    return {"event": str(type(record).__struct_config__.tag), **msgspec.structs.asdict(record)}


def line_of(event: Mapping[str, Any]) -> str:
    """Return an event as one line of ASCII JSON, newline included; raise `TypeError` for what JSON lacks."""
    return json.dumps({key: _plain(key, value) for key, value in event.items()}, allow_nan=False) + "\n"


def _plain(key: str, value: Any) -> Any:
    """Return a value as JSON knows it: numpy's numbers as Python's, no nan, times to the microsecond."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return round(value, 6) if key in _TIMES else value
    return value


class EventStream:
    """Write a run's events to a text stream, each as soon as it happens. Safe to use from several threads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()
        self._ended = False

    def started(self, plan: Plan) -> None:
        """Write the first event."""
        self._write({"event": "started", **msgspec.structs.asdict(plan)})

    def record(self, record: Record) -> None:
        """Write a metric, a change of status, a log line or a dead letter; who did what is for the audit log."""
        if not isinstance(record, Audited):
            self._write(event_of(record))

    def finished(self, summary: Summary) -> None:
        """Write the terminal event of a run with a result."""
        self._write({"event": "finished", "terminal": True, **msgspec.structs.asdict(summary)}, last=True)

    def failed(self, failure: Failure) -> None:
        """Write the terminal event of a run without a result."""
        facts = msgspec.structs.asdict(failure)
        facts.pop("traceback")
        self._write({"event": "failed", "terminal": True, **facts}, last=True)

    def _write(self, event: Mapping[str, Any], *, last: bool = False) -> None:
        line = line_of(event)
        with self._lock:
            if self._ended:
                return  # nothing follows the terminal event, whichever thread was first to write one
            self._ended = last
            self._out.write(line)
            self._out.flush()
