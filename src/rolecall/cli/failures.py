"""Tell errors to the user: a readable message, the exit code of their class, a traceback on request."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import typer

from rolecall.cli.exit_codes import ExitCode, exit_code_of
from rolecall.cli.options import Format
from rolecall.core.errors import RolecallError
from rolecall.observe.events import EventStream
from rolecall.observe.summary import Failure

__all__ = ("Aborted", "ending_events", "failure_of", "reported", "tell")


class Aborted(Exception):
    """Raised when a second signal aborted the run; `exit_code` is 128 plus the signal's number."""

    def __init__(self, signal_number: int) -> None:
        self.exit_code = 128 + signal_number
        super().__init__(f"aborted by {'Ctrl-C' if signal_number == signal.SIGINT else 'SIGTERM'}")


@contextmanager
def reported(*also: Callable[[Failure], None], debug: bool) -> Iterator[None]:
    """Turn an error of the body into its message on stderr and `typer.Exit` with its code.

    `also` are told of the failure before the message is written: a run directory, a reporter.
    """
    try:
        yield
    except typer.Exit:
        raise
    except (Exception, KeyboardInterrupt) as error:
        failure = failure_of(error)
        for inform in also:
            inform(failure)
        tell(failure, debug=debug)
        raise typer.Exit(failure.exit_code) from error


def failure_of(error: BaseException) -> Failure:
    """Return what is to be said about an error."""
    error = _first(error)
    if isinstance(error, (KeyboardInterrupt, Aborted)):
        code = error.exit_code if isinstance(error, Aborted) else ExitCode.ABORTED
        return Failure(
            status="aborted",
            error=str(error) or "aborted by Ctrl-C",
            error_type="Aborted",
            exit_code=int(code),
        )
    return Failure(
        status="failed",
        error=_message(error),
        error_type=type(error).__name__,
        exit_code=int(exit_code_of(error)),
        traceback="".join(traceback.format_exception(error)),
    )


def tell(failure: Failure, *, debug: bool) -> None:
    """Write a failure to stderr, with its traceback when `debug`."""
    if debug and failure.traceback:
        sys.stderr.write(failure.traceback)
    sys.stderr.write(f"{'' if failure.status == 'aborted' else 'error: '}{failure.error}\n")
    sys.stderr.flush()


def _first(error: BaseException) -> BaseException:
    """Return the error itself, or the first one within an error group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _message(error: BaseException) -> str:
    """Return an error's own message; an unexpected one also gets its type and a word on what to do."""
    if isinstance(error, RolecallError):
        return str(error)
    return f"{type(error).__name__}: {error}. rolecall did not expect this; --debug prints the traceback."


def ending_events(format: Format) -> list[Callable[[Failure], None]]:
    """Return what writes the terminal event of a command that fails and has no reporter of its own."""
    return [EventStream(sys.stdout).failed] if format is Format.JSONL else []
