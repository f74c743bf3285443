from __future__ import annotations

from pathlib import Path

import pytest

from rolecall.architectures import CATALOGUE

from .conftest import Rolecall


def test_the_list(rolecall: Rolecall) -> None:
    done = rolecall("demo", "--list")
    assert done.code == 0
    assert any(line.split()[:3] == ["fedavg", "federated", "averaging:"] for line in done.out.splitlines())
    events = rolecall("demo", "--list", "--format", "jsonl").events
    assert [event["name"] for event in events[:-1]] == list(CATALOGUE)
    assert {"fedavg", "fedprox", "fedsgd", "hfl"} <= set(CATALOGUE)
    assert events[-1]["terminal"]


def test_an_unknown_demo(rolecall: Rolecall, tmp_path: Path) -> None:
    done = rolecall("demo", "fedvag", "--runs-dir", tmp_path, "--format", "jsonl")
    assert done.code == 2
    known = ", ".join(CATALOGUE)
    message = f"rolecall demo: there is no demo 'fedvag'. Did you mean 'fedavg'? There are: {known}."
    assert done.err == f"error: {message}\n"
    assert (done.last["event"], done.last["error"]) == ("failed", message)
    assert list(tmp_path.iterdir()) == []


def test_federated_averaging_of_two_rounds(rolecall: Rolecall, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    runs = [
        rolecall("demo", "fedavg", "--rounds", "2", "--seed", seed, "--runs-dir", tmp_path, "--format", "jsonl").last
        for seed in ("7", "7", "8")
    ]
    for last in runs:
        assert (last["event"], last["status"], last["architecture"], last["rounds"]) == (
            "finished",
            "ok",
            "fedavg",
            2,
        )
        assert 0.1 < last["accuracy"] < 1
    assert runs[0]["digest"] == runs[1]["digest"] != runs[2]["digest"]


def test_an_architecture_is_worth_more_than_its_nodes_alone(rolecall: Rolecall, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    done = rolecall("demo", "hfl", "--seed", "7", "--runs-dir", tmp_path, "--format", "jsonl")
    assert done.last["accuracy"] >= max(0.75, done.last["solo"] + 0.25)
    assert done.last["consensus"] == 0.0 and done.last["architecture"] == "hfl"


def test_as_many_nodes_as_asked_for_in_virtual_time(rolecall: Rolecall, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    options = ("--nodes", "4", "--rounds", "1", "--seed", "7", "--runs-dir", tmp_path, "--format", "jsonl")
    local, simulated = (rolecall("demo", "fedavg", "--engine", engine, *options) for engine in ("local", "sim"))
    assert (simulated.events[0]["engine"], simulated.events[0]["nodes"]) == ("sim", 5)
    assert simulated.last["digest"] == local.last["digest"]
