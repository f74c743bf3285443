"""How the commands that look after runs and nodes show what they found: text for people, JSON lines for programs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, TextIO

from rolecall.cli.listing import aligned
from rolecall.cli.options import Format
from rolecall.observe.events import line_of

if TYPE_CHECKING:
    from rolecall.wire.admin import LogLine, RoleStatus, StatusReply

__all__ = ("View", "duration", "view_of")

_ENDED_SHOWN = 10


class View(Protocol):
    """Shows results as they come; `finished` is last."""

    def row(self, event: str, row: Mapping[str, Any]) -> None:
        """Show a row of a list; rows of one kind have the same keys."""

    def status(self, status: StatusReply) -> None:
        """Show what runs on a node."""

    def log(self, line: LogLine) -> None:
        """Show a line of a log."""

    def result(self, role: str, channel: str, result: Any) -> None:
        """Show what a call has returned."""

    def said(self, event: str, text: str, **facts: Any) -> None:
        """Show that something was done."""

    def finished(self) -> None:
        """End."""


def view_of(format: Format, out: TextIO) -> View:
    """Return the view that a format stands for."""
    return JsonView(out) if format is Format.JSONL else TextView(out)


class JsonView:
    """One JSON object a line, the last one terminal."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def row(self, event: str, row: Mapping[str, Any]) -> None:
        self._write({"event": event, **row})

    def status(self, status: StatusReply) -> None:
        facts = {
            "node": status.node,
            "incarnation": status.incarnation,
            "up_s": round(status.up_s, 3),
            "application": status.application or None,
            "roles": [_role(role) for role in status.roles],
            "ended": [_role(role) for role in status.ended],
            "links": [
                {
                    "node": link.peer,
                    "address": link.address or None,
                    "connected": link.connected,
                    "sent_bytes": link.sent_bytes,
                    "received_bytes": link.received_bytes,
                }
                for link in status.links
            ],
            "counters": {counter.name: _whole(counter.value) for counter in status.counters},
            "dead_letters": status.dead_letters,
        }
        self._write({"event": "node", **facts})

    def log(self, line: LogLine) -> None:
        facts = {"time_s": line.time_s, "level": line.level, "source": line.source, "text": line.text}
        self._write({"event": "log", **facts})

    def result(self, role: str, channel: str, result: Any) -> None:
        self._write({"event": "result", "role": role, "channel": channel, "result": result})

    def said(self, event: str, text: str, **facts: Any) -> None:
        self._write({"event": event, **facts})

    def finished(self) -> None:
        self._write({"event": "finished", "terminal": True, "status": "ok"})

    def _write(self, event: Mapping[str, Any]) -> None:
        self._out.write(line_of(event))
        self._out.flush()


class TextView:
    """Lines and tables of text; rows are kept until the end, so that their columns can be aligned."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._rows: list[Mapping[str, Any]] = []

    def row(self, event: str, row: Mapping[str, Any]) -> None:
        self._rows.append(row)

    def status(self, status: StatusReply) -> None:
        running = f"application {status.application}" if status.application else "no application"
        linked = ", ".join(link.peer + ("" if link.connected else " (cut off)") for link in status.links)
        facts = [f"up {duration(status.up_s)}", running, *([f"linked with {linked}"] if linked else [])]
        if status.dead_letters:
            facts.append(f"{status.dead_letters:,} dead letters")
        self._say(f"{status.node}: {', '.join(facts)}")
        roles = [*status.roles, *status.ended[-_ENDED_SHOWN:]]
        self._table(
            [["  " + role.role, role.status, duration(role.since_s), role.class_path, role.detail] for role in roles]
        )

    def log(self, line: LogLine) -> None:
        level = "" if line.level == "info" else f"{line.level}: "
        at = datetime.fromtimestamp(line.time_s)
        self._say(f"{at:%H:%M:%S}.{at.microsecond // 1000:03}  {line.source}  {level}{line.text}")

    def result(self, role: str, channel: str, result: Any) -> None:
        self._say(json.dumps(result, indent=2, ensure_ascii=False))

    def said(self, event: str, text: str, **facts: Any) -> None:
        self._say(text)

    def finished(self) -> None:
        if self._rows:
            self._table([list(self._rows[0]), *([_cell(value) for value in row.values()] for row in self._rows)])

    def _table(self, lines: Sequence[Sequence[str]]) -> None:
        if lines:
            self._out.write(aligned(lines))
            self._out.flush()

    def _say(self, text: str) -> None:
        self._out.write(f"{text}\n")
        self._out.flush()


def duration(seconds: float) -> str:
    """Return a length of time in words that fit into a table."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def _cell(value: Any) -> str:
    return "-" if value is None or value == "" else str(value)


def _role(role: RoleStatus) -> dict[str, Any]:
    return {
        "role": role.role,
        "class": role.class_path,
        "status": role.status,
        "since_s": round(role.since_s, 3),
        "why": role.detail or None,
    }


def _whole(value: float) -> float:
    return int(value) if value.is_integer() else value
