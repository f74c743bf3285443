"""`rolecall replay`: the same run again, or what is different about it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

APP = """
name: tiny
parameters: {rounds: 3, fails_at: 0}
nodes: {one: {}}
import_from: ["HERE"]
roles: {one: {counter: {class: "tiny_roles:Counter", options: {rounds: "${rounds}", fails_at: "${fails_at}"}}}}
"""


@pytest.fixture
def recorded(rolecall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Run the application, and return the directory of the run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "app.yaml").write_text(APP.replace("HERE", str(Path(__file__).parent)))

    def record(*options: str) -> Path:
        rolecall("run", "app.yaml", "--seed", "3", "--runs-dir", "runs", *options)
        [found] = list((tmp_path / "runs").iterdir())
        return found

    return record


@pytest.mark.parametrize("engine", ["sim", "local"])
def test_a_run_comes_out_the_same(rolecall, recorded, engine: str) -> None:  # type: ignore[no-untyped-def]
    directory = recorded("--engine", engine)
    done = rolecall("replay", str(directory), "--runs-dir", "again", "--format", "jsonl")
    assert done.code == 0, done.err
    assert done.last["engine"] == "sim"
    digest = json.loads((directory / "summary.json").read_text())["digest"]
    assert f"3 metrics, parameters {digest}" in done.err


def test_what_differs_is_told(rolecall, recorded) -> None:  # type: ignore[no-untyped-def]
    directory = recorded("--engine", "sim")
    metrics = (directory / "metrics.jsonl").read_text().replace("0.2", "0.7")
    (directory / "metrics.jsonl").write_text(metrics)
    log = (directory / "log.txt").read_text()
    (directory / "log.txt").write_text(log.replace("digest of events ", "digest of events 00"))
    done = rolecall("replay", str(directory), "--runs-dir", "again")
    assert done.code == 1
    assert "metric 2 differs" in done.err and "the events differ: their digest was 00" in done.err


def test_a_failure_fails_again(rolecall, recorded) -> None:  # type: ignore[no-untyped-def]
    directory = recorded("--engine", "sim", "--set", "fails_at=2")
    done = rolecall("replay", str(directory), "--runs-dir", "again")
    assert done.code == 0
    assert "replay: as in" in done.err and "failed, 1 metrics" in done.err


def test_what_is_no_run_is_refused(rolecall, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    done = rolecall("replay", str(tmp_path))
    assert done.code == 2
    assert "no directory of a run" in done.err
