"""Hold a comparison: run what has no result yet, show how it goes, then the table and the figure."""

from __future__ import annotations

import csv
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

import anyio
from msgspec import structs

from rolecall.cli.options import Format
from rolecall.cli.side_by_side import run_all
from rolecall.core.errors import MissingDependency
from rolecall.observe.comparison import Entry, Result, Row, Store, rows
from rolecall.observe.events import line_of
from rolecall.observe.measuring import Point

__all__ = ("Contest",)


class Contest:
    """A comparison on the command line."""

    def __init__(self, entries: Sequence[Entry], directory: Path, jobs: int, format: Format, out: TextIO) -> None:
        self._entries, self._jobs, self._out = entries, jobs, out
        self._jsonl = format is Format.JSONL
        self._store = Store(directory)
        self._done = 0
        self._interrupted = False

    def hold(self) -> bool:
        """Run what is left to be run; return whether it was stopped before the end.

        Raises:
            EntrantFailed: a run has failed; those that were done are kept.
            BrokenPipeError: nobody reads what is shown any more.
        """
        missing = [entry for entry in self._entries if self._store.find(entry) is None]
        self._done = len(self._entries) - len(missing)
        self._started()
        try:
            anyio.run(self._run, missing)
        except BaseExceptionGroup as group:
            raise _first(group) from group
        results = [result for entry in self._entries if (result := self._store.find(entry)) is not None]
        self._finished(results)
        return self._interrupted

    async def _run(self, missing: Sequence[Entry]) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._listen, tasks.cancel_scope)
            await run_all(missing, self._store, self._jobs, self._point, self._ended)
            tasks.cancel_scope.cancel()

    async def _listen(self, scope: anyio.CancelScope) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                self._interrupted = True
                _say("Stopping; what is done is kept, and the same command goes on from there.")
                scope.cancel()
                return

    # ------------------------------------------------------------------------------------------ showing

    def _started(self) -> None:
        if self._jsonl:
            self._event("started", runs=len(self._entries), done=self._done, out=str(self._store.directory))
        else:
            amount = self._entries[0].amount
            kept = f", {self._done} of them done before" if self._done else ""
            self._line(f"{len(self._entries)} runs of {amount.budget:,} samples each{kept}")

    def _point(self, entry: Entry, point: Point) -> None:
        if self._jsonl:
            self._event("point", name=entry.label, seed=entry.seed, **structs.asdict(point))
        else:
            done = f"{point.samples:,} of {entry.amount.budget:,} samples, accuracy {point.accuracy:.3f}"
            self._line(f"{entry.label}, seed {entry.seed}: {done}, {point.time_s:,.0f} virtual s")

    def _ended(self, entry: Entry) -> None:
        self._done += 1
        if self._jsonl:
            self._event("done", name=entry.label, seed=entry.seed, done=self._done, runs=len(self._entries))
        else:
            self._line(f"{entry.label}, seed {entry.seed}: done; {self._done} of {len(self._entries)} runs")

    def _finished(self, results: Sequence[Result]) -> None:
        table = rows(results)
        figure = self._write(results)
        if self._jsonl:
            for row in table:
                self._event("compared", **structs.asdict(row))
            status = "stopped" if self._interrupted else "ok"
            self._event("finished", terminal=True, status=status, runs=len(results), figure=figure)
            return
        self._table(table)
        if figure is not None:
            self._line(f"figure: {figure}")

    def _write(self, results: Sequence[Result]) -> str | None:
        """Write the points as numbers, and as a figure; return where that is."""
        from rolecall.observe.compare_plot import save_comparison

        path = self._store.directory / "comparison.png"
        _write_points(path.with_suffix(".csv"), results)
        work = self._entries[0].work
        try:
            title = f"{work.dataset}, {work.clients} clients, {work.model}"
            return str(path) if save_comparison(path, results, title=title) else None
        except MissingDependency as error:
            _say(str(error))
            return None

    def _table(self, table: Sequence[Row]) -> None:
        from rich.console import Console
        from rich.table import Table

        shown = Table(box=None, pad_edge=False)
        for heading in _HEADINGS:
            shown.add_column(heading, justify="left" if heading == "name" else "right", no_wrap=True)
        for row in table:
            shown.add_row(*_cells(row))
        Console(file=self._out, width=None if self._out.isatty() else 200, highlight=False).print(shown)

    def _event(self, event: str, **facts: object) -> None:
        self._out.write(line_of({"event": event, **facts}))
        self._out.flush()

    def _line(self, text: str) -> None:
        self._out.write(f"{text}\n")
        self._out.flush()


_HEADINGS = ("name", "runs", "accuracy", "spread", "best", "samples", "virtual s", "MB sent", "messages", "wall s")


def _cells(row: Row) -> list[str]:
    return [
        row.name,
        str(row.runs),
        f"{row.accuracy:.4f}",
        f"{row.spread:.4f}" if row.runs > 1 else "-",
        f"{row.best:.4f}",
        f"{row.samples:,.0f}",
        f"{row.virtual_s:,.0f}",
        f"{row.bytes / 1e6:,.1f}",
        f"{row.messages:,.0f}",
        f"{row.wall_s:,.0f}",
    ]


def _write_points(path: Path, results: Sequence[Result]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("name", "seed", *Point.__struct_fields__))
        for result in results:
            for point in result.measured.points:
                writer.writerow((result.entry.label, result.entry.seed, *structs.astuple(point)))


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
