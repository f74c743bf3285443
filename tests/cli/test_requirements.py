from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.cli.requirements import Requirement, installed_version, parse, requirements

ELSEWHERE = "win32" if sys.platform != "win32" else "linux"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("anyio>=4.6", Requirement("anyio", "4.6", "")),
        ("torch>=2.6; extra == 'torch'", Requirement("torch", "2.6", "torch")),
        ('scikit-learn<2,>=1.4 ; extra == "data"', Requirement("scikit-learn", "1.4", "data")),
        ("typing-extensions (>=4.12)", Requirement("typing-extensions", "4.12", "")),
        ("msgspec", Requirement("msgspec", "0", "")),
        (f"uvloop>=0.23; sys_platform != '{ELSEWHERE}'", Requirement("uvloop", "0.23", "")),
        (f"uvloop>=0.23; sys_platform != '{sys.platform}'", None),
        ("rolecall[torch,data]; extra == 'all'", None),
        ("ruff>=0.11; extra == 'dev'", None),
        ("???", None),
    ],
)
def test_lines_of_package_metadata(line: str, expected: Requirement | None) -> None:
    assert list(parse([line])) == ([expected] if expected else [])


@given(st.text(max_size=60))
def test_no_line_breaks_it(line: str) -> None:
    assert len(list(parse([line]))) <= 1


@pytest.mark.parametrize(
    ("version", "least", "met"),
    [
        ("2.13.0+cpu", "2.6", True),
        ("2.6", "2.6.0", True),
        ("2.5.9", "2.6", False),
        ("10.0rc1", "9.9", True),
        ("", "1", False),
        ("1", "0", True),
    ],
)
def test_new_enough(version: str, least: str, met: bool) -> None:
    assert Requirement("x", least, "").is_met_by(version) is met


def test_what_this_installation_asks_for() -> None:
    found = {requirement.name: requirement for requirement in requirements()}
    assert found["torch"].command == "pip install 'rolecall[torch]'"
    assert found["anyio"].command.startswith("pip install 'anyio>=")
    assert "pytest" not in found
    assert installed_version("anyio")
    assert installed_version("no-such-package-anywhere") is None
