from __future__ import annotations

import csv
import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rolecall.cli.compare import entries_of, seeds_of
from rolecall.core.errors import ConfigError
from rolecall.fleet.contender import Workload
from rolecall.observe.comparison import Amount

from .conftest import Rolecall

pytest.importorskip("torch")
pytest.importorskip("sklearn")


TINY = ("--dataset", "digits", "--model", "mlp", "--partition", "iid", "--clients", "5", "--rounds", "3")


def results(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.suffix == ".json")


def test_a_table_the_numbers_and_a_figure_that_are_not_made_twice(rolecall: Rolecall, tmp_path: Path) -> None:
    command = ("compare", "fedavg", "gossip", *TINY, "--seeds", "1", "--jobs", "2", "--out", tmp_path)
    done = rolecall(*command)
    assert done.code == 0, done.err
    rows = [line.split() for line in done.out.splitlines()]
    table = {row[0]: row[1:] for row in rows[[row[:2] for row in rows].index(["name", "runs"]) + 1 :]}
    assert list(table) == ["fedavg", "gossip", "figure:"]
    assert table["fedavg"][0] == "1" and 0 < float(table["fedavg"][1]) < 1
    kept = results(tmp_path)
    assert [name.partition("-")[0] for name in kept] == ["fedavg", "gossip"]
    points = list(csv.DictReader((tmp_path / "comparison.csv").read_text().splitlines()))
    assert {point["name"] for point in points} == {"fedavg", "gossip"}
    before = [(tmp_path / name).stat().st_mtime_ns for name in kept]
    again = rolecall(*command, "--format", "jsonl")
    assert again.code == 0 and again.events[0]["done"] == 2
    assert [row["accuracy"] for row in again.of("compared")] == pytest.approx(
        [float(table[name][1]) for name in ("fedavg", "gossip")], abs=1e-4
    )
    assert again.last["status"] == "ok" and again.of("point") == []
    assert [(tmp_path / name).stat().st_mtime_ns for name in kept] == before


def test_variations_are_told_apart(rolecall: Rolecall, tmp_path: Path) -> None:
    command = ("compare", "fedavg", *TINY, "--vary", "fraction=0.2,0.4", "--seeds", "3,", "--jobs", "2")
    done = rolecall(*command, "--out", tmp_path, "--format", "jsonl")
    assert done.code == 0, done.err
    assert [(row["name"], row["runs"]) for row in done.of("compared")] == [
        ("fedavg fraction=0.2", 1),
        ("fedavg fraction=0.4", 1),
    ]
    assert {event["seed"] for event in done.of("point")} == {3}


def test_a_run_that_fails(rolecall: Rolecall, tmp_path: Path) -> None:
    done = rolecall("compare", "fedavg", *TINY, "--lr", "1e30", "--out", tmp_path, "--format", "jsonl", "--debug")
    assert done.code == 1
    assert "rolecall/learn/screening.py" in done.err  # where it failed, in the other process
    assert "fedavg, seed 0: " in done.err and "finite" in done.err
    assert (done.last["status"], done.last["error_type"]) == ("failed", "EntrantFailed")
    assert results(tmp_path) == []


def test_another_data_set_where_its_files_are(
    rolecall: Rolecall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROLECALL_DATA", "")  # takes back what the command sets
    rng = np.random.default_rng(7)
    for name in (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"):
        records = rng.integers(0, 256, (20, 3073), np.uint8)
        records[:, 0] %= 10
        (tmp_path / name).write_bytes(records.tobytes())
    command = ("compare", "fedavg", "--dataset", "cifar-10", "--clients", "2", "--each", "10", "--rounds", "3")
    done = rolecall(*command, "--seeds", "1", "--out", tmp_path / "out", "--data-dir", tmp_path, "--format", "jsonl")
    assert done.code == 0, done.err
    assert done.of("compared")[0]["samples"] >= 3 * 0.4 * 20


def test_ctrl_c_keeps_what_is_done(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "rolecall", "compare", "fedavg", *TINY, "--seeds", "50", "--format"]
    process = subprocess.Popen(
        [*command, "jsonl", "--out", str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "done":
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 5, err
    assert "the same command goes on from there" in err
    last = json.loads(out.splitlines()[-1])
    assert last["terminal"] and last["status"] == "stopped" and last["runs"] == len(results(tmp_path)) >= 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fedvag"], "there is no architecture 'fedvag'. Did you mean 'fedavg'?"),
        (["fedavg", "--model", "cn"], "there is no model 'cn'. Did you mean 'cnn'?"),
        (["fedavg", "--dataset", "digit"], "Did you mean 'digits'?"),
        (["fedavg", "--partition", "idd"], "there is no such scheme"),
        (["fedavg", "--device", "egde"], "there is no device profile 'egde'"),
        (["fedavg", "--network", "wify"], "there is no network profile 'wify'"),
        (["fedavg", "--seeds", "few"], "--seeds few: expected how many, or a list"),
        (["fedavg", "--vary", "fraction"], "--vary fraction: expected KEY=V1,V2"),
        (
            ["fedavg", "--vary", "fractoin=0.1"],
            "no parameter or option 'fractoin'. Did you mean 'fraction'?",
        ),
        (["fedavg", "--set", "fractoin=0.1"], "Did you mean 'fraction'?"),
        (["fedavg", "gossip", "--set", "gosip:fanout=1"], "'gosip' is not compared. Did you mean 'gossip'?"),
        (["fedavg", "gossip", "--set", "fedavg:fanout=1"], "fedavg has no parameter or option 'fanout'"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    rolecall: Rolecall, tmp_path: Path, arguments: list[str], message: str
) -> None:
    done = rolecall("compare", *TINY, *arguments, "--out", tmp_path / "out")
    assert (done.code, done.out) == (2, "")
    assert message in done.err
    assert not (tmp_path / "out").exists()


def test_a_setting_for_all_is_for_those_that_know_it() -> None:
    work = Workload(dataset="digits", model="mlp", clients=5, partition="iid")
    amount = Amount(budget=100, every=50, test_samples=50)
    sets, vary = ["fanout=1", "fedavg:epochs=2"], ["lr=0.1,0.2"]
    entries = entries_of(["fedavg", "gossip"], sets, vary, [0, 7], work, amount)
    assert [(entry.seed, entry.label, entry.sets) for entry in entries[2:6]] == [
        (0, "gossip lr=0.1", ("fanout=1", "lr=0.1")),
        (0, "gossip lr=0.2", ("fanout=1", "lr=0.2")),
        (7, "fedavg lr=0.1", ("epochs=2", "lr=0.1")),
        (7, "fedavg lr=0.2", ("epochs=2", "lr=0.2")),
    ]


@pytest.mark.parametrize(("text", "seeds"), [("3", [0, 1, 2]), ("7,", [7]), ("3,5,3", [3, 5])])
def test_seeds(text: str, seeds: list[int]) -> None:
    assert seeds_of(text) == seeds


@pytest.mark.parametrize("text", ["", "0", "-1", "1001", "1.5", ","])
def test_no_seeds(text: str) -> None:
    with pytest.raises(ConfigError, match="--seeds"):
        seeds_of(text)
