"""What has been said on a node lately, for whoever asks for its log."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from rolecall.core.patterns import is_pattern, matches
from rolecall.core.records import Audited, DeadLetter, LogLine, Metric, Record, StatusChange

__all__ = ("LEVELS", "Journal", "Line")

KEPT_LINES = 2_000
LEVELS = ("debug", "info", "warning", "error")
"""The levels of lines, the least first."""


class Line(msgspec.Struct, frozen=True):
    """A line of a node's log; `time_s` is seconds since 1970 by the clock of the node."""

    time_s: float
    level: str
    source: str
    text: str


class Journal:
    """Keeps the last lines of a node and lets any number of readers follow; `record` is an observer.

    A reader that is slower than the lines come misses the oldest, and is told how many.
    """

    def __init__(self, kept: int = KEPT_LINES, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._kept: deque[tuple[float, Record]] = deque(maxlen=kept)
        self._count = 0
        self._news = asyncio.Event()

    def record(self, record: Record) -> None:
        """Keep a record; only on the event loop."""
        self._kept.append((self._clock(), record))
        self._count += 1
        if not self._news.is_set():
            self._news.set()

    def handler(self, to_loop: Callable[[Callable[[], None]], object]) -> logging.Handler:
        """Return a handler of Python's logging that keeps what is logged; `to_loop` calls on the event loop."""
        return _JournalHandler(self, to_loop)

    async def read(
        self, source: str = "", level: str = "info", *, past: int = 100, follow: bool = False
    ) -> AsyncIterator[Line]:
        """Yield the last `past` lines, and with `follow` all that come.

        Only those of a role, of all roles that a pattern matches, or of a whole node are given where `source` names
        one, and none of a lesser level than `level`.
        """
        wanted = _Wanted(source, level)
        first = self._count - len(self._kept)
        old = deque((line for line in map(_line, self._kept) if wanted.has(line)), maxlen=past)
        seen = first + len(self._kept)
        for line in old:
            yield line
        while follow:
            await self._more(seen)
            lost, fresh = self._since(seen)
            seen = self._count
            if lost:
                yield Line(self._clock(), "warning", "log", f"{lost:,} lines came too fast to be shown")
            for line in map(_line, fresh):
                if wanted.has(line):
                    yield line

    async def _more(self, seen: int) -> None:
        while self._count == seen:
            self._news.clear()
            await self._news.wait()

    def _since(self, seen: int) -> tuple[int, list[tuple[float, Record]]]:
        """Return how many lines since the first `seen` are gone, and those that are not."""
        first = self._count - len(self._kept)
        return max(first - seen, 0), list(itertools.islice(self._kept, max(seen - first, 0), None))


class _Wanted:
    """What a reader wants to see."""

    def __init__(self, source: str, level: str) -> None:
        self._source, self._levels = source, LEVELS[LEVELS.index(level) :]

    def has(self, line: Line) -> bool:
        return line.level in self._levels and self._is_of(line.source)

    def _is_of(self, source: str) -> bool:
        wanted = self._source
        if not wanted or source == wanted:
            return True
        if "/" not in wanted:
            home = source.partition("/")[0]
            return home == wanted or (is_pattern(wanted) and matches(wanted, home))
        return is_pattern(wanted) and matches(wanted, source)


class _JournalHandler(logging.Handler):
    """Keeps what is logged, but for what the node itself logs, which comes as records."""

    def __init__(self, journal: Journal, to_loop: Callable[[Callable[[], None]], object]) -> None:
        super().__init__(logging.INFO)
        self._journal, self._to_loop = journal, to_loop

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record of Python's logging; from any thread."""
        if record.name == "rolecall.node":
            return
        source = record.name.removeprefix("rolecall.role.")
        level = next(
            (name for name in reversed(LEVELS) if record.levelno >= logging.getLevelName(name.upper())), "info"
        )
        try:
            line = LogLine(0.0, level, source, self.format(record))
        except Exception:
            self.handleError(record)
        else:
            self._to_loop(lambda: self._journal.record(line))


def _line(kept: tuple[float, Record]) -> Line:
    """Return a record as a line."""
    time_s, record = kept
    match record:
        case LogLine():
            return Line(time_s, record.level, record.source, record.text)
        case Metric():
            return Line(time_s, "info", record.role, " ".join(f"{k}={_short(v)}" for k, v in record.values.items()))
        case StatusChange():
            return Line(time_s, "info", record.role, f"is {record.status}")
        case DeadLetter():
            text = f"dead letter: {record.kind} to {record.role}.{record.channel}: {record.reason}"
            return Line(time_s, "warning", record.role, text)
        case Audited():
            facts = "".join(f" {name}={value}" for name, value in record.facts.items())
            return Line(time_s, "debug", record.node, f"audit: {record.what}{facts}")


def _short(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
