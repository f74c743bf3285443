"""`rolecall run -d`: a run that goes on when its terminal is gone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import typer

from rolecall.cli.options import Format

if TYPE_CHECKING:
    from rolecall.fleet.records import Record

__all__ = ("OUTPUT", "detach")

OUTPUT = "output.txt"
"""What a detached run prints, in its run directory."""
_MESSAGE_BYTES = 1 << 20


class _Begun(msgspec.Struct):
    """What a detached run tells whoever started it, once it can be looked after."""

    id: str
    pid: int
    run_dir: str | None


def detach(run: Callable[[Callable[[Record], None]], None], format: Format) -> None:
    """Call `run` in a process of its own, and return when that can be looked after; `run` is given what to call then.

    What it says before that is said here, and an error ends this process with its exit code. What it prints later goes
    into `output.txt` in its run directory.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _live(run, writing)
    os.close(writing)
    begun = _heard(reading)
    if begun is None:
        _, status = os.waitpid(child, 0)
        raise typer.Exit(os.waitstatus_to_exitcode(status))
    _tell(begun, format)


def _live(run: Callable[[Callable[[Record], None]], None], writing: int) -> None:
    """Be the process that runs; ends the process."""
    code = 1
    try:
        os.setsid()
        with open(os.devnull, "rb") as nothing:
            os.dup2(nothing.fileno(), 0)

        def began(record: Record) -> None:
            if record.run_dir is not None:
                _print_into(Path(record.run_dir) / OUTPUT)
            os.write(writing, msgspec.json.encode(_Begun(record.id, record.pid, record.run_dir)))
            os.close(writing)

        try:
            run(began)
            code = 0
        except typer.Exit as ended:
            code = ended.exit_code
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _print_into(path: Path) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)


def _heard(reading: int) -> _Begun | None:
    """Return what the run has told, None if it has ended without a word."""
    with open(reading, "rb") as pipe:
        told = pipe.read(_MESSAGE_BYTES)
    return msgspec.json.decode(told, type=_Begun) if told else None


def _tell(begun: _Begun, format: Format) -> None:
    if format is Format.JSONL:
        from rolecall.observe.events import line_of

        facts = {"id": begun.id, "pid": begun.pid, "run_dir": begun.run_dir}
        sys.stdout.write(line_of({"event": "detached", **facts}))
        sys.stdout.write(line_of({"event": "finished", "terminal": True, "status": "ok"}))
        return
    sys.stdout.write(f"{begun.id} runs on; rolecall logs {begun.id} -f shows how, rolecall stop {begun.id} ends it.\n")
    if begun.run_dir is not None:
        sys.stdout.write(f"run directory: {begun.run_dir}\n")
