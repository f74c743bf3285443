from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import rolecall as rc
from rolecall.architectures import CATALOGUE

from .conftest import Rolecall

SOAK = "ROLECALL_SOAK" in os.environ
CPU_S = 60
MANY_MODELS = {"gossip", "dpsgd", "adpsgd"}
"""Architectures after which the nodes hold unlike models."""


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


@pytest.mark.timeout(120)
@pytest.mark.parametrize("name", CATALOGUE if SOAK else ["hfl"])
def test_an_architecture_is_worth_more_than_its_nodes_alone(rolecall: Rolecall, tmp_path: Path, name: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    began_s = time.process_time()
    last = rolecall("demo", name, "--engine", "sim", "--runs-dir", tmp_path, "--format", "jsonl").last
    assert last["accuracy"] >= max(0.75, last["solo"] + 0.25)
    assert last["consensus"] == 0.0 if name not in MANY_MODELS else last["consensus"] > 0.0
    assert last["architecture"] == last["name"] == name
    assert time.process_time() - began_s < CPU_S


@pytest.mark.timeout(120)
def test_two_processes_give_the_same_lines_and_every_engine_and_seam_the_same_parameters(
    rolecall: Rolecall, tmp_path: Path
) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    size = ["--nodes", "100"] if SOAK else ["--nodes", "4", "--rounds", "1"]
    arguments = ["demo", "fedavg", *size, "--seed", "7", "--format", "jsonl", "--runs-dir", str(tmp_path)]
    command = [sys.executable, "-m", "rolecall", *arguments, "--engine", "sim"]
    environments = [{**os.environ, "PYTHONHASHSEED": str(seed)} for seed in (1, 2)]
    processes = [subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) for env in environments]
    one, other = (lines_of(process.communicate()[0]) for process in processes)
    assert one == other
    assert (one[0]["engine"], one[0]["nodes"]) == ("sim", 101 if SOAK else 5)
    local = rolecall(*arguments).last
    assert one[-1]["status"] == "ok" and one[-1]["digest"] == local["digest"]
    assert one[-1]["digest"] == over_grpc(Path(local["run_dir"]) / "app.yaml")


def lines_of(out: str) -> list[dict[str, Any]]:
    """Return JSON lines without what is of a process and of wall-clock time."""
    lines = [json.loads(line) for line in out.splitlines()]
    return [{key: value for key, value in line.items() if key not in ("wall_s", "run_dir")} for line in lines]


def over_grpc(file: Path) -> str:
    """Return the digest of an application's parameters when every byte goes through grpclib."""

    async def main() -> str:
        async with rc.simulation(file, seam="grpc") as sim:
            return (await sim.finished()).digest

    return rc.simulate(main, seed=7, threads="inline")
