from __future__ import annotations

import subprocess
import sys

import pytest

from .conftest import Rolecall

COMMANDS = ([], ["demo"], ["run"], ["compare"], ["data"], ["data", "list"], ["doctor"])
LOADED = """
import sys
import rolecall
from rolecall.cli import main
assert main(["--help"]) == 0
loaded = {name.partition(".")[0] for name in sys.modules}
heavy = loaded & {"torch", "numpy", "matplotlib", "networkx", "sklearn"}
sys.exit(f"loaded {sorted(heavy)}" if heavy else 0)
"""


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", LOADED], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_is_complete_and_has_an_example(rolecall: Rolecall, command: list[str]) -> None:
    done = rolecall(*command, "--help")
    assert done.code == 0
    assert "Example:  rolecall " in done.out
    assert rolecall(*command, "-h").out == done.out


def test_without_a_command_there_is_help(rolecall: Rolecall) -> None:
    assert rolecall().out == rolecall("--help").out
    assert "Exit codes: 0 ok; 1 application failed; 2 usage" in " ".join(rolecall().out.split())


def test_version(rolecall: Rolecall) -> None:
    assert rolecall("--version").out.startswith("rolecall 0.")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "No such command 'rnu'. Did you mean 'run'? Try: rolecall --help"),
        (["run"], "Missing argument 'APP'. Try: rolecall run --help"),
        (["demo", "--rounds", "0"], "Invalid value for '--rounds'"),
        (["demo", "--format", "xml"], "Invalid value for '--format'"),
        (["run", "app.yaml", "--seeed", "3"], "--seeed"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(rolecall: Rolecall, arguments: list[str], message: str) -> None:
    done = rolecall(*arguments)
    assert done.code == 2
    assert done.out == ""
    [line] = done.err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("spelling", [["--format", "jsonl"], ["--format=jsonl"]])
def test_wrong_usage_ends_an_event_stream_too(rolecall: Rolecall, spelling: list[str]) -> None:
    done = rolecall("demo", *spelling, "--rounds", "many")
    assert done.code == done.last["exit_code"] == 2
    assert "Invalid value for '--rounds'" in done.last["error"]
