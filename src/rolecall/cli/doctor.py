"""`rolecall doctor`: what is installed, what is missing, and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import typer

from rolecall.cli.data import data_sets, use_data_dir
from rolecall.cli.exit_codes import ExitCode
from rolecall.cli.options import DataDir, Debug, Format, FormatOption
from rolecall.core.errors import RolecallError

if TYPE_CHECKING:
    from rolecall.cli.requirements import Requirement

__all__ = ("Finding", "doctor", "examine")

_PYTHON_AT_LEAST = (3, 11)
_PURPOSES = {"torch": "torch models", "data": "the data set digits", "plots": "curve.png in run directories"}


@dataclass(frozen=True)
class Finding:
    """One thing looked at. "missing" is a choice the user may make; a "problem" is in the way."""

    what: str
    state: Literal["ok", "missing", "problem"]
    detail: str


def doctor(format: FormatOption = Format.TEXT, data_dir: DataDir = None, debug: Debug = False) -> None:
    """Say what is installed, what is missing, and how to get it.

    Exit code 0 means that all that is always needed is there; missing extras
    are no fault. Exit code 4 means that something is too old, does not load,
    or is missing though needed.

    Example:  rolecall doctor
    """
    from rolecall.cli.failures import ending_events, reported
    from rolecall.cli.listing import show_rows

    with reported(*ending_events(format), debug=debug):
        use_data_dir(data_dir)
        findings = list(examine())
        troubled = [finding.what for finding in findings if finding.state == "problem"]
        code = ExitCode.MISSING if troubled else ExitCode.OK
        show_rows(
            "check",
            [vars(finding) for finding in findings],
            format=format,
            headings=("what", "state", "detail"),
            ending={"status": "failed" if troubled else "ok", "exit_code": int(code)},
        )
        if format is Format.TEXT:
            typer.echo(f"\n{'Trouble with ' + ', '.join(troubled) + '.' if troubled else 'Ready.'}")
    raise typer.Exit(int(code))


def examine() -> Iterator[Finding]:
    """Yield what there is to say about this installation."""
    from rolecall.cli.requirements import requirements

    yield _python()
    asked_for = requirements()
    if not asked_for:
        yield Finding("rolecall", "problem", "not installed as a package: pip install -e . in its source directory")
    yield from (_package(requirement) for requirement in asked_for)
    yield _event_loop()
    yield from _torch()
    yield from _data()


def _python() -> Finding:
    version = f"{platform.python_version()} on {platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    if sys.version_info >= _PYTHON_AT_LEAST:
        return Finding("python", "ok", version)
    return Finding("python", "problem", f"{version}; at least {_PYTHON_AT_LEAST[0]}.{_PYTHON_AT_LEAST[1]} is needed")


def _package(requirement: Requirement) -> Finding:
    from rolecall.cli.requirements import installed_version

    version = installed_version(requirement.name)
    if version is None:
        purpose = f"for {_PURPOSES.get(requirement.extra, requirement.extra)}: " if requirement.extra else ""
        return Finding(
            requirement.name, "missing" if requirement.extra else "problem", f"{purpose}{requirement.command}"
        )
    if not requirement.is_met_by(version):
        detail = f"{version} is too old, {requirement.at_least} is needed: {requirement.command}"
        return Finding(requirement.name, "problem", detail)
    return Finding(requirement.name, "ok", f"{version}{f' (extra {requirement.extra})' if requirement.extra else ''}")


def _event_loop() -> Finding:
    if importlib.util.find_spec("uvloop") is not None:
        return Finding("event loop", "ok", "uvloop")
    return Finding("event loop", "ok", "asyncio's own, which is slower than uvloop: pip install uvloop")


def _torch() -> Iterator[Finding]:
    """Load torch, which may take seconds, and may fail although it is installed."""
    if importlib.util.find_spec("torch") is None:
        return
    try:
        import torch
    except Exception as error:
        yield Finding("torch threads", "problem", f"torch does not load: {type(error).__name__}: {error}")
        return
    threads = torch.get_num_threads()
    device = "CUDA is there" if torch.cuda.is_available() else "no GPU"
    yield Finding("torch threads", "ok", f"{threads} by default, 1 in a run so that results repeat; {device}")


def _data() -> Iterator[Finding]:
    try:
        rows = data_sets()
    except (RolecallError, ImportError) as error:
        yield Finding("data sets", "problem", str(error))
        return
    for row in rows:
        yield Finding(f"data set {row.name}", "ok" if row.found else "missing", row.where)
