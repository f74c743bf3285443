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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Protocol, TextIO

import msgspec

from rolecall.core.errors import ConfigError
from rolecall.core.records import Audited, DeadLetter, LogLine, Metric, Record, StatusChange
from rolecall.core.whole_files import into_place
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

    What cannot be written, since the disk is full, is a `ConfigError` that names the directory. A file is there whole
    or not at all, but for those that grow.

    Args:
        path: an empty directory.
        charge: is told how many bytes something takes before it counts as written, and may raise `OSError`: in a
            simulation `sim.disk("server").charge`, so that the directory lies on a disk which may be full.
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
        self._keep("app.yaml", app.save)

    def save_curve(self, draw: Callable[[Path], object]) -> None:
        """Have the curve drawn into a file of the directory; `draw` may find that there is nothing to draw."""
        self._keep("curve.png", draw)

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
        with self._recording():
            self._charge(len(text.encode()))
            file.write(text)
            file.flush()

    def _keep(self, name: str, save: Callable[[Path], object]) -> None:
        """Have a file written, whole or not at all."""
        with self._recording(), into_place(self.path / name) as unfinished:
            save(unfinished)
            if unfinished.exists():
                self._charge(unfinished.stat().st_size)

    @contextmanager
    def _recording(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(
                str(self.path), f"the run cannot be recorded ({error.strerror or error})",
                hint="Make room, or name another directory, as in: --runs-dir /tmp/runs",
            ) from error  # fmt: skip

    def finish(self, summary: Summary, final: Saveable | None) -> None:
        """Write the final parameters, and how the run ended."""
        if final is not None:
            self._keep("model.safetensors", final.save)
        self._write(self._log, f"{summary.wall_s:12.6f}  info     {summary.name} ended: {summary.status}\n")
        self._summarise(summary)

    def fail(self, failure: Failure) -> None:
        """Write what ended the run, with its traceback."""
        self._write(self._log, f"{failure.status}: {failure.error}\n{failure.traceback}")
        self._summarise(failure)

    def close(self) -> None:
        """Close the files; safe to call twice, and where something could not be written."""
        for file in (self._metrics, self._log, self._audit):
            with suppress(OSError):  # of what is left in a buffer when the disk is full, which has been told
                if file is not None:
                    file.close()

    def files(self) -> list[str]:
        """Return the names of the files written so far, sorted."""
        return sorted(path.name for path in self.path.iterdir())

    def _summarise(self, outcome: Summary | Failure) -> None:
        facts = {key: value for key, value in msgspec.structs.asdict(outcome).items() if key != "traceback"}
        content = msgspec.json.format(msgspec.json.encode({**facts, "versions": versions()}), indent=2)
        self._keep("summary.json", lambda path: path.write_bytes(content + b"\n"))


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
