"""Who waits for what: one line for each task that has not ended."""

from __future__ import annotations

import asyncio
from types import CodeType
from typing import Any, Final

__all__ = ("waiting_tasks",)

_LINES: Final = 50
_OURS: Final = ("core", "wire", "runtime", "fleet", "sim")
_LIBRARY: Final = ("/asyncio/", "/anyio/", "/grpclib/", *(f"/rolecall/{package}/" for package in _OURS))


def waiting_tasks(loop: asyncio.AbstractEventLoop) -> list[str]:
    """Return a line for each task of a loop that waits in code of the user's; for all tasks where none does."""
    found = sorted(
        ((task, _innermost(task.get_coro())) for task in asyncio.all_tasks(loop) if not task.done()),
        key=lambda entry: getattr(entry[0], "serial", 0),
    )
    own = [entry for entry in found if not _is_library(entry[1][0])] or found
    lines = [f"{task.get_name()}: in {code.co_name} ({code.co_filename}:{line})" for task, (code, line) in own]
    more = len(lines) - _LINES
    return lines[:_LINES] + ([f"and {more} more"] if more > 0 else [])


def _innermost(coro: Any) -> tuple[CodeType, int]:
    """Return where a coroutine waits: the innermost line that is not of a library, or else the innermost."""
    found: list[tuple[CodeType, int]] = []
    while coro is not None:
        frame = getattr(coro, "cr_frame", None) or getattr(coro, "gi_frame", None) or getattr(coro, "ag_frame", None)
        if frame is None:
            break
        found.append((frame.f_code, frame.f_lineno))
        coro = getattr(coro, "cr_await", None) or getattr(coro, "gi_yieldfrom", None) or getattr(coro, "ag_await", None)
    own = [place for place in found if not _is_library(place[0])]
    return (own or found or [(_innermost.__code__, 0)])[-1]


def _is_library(code: CodeType) -> bool:
    return any(part in code.co_filename for part in _LIBRARY)
