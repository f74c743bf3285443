"""mypy and pyright understand roles: right uses pass, wrong uses are reported, each at its line.

In `wrong_*.py` a comment `# type: ignore[codes]` says what mypy must report in a line, and one of
`# pyright: ignore[rules]` what pyright must; both report nothing else. Here the comments are made ineffective, so
that a checker that misses a mistake is found out by the line it misses.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

import rolecall as rc
from rolecall.core.declarations import declarations

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
RIGHT = sorted(HERE.glob("right_*.py"))
CASES = [*RIGHT, *sorted(HERE.glob("wrong_*.py"))]
OTHERS = sorted([*(ROOT / "tests/api").glob("*.py"), *(ROOT / "examples").rglob("*.py")])
MARKS = {"mypy": re.compile(r"# type: ignore\[(.+?)\]"), "pyright": re.compile(r"# pyright: ignore\[(.+?)\]")}

Reports: TypeAlias = dict[tuple[str, int], set[str]]  # what is reported, by file and line

pytestmark = pytest.mark.timeout(300)


def mypy(files: list[Path]) -> Reports:
    """Run mypy as the project does; return the codes of its errors."""
    config = str(ROOT / "pyproject.toml")
    output = run("mypy", "--config-file", config, "--no-error-summary", "--output", "json", *map(str, files))
    reports: Reports = {}
    for line in output.splitlines():
        error = json.loads(line)
        if error["severity"] == "error":
            place = (Path(error["file"]).name, error["line"])
            reports.setdefault(place, set()).add(error["code"])
    return reports


def pyright(files: list[Path]) -> Reports:
    """Run pyright as the project does; return the rules its errors break."""
    output = run("pyright", "--outputjson", "--pythonpath", sys.executable, *map(str, files))
    reports: Reports = {}
    for error in json.loads(output)["generalDiagnostics"]:
        place = (Path(error["file"]).name, error["range"]["start"]["line"] + 1)
        reports.setdefault(place, set()).add(error.get("rule", error["message"]))
    return reports


def run(*command: str) -> str:
    environment = os.environ | {"PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode in (0, 1) and done.stdout, f"{command[0]} failed:\n{done.stdout}{done.stderr}"
    return done.stdout


CHECKERS: dict[str, Callable[[list[Path]], Reports]] = {"mypy": mypy, "pyright": pyright}


@pytest.fixture(scope="module", params=list(CHECKERS))
def checked(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Reports]:
    """The name of a checker, and what it reports for all files when no comment stops it."""
    directory = tmp_path_factory.mktemp("types")
    copies = [directory / case.name for case in CASES]
    for case, copy in zip(CASES, copies, strict=True):
        copy.write_text(case.read_text().replace(": ignore[", "; ignore["))
    return request.param, CHECKERS[request.param](copies + OTHERS)


@pytest.mark.parametrize("case", CASES, ids=[case.stem for case in CASES])
def test_what_is_marked_is_reported_and_nothing_else(checked: tuple[str, Reports], case: Path) -> None:
    checker, reports = checked
    found = {line: codes for (file, line), codes in reports.items() if file == case.name}
    assert found == marks(case, checker)


@pytest.mark.parametrize("file", OTHERS, ids=[str(file.relative_to(ROOT)) for file in OTHERS])
def test_what_users_read_has_no_errors(checked: tuple[str, Reports], file: Path) -> None:
    assert {line: codes for (name, line), codes in checked[1].items() if name == file.name} == {}


def marks(case: Path, checker: str) -> dict[int, set[str]]:
    """Return what a file says that a checker must report, by line."""
    lines = enumerate(case.read_text().splitlines(), 1)
    return {n: set(found[1].split(", ")) for n, line in lines if (found := MARKS[checker].search(line))}


def test_the_wrong_uses_are_many() -> None:
    for checker in CHECKERS:
        assert sum(len(marks(case, checker)) for case in CASES) > 80


@pytest.mark.parametrize("case", RIGHT, ids=[case.stem for case in RIGHT])
def test_right_uses_are_right_at_run_time(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.spec_from_file_location(f"types_{case.stem}", case)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    found.loader.exec_module(module)
    roles = [value for value in vars(module).values() if isinstance(value, type) and issubclass(value, rc.Role)]
    assert roles
    for role in roles:
        assert declarations(role).role_class is role
