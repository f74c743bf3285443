"""Print rows: a table for people, one JSON object a line for programs."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rolecall.cli.options import Format

__all__ = ("aligned", "show_rows")


def show_rows(
    event: str,
    rows: Sequence[Mapping[str, Any]],
    *,
    format: Format,
    headings: Sequence[str],
    ending: Mapping[str, Any] | None = None,
) -> None:
    """Print `rows`, mappings with equal keys; as text under `headings`, one for each key.

    As JSON lines each row is an object with `"event": event`, and a terminal event with the facts of `ending`
    is the last.
    """
    if format is Format.JSONL:
        from rolecall.observe.events import line_of

        last = {"event": "finished", "terminal": True, "status": "ok", **(ending or {})}
        sys.stdout.writelines(line_of(line) for line in (*({"event": event, **row} for row in rows), last))
    else:
        sys.stdout.write(aligned([list(headings), *(_cells(row) for row in rows)]))
    sys.stdout.flush()


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [_cell(value) for value in row.values()]


def _cell(value: object) -> str:
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case _:
            return str(value)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return cells as columns as wide as their widest cell, the last as long as it likes."""
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    widths[-1] = 0
    return "".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True)).rstrip() + "\n"
        for cells in lines
    )
