"""The exit codes of the command line: one table, and which error ends with which code.

`docs/exit-codes.md` has a section for each.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

from rolecall.core.errors import (
    ConfigError,
    DataError,
    DeclarationError,
    ElementError,
    MissingDependency,
    RelationshipError,
    RolecallError,
)

__all__ = ("MEANINGS", "SHORT", "ExitCode", "exit_code_of")

_CAUSES_FOLLOWED = 50


class ExitCode(IntEnum):
    """What a `rolecall` process ends with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    DATA = 3
    MISSING = 4
    STOPPED = 5
    INTERNAL = 70
    ABORTED = 130
    OUTPUT_CLOSED = 141
    TERMINATED = 143


MEANINGS: dict[ExitCode, str] = {
    ExitCode.OK: "it worked",
    ExitCode.FAILED: "the application failed: a role raised an error, or a call ended badly",
    ExitCode.USAGE: "the command, the application file or a setting is wrong",
    ExitCode.DATA: "a data file is missing, unreadable, truncated or of another format",
    ExitCode.MISSING: "an optional package that this needs is not installed",
    ExitCode.STOPPED: "stopped early by Ctrl-C or SIGTERM, in good order: results so far are kept",
    ExitCode.INTERNAL: "an error that rolecall did not expect",
    ExitCode.ABORTED: "aborted by a second Ctrl-C: results are incomplete",
    ExitCode.OUTPUT_CLOSED: "whoever read the output went away (as `head` does); the run was stopped",
    ExitCode.TERMINATED: "aborted by a second SIGTERM: results are incomplete",
}

SHORT: dict[ExitCode, str] = {
    ExitCode.OK: "ok",
    ExitCode.FAILED: "application failed",
    ExitCode.USAGE: "usage or configuration",
    ExitCode.DATA: "data",
    ExitCode.MISSING: "missing dependency",
    ExitCode.STOPPED: "stopped early",
    ExitCode.ABORTED: "aborted",
}

_TELLING: tuple[tuple[type[BaseException], ExitCode], ...] = (
    (MissingDependency, ExitCode.MISSING),
    (DataError, ExitCode.DATA),
)
"""Errors that decide the code wherever among the causes they are: a missing data file fails a role's element,
which fails the application, and still it is the data file that needs attention."""

_CONFIGURATION = (ConfigError, DeclarationError, ElementError, RelationshipError)


def exit_code_of(error: BaseException) -> ExitCode:
    """Return the exit code for an error, looking at what caused it too."""
    chain = list(_causes(error))
    for kind, code in _TELLING:
        if any(isinstance(cause, kind) for cause in chain):
            return code
    if any(isinstance(cause, _CONFIGURATION) for cause in chain):
        return ExitCode.USAGE
    return ExitCode.FAILED if any(isinstance(cause, RolecallError) for cause in chain) else ExitCode.INTERNAL


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error, what it was raised from, and the members of error groups, outermost first."""
    waiting, seen = [error], 0
    while waiting and seen < _CAUSES_FOLLOWED:
        current = waiting.pop(0)
        seen += 1
        yield current
        if isinstance(current, BaseExceptionGroup):
            waiting.extend(current.exceptions)
        if current.__cause__ is not None:
            waiting.append(current.__cause__)
