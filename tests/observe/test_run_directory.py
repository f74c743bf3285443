from __future__ import annotations

import errno
import json
from datetime import datetime
from pathlib import Path

import anyio
import numpy as np
import pytest

import rolecall as rc
from rolecall.core.errors import ConfigError
from rolecall.core.ids import RoleId
from rolecall.core.records import Audited, DeadLetter, LogLine, Metric, StatusChange
from rolecall.core.tensors import Tensors
from rolecall.observe.run_directory import RunDirectory
from rolecall.observe.summary import Failure, Summary

NOW = datetime(2026, 5, 4, 13, 7, 9)
ROLE = RoleId("server/coordinator")
SUMMARY = Summary(status="ok", architecture="fedavg", rounds=3, accuracy=0.9, wall_s=2.5, digest="ab", name="digits")


class Saved:
    def __init__(self, content: str) -> None:
        self.content = content

    def save(self, path: Path) -> None:
        path.write_text(self.content)


def create(runs: Path, name: str = "digits") -> RunDirectory:
    return RunDirectory.create(runs, name, now=NOW)


def test_its_name_says_when_and_what(tmp_path: Path) -> None:
    for expected in ("20260504-130709-digits", "20260504-130709-digits-2", "20260504-130709-digits-3"):
        directory = create(tmp_path / "runs")
        directory.close()
        assert directory.path.name == expected


@pytest.mark.parametrize(
    ("name", "in_path"),
    [
        ("../../etc/passwd", "etc-passwd"),
        ("größer & weiter", "gr-er-weiter"),
        ("..", "run"),
        ("x" * 99, "x" * 60),
    ],
)
def test_no_name_leads_out_of_the_runs_directory(tmp_path: Path, name: str, in_path: str) -> None:
    directory = create(tmp_path, name)
    directory.close()
    assert directory.path == tmp_path / f"20260504-130709-{in_path}"


def test_everything_a_run_leaves_behind(tmp_path: Path) -> None:
    directory = create(tmp_path)
    directory.save_app(Saved("name: digits\n"))
    directory.record(StatusChange(0.25, ROLE, "ready"))
    directory.record(Metric(1.0, ROLE, {"round": 1, "accuracy": 0.5}))
    directory.record(DeadLetter(1.5, "event", ROLE, "trained", "role ended"))
    directory.record(LogLine(2.0, "warning", "watchdog", "the loop was blocked"))
    directory.finish(SUMMARY, Saved("parameters"))
    directory.close()
    assert directory.files() == ["app.yaml", "log.txt", "metrics.jsonl", "model.safetensors", "summary.json"]
    [metric] = (directory.path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(metric) == {"event": "metric", "role": ROLE, "time_s": 1.0, "round": 1, "accuracy": 0.5}
    assert (directory.path / "log.txt").read_text().splitlines() == [
        "    0.250000  status   server/coordinator is ready",
        "    1.500000  dead     event to server/coordinator.trained: role ended",
        "    2.000000  warning  watchdog: the loop was blocked",
        "    2.500000  info     digits ended: ok",
    ]
    summary = json.loads((directory.path / "summary.json").read_text())
    assert (summary["status"], summary["digest"], summary["accuracy"]) == ("ok", "ab", 0.9)
    assert {"python", "rolecall"} <= set(summary["versions"])


def test_what_was_done_to_nodes_is_in_a_log_of_its_own(tmp_path: Path) -> None:
    directory = create(tmp_path)
    directory.record(Audited(1.0, "n1", "assign", {"who": "n1/lead", "role": "n1/worker"}))
    directory.record(Audited(2.0, "n1", "deny", {"who": "somebody"}))
    lines = [json.loads(line) for line in (directory.path / "audit.jsonl").read_text().splitlines()]
    directory.close()
    assert all(line.pop("time").endswith("+00:00") for line in lines)
    assert lines == [
        {"node": "n1", "event": "assign", "who": "n1/lead", "role": "n1/worker"},
        {"node": "n1", "event": "deny", "who": "somebody"},
    ]
    assert (directory.path / "log.txt").read_text() == ""


def test_metrics_can_be_read_while_the_run_goes_on(tmp_path: Path) -> None:
    directory = create(tmp_path)
    directory.record(Metric(1.0, ROLE, {"accuracy": 0.5}))
    assert "accuracy" in (directory.path / "metrics.jsonl").read_text()
    directory.close()
    directory.close()


def test_a_failure_leaves_its_traceback_in_the_log_only(tmp_path: Path) -> None:
    directory = create(tmp_path)
    failure = Failure(status="failed", error="boom", error_type="E", exit_code=1, traceback="Traceback: x\n")
    directory.fail(failure)
    directory.close()
    assert (directory.path / "log.txt").read_text() == "failed: boom\nTraceback: x\n"
    summary = json.loads((directory.path / "summary.json").read_text())
    assert (summary["error"], summary["exit_code"]) == ("boom", 1)
    assert "traceback" not in summary


def test_where_nothing_can_be_written_the_message_names_the_option(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"--runs-dir .*file: the run directory cannot be created"):
        create(tmp_path / "file")


class Disk:
    """Has room for so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room

    def charge(self, size: int) -> None:
        if size > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        self.room -= size


def test_a_full_disk_is_an_error_that_names_the_directory(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path, Disk(30).charge)
    with pytest.raises(
        ConfigError, match=rf"{tmp_path}: the run cannot be recorded \(No space left on device\). Make room"
    ):
        for _ in range(10):
            directory.record(LogLine(0.0, "info", "a", "text"))
    directory.close()
    assert (tmp_path / "log.txt").read_text().count("\n") <= 1


def test_what_does_not_fit_leaves_no_file_and_what_fits_is_whole(tmp_path: Path) -> None:
    disk = Disk(900)
    directory = RunDirectory(tmp_path, disk.charge)
    with pytest.raises(ConfigError, match="cannot be recorded"):
        directory.finish(SUMMARY, Tensors({"w": np.zeros(1_000)}))
    assert directory.files() == ["log.txt", "metrics.jsonl"]
    directory.save_curve(lambda path: None)  # nothing to draw
    directory.save_curve(lambda path: path.write_bytes(bytes(10)))
    assert directory.files() == ["curve.png", "log.txt", "metrics.jsonl"] and disk.room == 890
    disk.room = 10_000
    directory.finish(SUMMARY, Tensors({"w": np.zeros(1_000)}))
    directory.close()
    assert directory.files() == ["curve.png", "log.txt", "metrics.jsonl", "model.safetensors", "summary.json"]


class Writer(rc.Role):
    """Logs every second."""

    async def main(self) -> None:
        for second in range(1, 11):
            await anyio.sleep(1)
            self.log(round=second)


@pytest.mark.simulation(seeds=2)
async def test_a_simulated_disk_that_is_full_ends_the_run(tmp_path: Path, sim_seed: int) -> None:
    app = rc.App(name="writing", nodes={"a": rc.Node(), "b": rc.Node()}, roles={"a": {"writer": rc.RoleSpec(Writer)}})
    for node, rounds in (("b", 10), ("a", 4)):
        path = tmp_path / f"{sim_seed}{node}"
        path.mkdir(exist_ok=True)
        async with rc.simulation(app) as sim:
            directory = RunDirectory(path, sim.disk("a").charge)
            sim.observe(directory.record)
            sim.at(4.5).disk_full(node)
            if node == "a":
                with pytest.raises(ConfigError, match=rf"{path}: the run cannot be recorded \(No space left"):
                    await sim.finished()
            else:
                await sim.finished()
        directory.close()
        assert len((path / "metrics.jsonl").read_text().splitlines()) == rounds
