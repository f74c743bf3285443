"""The run directory: everything a run leaves behind, in files that outlive it.

| file                | what                                                                               |
|---------------------|------------------------------------------------------------------------------------|
| `app.yaml`          | the expanded application; `rolecall run app.yaml` repeats the run, result included |
| `metrics.jsonl`     | every metric, one JSON object a line, as in the event stream                       |
| `log.txt`           | statuses, log lines, dead letters, and the traceback of what failed                |
| `model.safetensors` | the final parameters, when the application has any                                 |
| `curve.png`         | the curves of accuracy and loss, when matplotlib is installed                      |
| `summary.json`      | how the run ended; written last, so that whoever sees it sees the rest too         |
"""

from __future__ import annotations

import platform
import re
import sys
from collections.abc import Callable
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Protocol, TextIO

import msgspec

from rolecall.core.errors import ConfigError
from rolecall.core.records import Audited, DeadLetter, LogLine, Metric, Record, StatusChange
from rolecall.fleet.audit import audit_line
from rolecall.observe.events import event_of, line_of
from rolecall.observe.summary import Failure, Summary

__all__ = ("RunDirectory", "Saveable", "versions")

_NAME_LENGTH = 60
_SAME_SECOND = 1000


class Saveable(Protocol):
    """What can write itself to a file: an application, or tensors."""

    def save(self, path: Path, /) -> object: ...


class RunDirectory:
    """The directory of one run; open from the moment it is created until `close`.

    `charge` is told how many characters are about to be written, and may raise `OSError`, as a full disk does.
    """

    def __init__(self, path: Path, charge: Callable[[int], None] = lambda size: None) -> None:
        self.path, self._charge = path, charge
        self._metrics: TextIO = (path / "metrics.jsonl").open("w", encoding="utf-8")
        self._log: TextIO = (path / "log.txt").open("w", encoding="utf-8")
        self._audit: TextIO | None = None

    @classmethod
    def create(cls, runs_dir: Path, name: str, *, now: datetime) -> RunDirectory:
        """Create `<runs_dir>/<time>-<name>/` and return it; raise `ConfigError` where nothing can be written.

        Runs of one name begun in the same second are numbered: `...-fedavg`, `...-fedavg-2`.
        """
        stem = f"{now:%Y%m%d-%H%M%S}-{_file_name(name)}"
        try:
            runs_dir.mkdir(parents=True, exist_ok=True)
            return cls(_new_directory(runs_dir, stem))
        except OSError as error:
            raise ConfigError(
                f"--runs-dir {runs_dir}",
                f"the run directory cannot be created ({error.strerror or error})",
                hint="Name a directory you may write to, as in: --runs-dir /tmp/runs",
            ) from error

    def save_app(self, app: Saveable) -> None:
        """Write the expanded application."""
        app.save(self.path / "app.yaml")

    def record(self, record: Record) -> None:
        """Write one record to `metrics.jsonl`, `log.txt` or `audit.jsonl`, where it can be read at once."""
        if isinstance(record, Metric):
            self._write(self._metrics, line_of(event_of(record)))
        elif isinstance(record, Audited):
            self._write(self._audit_log(), audit_line(record.node, record.what, record.facts))
        else:
            self.log(record)

    def log(self, record: StatusChange | DeadLetter | LogLine) -> None:
        """Write one record to `log.txt`."""
        self._write(self._log, f"{record.time_s:12.6f}  {_log_text(record)}\n")

    def _audit_log(self) -> TextIO:
        """Return the file for what was done and refused, which few runs in one process have."""
        if self._audit is None:
            self._audit = (self.path / "audit.jsonl").open("w", encoding="utf-8")
        return self._audit

    def _write(self, file: TextIO, text: str) -> None:
        self._charge(len(text))
        file.write(text)
        file.flush()

    def finish(self, summary: Summary, final: Saveable | None) -> None:
        """Write the final parameters, and how the run ended."""
        if final is not None:
            final.save(self.path / "model.safetensors")
        self._log.write(f"{summary.wall_s:12.6f}  info     {summary.name} ended: {summary.status}\n")
        self._summarise(summary)

    def fail(self, failure: Failure) -> None:
        """Write what ended the run, with its traceback."""
        self._log.write(f"{failure.status}: {failure.error}\n{failure.traceback}")
        self._summarise(failure)

    def close(self) -> None:
        """Close the files; safe to call twice."""
        self._metrics.close()
        if self._audit is not None:
            self._audit.close()
        self._log.close()

    def files(self) -> list[str]:
        """Return the names of the files written so far, sorted."""
        return sorted(path.name for path in self.path.iterdir())

    def _summarise(self, outcome: Summary | Failure) -> None:
        self._log.flush()
        facts = {key: value for key, value in msgspec.structs.asdict(outcome).items() if key != "traceback"}
        content = msgspec.json.format(msgspec.json.encode({**facts, "versions": versions()}), indent=2)
        unfinished = self.path / ".summary.json"
        unfinished.write_bytes(content + b"\n")
        unfinished.replace(self.path / "summary.json")


def versions() -> dict[str, str]:
    """Return the versions that a result may depend on: Python, rolecall, and the number crunchers in use."""
    found = {"python": platform.python_version(), "rolecall": metadata.version("rolecall")}
    found.update({name: str(sys.modules[name].__version__) for name in ("numpy", "torch") if name in sys.modules})
    return found


def _new_directory(runs_dir: Path, stem: str) -> Path:
    for number in range(1, _SAME_SECOND):
        path = runs_dir / (stem if number == 1 else f"{stem}-{number}")
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise OSError(f"{_SAME_SECOND - 1} runs named {stem} exist already")


def _file_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name).strip("-.")[:_NAME_LENGTH] or "run"


def _log_text(record: StatusChange | DeadLetter | LogLine) -> str:
    match record:
        case StatusChange():
            return f"status   {record.role} is {record.status}"
        case DeadLetter():
            return f"dead     {record.kind} to {record.role}.{record.channel}: {record.reason}"
        case LogLine():
            return f"{record.level:<7}  {record.source}: {record.text}"
