"""`rolecall run -d`: a run that goes on when its terminal is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import typer

from rolecall.cli.options import Format

if TYPE_CHECKING:
    from rolecall.fleet.records import Record

__all__ = ("OUTPUT", "Starter", "detach")

OUTPUT = "output.txt"
"""What a detached run prints, in its run directory."""


class Starter:
    """Tells whoever started a detached run how it goes; in the process of the run."""

    def __init__(self, writing: int) -> None:
        os.set_inheritable(writing, False)
        self._writing = writing

    def on_directory(self, directory: Path) -> None:
        """Print into the run directory from now on."""
        path = (directory / OUTPUT).resolve()
        sys.stdout.flush()
        sys.stderr.flush()
        with path.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        self._tell({"output": str(path)})

    def on_record(self, record: Record) -> None:
        """Say that the run can be looked after."""
        self._tell({"id": record.id, "pid": record.pid, "run_dir": record.run_dir})
        os.close(self._writing)

    def _tell(self, what: Mapping[str, Any]) -> None:
        os.write(self._writing, msgspec.json.encode(what) + b"\n")


def detach(arguments: Sequence[str], format: Format) -> None:
    """Run `rolecall` with these arguments and `--starter` in a process of its own; return when it can be looked after.

    An error before that ends this process as it ends the other. What the run prints once it has a directory goes into
    `output.txt` there.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "rolecall", *arguments, "--starter", str(writing)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=(writing,))
    os.close(writing)
    known: dict[str, Any] = {}
    with open(reading, "rb") as pipe:
        for line in pipe:
            known.update(msgspec.json.decode(line))
    if "id" in known:
        process.returncode = 0  # it lives on, and nobody waits for it
        _show(known, format)
        return
    code = process.wait()
    _repeat(known.get("output"))
    raise typer.Exit(code if code >= 0 else 128 - code)


def _show(begun: Mapping[str, Any], format: Format) -> None:
    """Say how to look after the run."""
    if format is Format.JSONL:
        from rolecall.observe.events import line_of

        facts = {key: begun[key] for key in ("id", "pid", "run_dir")}
        sys.stdout.write(line_of({"event": "detached", **facts}))
        sys.stdout.write(line_of({"event": "finished", "terminal": True, "status": "ok"}))
        return
    name = begun["id"]
    sys.stdout.write(f"{name} runs; rolecall logs -f {name} shows how it goes, rolecall stop {name} ends it.\n")
    sys.stdout.write(f"run directory: {begun['run_dir']}\n")


def _repeat(output: str | None) -> None:
    """Say what a run has said that has ended before it could be looked after: events, and what is for people."""
    for line in Path(output).read_text().splitlines(keepends=True) if output is not None else ():
        (sys.stdout if line.startswith('{"event"') else sys.stderr).write(line)
