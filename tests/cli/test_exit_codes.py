from __future__ import annotations

import re
from pathlib import Path

import pytest

from rolecall.cli.exit_codes import MEANINGS, SHORT, ExitCode, exit_code_of
from rolecall.core.errors import (
    ApplicationFailed,
    ConfigError,
    DataError,
    DeadlineExceeded,
    ElementError,
    MissingDependency,
    NotEncodable,
    Refused,
    RelationshipError,
    UnknownRole,
    ValueChanged,
)

PAGE = Path(__file__).parents[2] / "docs" / "exit-codes.md"
DATA = DataError("train.gz", "truncated")
MISSING = MissingDependency("scikit-learn", needed_for="the data set 'digits'", extra="data")


def caused(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


def failed(cause: BaseException) -> BaseException:
    return caused(ApplicationFailed("client1/trainer", "setup", cause), cause)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("app.yaml:3", "no"), ExitCode.USAGE),
        (RelationshipError("a/b", "peers", "names no role"), ExitCode.USAGE),
        (UnknownRole("a/b", []), ExitCode.FAILED),
        (ValueChanged("a/b.run", "params", "a/b"), ExitCode.FAILED),
        (DATA, ExitCode.DATA),
        (MISSING, ExitCode.MISSING),
        (Refused("no"), ExitCode.FAILED),
        (DeadlineExceeded("a/b.run", 3), ExitCode.FAILED),
        (failed(ValueError("boom")), ExitCode.FAILED),
        (failed(NotEncodable("args.plan", "socket")), ExitCode.FAILED),
        (failed(caused(ElementError("a/b", "data", "failed to load"), DATA)), ExitCode.DATA),
        (failed(caused(ElementError("a/b", "data", "failed to load"), MISSING)), ExitCode.MISSING),
        (failed(ElementError("a/b", "data", "is missing")), ExitCode.USAGE),
        (ExceptionGroup("several", [ValueError("boom"), failed(DATA)]), ExitCode.DATA),
        (ValueError("boom"), ExitCode.INTERNAL),
        (MemoryError(), ExitCode.INTERNAL),
    ],
)
def test_what_caused_an_error_decides_its_code(error: BaseException, code: ExitCode) -> None:
    assert exit_code_of(error) == code


def test_a_ring_of_causes_ends() -> None:
    error = ValueError("a")
    caused(error, caused(ValueError("b"), error))
    assert exit_code_of(error) == ExitCode.INTERNAL


def test_every_code_is_explained() -> None:
    assert set(MEANINGS) == set(ExitCode)
    assert set(SHORT) < set(ExitCode)
    page = PAGE.read_text(encoding="utf-8")
    sections = {int(code): text for code, text in re.findall(r"^## (\d+): [^\n]+\n(.*?)(?=^## |\Z)", page, re.M | re.S)}
    assert set(sections) == set(ExitCode)
    for code, text in sections.items():
        assert code == ExitCode.OK or "How to resolve:" in text, code
    assert {int(code) for code in re.findall(r"^\| (\d+) ", page, re.M)} == set(ExitCode)
