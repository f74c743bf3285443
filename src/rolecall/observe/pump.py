"""Carry the records of a run from the event loop to whatever writes them, in a thread of its own.

Writing to a terminal, a pipe or a disk can block; the event loop must not. The loop puts records into a
bounded queue; one thread hands each record, in order, to every sink.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from types import TracebackType

from rolecall.core.records import Observer, Record

__all__ = ("Pump",)

_RECORDS_WAITING = 100_000


class Pump:
    """An observer that passes every record on to `sinks`, in order, in a thread of its own.

    Use it as a context manager; leaving it waits until everything is written. A sink that raises gets no more
    records: `on_error` is told at once, in the pump's thread, and the others go on. With 100,000 records
    waiting the event loop is held up rather than a record lost.
    """

    def __init__(self, *sinks: Observer, on_error: Callable[[Exception], None]) -> None:
        self._sinks = list(sinks)
        self._on_error = on_error
        self._waiting: queue.Queue[Record | None] = queue.Queue(_RECORDS_WAITING)
        self._thread = threading.Thread(target=self._carry, name="rolecall-records", daemon=True)

    def __call__(self, record: Record) -> None:
        """Take one record; returns at once."""
        self._waiting.put(record)

    def __enter__(self) -> Pump:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _carry(self) -> None:
        while (record := self._waiting.get()) is not None:
            for sink in tuple(self._sinks):
                self._give(sink, record)

    def _give(self, sink: Observer, record: Record) -> None:
        try:
            sink(record)
        except Exception as error:  # handed on, and the sink is not asked again
            self._sinks.remove(sink)
            self._on_error(error)
