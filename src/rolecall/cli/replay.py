"""`rolecall replay`: a run once more, in virtual time, and whether it came out the same."""

from __future__ import annotations

import re
import sys
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from rolecall.cli.failures import reported
from rolecall.cli.options import DataDir, Debug, Format, FormatOption, RunsDir
from rolecall.core.errors import ConfigError

if TYPE_CHECKING:
    from rolecall.fleet.app import App

__all__ = ("replay",)

_EVENTS = re.compile(r"digest of events ([0-9a-f]+)")


def replay(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The directory of a run, as rolecall run leaves it.")],
    format: FormatOption = Format.TEXT,
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Run an application again as it ran, in virtual time, and compare.

    A run of the engine sim must give the same events, metrics and parameters
    again; one of another engine the same metrics and parameters, unless it
    depended on who came first. What differs is told, and the exit code is 1.

    Example:  rolecall replay runs/20260101-120000-fedavg
    """
    from rolecall.cli.session import Settings, attend

    with reported(debug=debug):
        before = _Left(run)
    made: list[Path] = []
    settings = Settings(
        engine="sim", format=format, runs_dir=runs_dir, data_dir=data_dir, debug=debug, on_directory=made.append
    )
    try:
        attend(before.application, settings)
    except typer.Exit as ended:
        if not made or not (made[0] / "summary.json").exists():
            raise
        differences = before.differences(_Left(made[0]))
        for difference in differences:
            sys.stderr.write(f"replay: {difference}\n")
        if differences:
            raise typer.Exit(1) from None
        sys.stderr.write(f"replay: as in {run}: {before.said()}\n")
        if before.summary["status"] == "ok":
            raise ended


class _Left:
    """What a run has left in its directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self.summary: dict[str, Any] = msgspec.json.decode((path / "summary.json").read_bytes())
            self._metrics = [msgspec.json.decode(line) for line in (path / "metrics.jsonl").read_bytes().splitlines()]
            self._events = _EVENTS.findall((path / "log.txt").read_text(encoding="utf-8"))
        except (OSError, msgspec.DecodeError) as error:
            raise ConfigError(
                str(path), f"this is no directory of a run that has ended ({error})",
                hint="Name one of those under runs/, such as runs/20260101-120000-fedavg",
            ) from None  # fmt: skip

    def application(self) -> App:
        """Return the application as it ran."""
        from rolecall.fleet.app import App

        return App.load(self._path / "app.yaml")

    def said(self) -> str:
        """Return what was the same, in few words."""
        return f"{self.summary['status']}, {len(self._metrics)} metrics, parameters {self.summary.get('digest')}"

    def differences(self, again: _Left) -> list[str]:
        """Return what is not the same, the most telling first."""
        found = []
        for name in ("status", "error", "digest"):
            one, other = self.summary.get(name), again.summary.get(name)
            if one != other:
                found.append(f"{name}: it was {one!r}, and is {other!r}")
        if (first := self._first_metric(again)) is not None:
            found.append(first)
        if self._events and self._events != again._events:
            found.append(f"the events differ: their digest was {self._events[-1]}, and is {again._events[-1:]}")
        return found

    def _first_metric(self, again: _Left) -> str | None:
        timed = self.summary.get("engine") == "sim"
        pairs = zip_longest(_comparable(self._metrics, timed), _comparable(again._metrics, timed))
        for number, (one, other) in enumerate(pairs, 1):
            if one != other:
                return f"metric {number} differs: it was {one}, and is {other}"
        return None


def _comparable(metrics: list[dict[str, Any]], timed: bool) -> list[dict[str, Any]]:
    """Return metrics as they can be compared: by role, and without times where those were real."""
    if timed:
        return metrics
    bare = [{name: value for name, value in metric.items() if name != "time_s"} for metric in metrics]
    return sorted(bare, key=lambda metric: str(metric["role"]))
