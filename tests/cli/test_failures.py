from __future__ import annotations

import signal

import pytest
import typer

from rolecall.cli.failures import Aborted, failure_of, reported
from rolecall.core.errors import ApplicationFailed, ConfigError
from rolecall.observe.summary import Failure


def test_a_message_of_rolecall_is_told_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit) as ended, reported(debug=False):
        raise ConfigError("app.yaml:3 roles.server", "there is no class 'X'", hint="Did you mean 'Y'?")
    assert ended.value.exit_code == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "error: app.yaml:3 roles.server: there is no class 'X'. Did you mean 'Y'?\n")


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(typer.Exit), reported(debug=True):
        raise ConfigError("app.yaml", "no")
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("error: app.yaml: no.\n")


def test_an_unexpected_error_says_what_it_is_and_what_to_do() -> None:
    failure = failure_of(ZeroDivisionError("division by zero"))
    assert failure.exit_code == 70
    assert failure.error == (
        "ZeroDivisionError: division by zero. rolecall did not expect this; --debug prints the traceback."
    )


def test_of_a_group_of_errors_the_first_is_told() -> None:
    cause = ApplicationFailed("a/b", "main", ValueError("boom"))
    failure = failure_of(ExceptionGroup("x", [ExceptionGroup("y", [cause])]))
    assert (failure.error, failure.error_type) == (
        "a/b failed in main: ValueError: boom",
        "ApplicationFailed",
    )


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (KeyboardInterrupt(), 130, "aborted by Ctrl-C"),
        (Aborted(signal.SIGINT), 130, "aborted by Ctrl-C"),
        (Aborted(signal.SIGTERM), 143, "aborted by SIGTERM"),
    ],
)
def test_an_abort_is_no_error(error: BaseException, code: int, message: str) -> None:
    failure = failure_of(error)
    assert (failure.status, failure.exit_code, failure.error) == ("aborted", code, message)


def test_others_are_informed_first() -> None:
    informed: list[Failure] = []
    with pytest.raises(typer.Exit), reported(informed.append, debug=False):
        raise ConfigError("app.yaml", "no")
    assert [failure.error for failure in informed] == ["app.yaml: no."]


def test_an_exit_passes() -> None:
    informed: list[Failure] = []
    with pytest.raises(typer.Exit) as ended, reported(informed.append, debug=False):
        raise typer.Exit(5)
    assert ended.value.exit_code == 5
    assert informed == []
