from __future__ import annotations

from pathlib import Path

import pytest

from rolecall.cli import data, requirements
from rolecall.core.errors import ConfigError

from .conftest import Rolecall


@pytest.fixture(autouse=True)
def _no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests the seconds that loading torch takes."""
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else found(name))


def pretend(monkeypatch: pytest.MonkeyPatch, versions: dict[str, str | None]) -> None:
    real = requirements.installed_version
    monkeypatch.setattr(
        requirements, "installed_version", lambda name: versions[name] if name in versions else real(name)
    )


def test_all_is_well(rolecall: Rolecall) -> None:
    done = rolecall("doctor")
    assert done.code == 0
    assert done.out.splitlines()[0].split() == ["what", "state", "detail"]
    assert done.out.splitlines()[1].startswith("python")
    assert "fashion-mnist" in done.out
    assert done.out.endswith("\nReady.\n")


def test_for_programs(rolecall: Rolecall) -> None:
    done = rolecall("doctor", "--format", "jsonl")
    assert (done.last["status"], done.last["exit_code"]) == ("ok", 0)
    checks = {event["what"]: event for event in done.events[:-1]}
    assert checks["python"]["state"] == "ok"
    assert checks["anyio"]["detail"][0].isdigit()


def test_a_missing_extra_is_no_fault(rolecall: Rolecall, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"matplotlib": None})
    done = rolecall("doctor")
    assert done.code == 0
    [line] = [line for line in done.out.splitlines() if line.startswith("matplotlib")]
    assert "missing" in line
    assert line.endswith("for curve.png in run directories: pip install 'rolecall[plots]'")


def test_something_needed_is_missing(rolecall: Rolecall, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"safetensors": None})
    done = rolecall("doctor")
    assert done.code == 4
    assert "pip install 'safetensors>=" in done.out
    assert done.out.endswith("Trouble with safetensors.\n")


def test_something_is_too_old(rolecall: Rolecall, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, {"torch": "1.9.0"})
    done = rolecall("doctor", "--format", "jsonl")
    assert done.code == 4
    assert done.last["status"] == "failed"
    [torch] = [event for event in done.events if event.get("what") == "torch"]
    assert torch["detail"].startswith("1.9.0 is too old")


def test_data_sets_that_cannot_be_looked_at(rolecall: Rolecall, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[data.DataSet]:
        raise ConfigError("data sets", "broken")

    monkeypatch.setattr("rolecall.cli.doctor.data_sets", fail)
    done = rolecall("doctor")
    assert done.code == 4
    assert "data sets: broken." in done.out


def test_the_data_directory_is_looked_into(rolecall: Rolecall, tmp_path: Path) -> None:
    done = rolecall("doctor", "--data-dir", tmp_path / "nowhere")
    assert done.code == 3
    assert done.err == f"error: {tmp_path}/nowhere: there is no such directory. Check what --data-dir names.\n"
