from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rolecall.core.tensors import Tensors

from .conftest import Done, Rolecall

Run = Callable[..., Done]


def application(directory: Path, class_: str = "Counter", **content: Any) -> Path:
    """Write an application of one role of `tiny_roles`."""
    role = {"class": f"tiny_roles:{class_}", **content.pop("role", {})}
    if class_ == "Counter":
        role["options"] = {"rounds": "${rounds}", **role.get("options", {})}
    app = {
        "name": "tiny",
        "parameters": {"rounds": 3},
        "nodes": {"n": {}},
        "roles": {"n": {"role": role}},
        "import_from": [str(Path(__file__).parent)],
        **content,
    }
    path = directory / "app.yaml"
    path.write_text(yaml.safe_dump(app))
    return path


@pytest.fixture(autouse=True)
def _paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(os, "environ", os.environ.copy())


@pytest.fixture
def run(rolecall: Rolecall, tmp_path: Path) -> Run:
    """Run an application, with its run directory at `tmp_path/runs`."""

    def call(path: Path, *arguments: str) -> Done:
        return rolecall("run", path, "--runs-dir", tmp_path / "runs", *arguments)

    return call


def only_run(tmp_path: Path) -> Path:
    [directory] = (tmp_path / "runs").iterdir()
    return directory


def test_for_people(run: Run, tmp_path: Path) -> None:
    done = run(application(tmp_path), "--seed", "7")
    assert (done.code, done.err) == (0, "")
    lines = done.out.splitlines()
    assert lines[0] == "tiny: 1 node, 1 role, engine local, seed 7"
    assert [line[:26] for line in lines[1:4]] == [f"round {r}/3  accuracy 0.{r}000" for r in (1, 2, 3)]
    assert any(line.endswith("0.300") for line in lines)
    assert lines[-3].startswith("tiny finished with accuracy 0.3000 after 3 rounds in ")
    assert lines[-1] == f"run directory: {only_run(tmp_path)}"


def test_for_programs(run: Run, tmp_path: Path) -> None:
    done = run(application(tmp_path), "--seed", "7", "--format", "jsonl")
    assert (done.code, done.err) == (0, "")
    began = {"event": "started", "name": "tiny", "engine": "local", "seed": 7}
    assert began.items() <= done.events[0].items()
    statuses = [event["status"] for event in done.of("status") if event["role"] == "n/role"]
    assert statuses[:2] == ["starting", "ready"]
    metrics = done.of("metric")
    assert [(event["role"], event["round"], event["accuracy"]) for event in metrics] == [
        ("n/role", 1, 0.1),
        ("n/role", 2, 0.2),
        ("n/role", 3, 0.3),
    ]
    ended = {"event": "finished", "status": "ok", "architecture": "tiny", "rounds": 3}
    assert ended.items() <= done.last.items()
    assert done.last["accuracy"] == 0.3
    assert done.last["wall_s"] > 0
    assert len(done.last["digest"]) >= 32


def test_what_a_started_call_returned_is_in_every_output(run: Run, tmp_path: Path) -> None:
    app = application(tmp_path, "Adder", start={"call": "n/role.add", "with": {"numbers": [1, 2]}})
    done = run(app, "--format", "jsonl")
    assert done.last["returned"] == {"n/role.add": {"sum": 3}}
    assert json.loads((only_run(tmp_path) / "summary.json").read_text())["returned"] == {"n/role.add": {"sum": 3}}
    lines = run(app).out.splitlines()
    assert lines[-4:-2] == ["n/role  sum 3", 'n/role.add returned {"sum": 3}']


def test_everything_is_in_the_run_directory_and_runs_again_from_there(run: Run, tmp_path: Path) -> None:
    first = run(application(tmp_path), "--set", "rounds=5", "--format", "jsonl").last
    directory = Path(first["run_dir"])
    metrics = (directory / "metrics.jsonl").read_text().splitlines()
    assert {path.name for path in directory.iterdir()} >= {
        "app.yaml",
        "log.txt",
        "metrics.jsonl",
        "model.safetensors",
        "summary.json",
    }
    assert [json.loads(line)["round"] for line in metrics] == [1, 2, 3, 4, 5]
    assert "n/role is ready" in (directory / "log.txt").read_text()
    assert json.loads((directory / "summary.json").read_text())["digest"] == first["digest"]
    assert Tensors.load(directory / "model.safetensors")["w"].shape == (2,)
    again = run(directory / "app.yaml", "--format", "jsonl").last
    assert (again["digest"], again["seed"], again["rounds"]) == (first["digest"], first["seed"], 5)
    assert again["run_dir"] != first["run_dir"]


def test_the_seed_decides(run: Run, tmp_path: Path) -> None:
    path = application(tmp_path)
    digests = [run(path, "--seed", seed, "--format", "jsonl").last["digest"] for seed in ("1", "1", "2")]
    assert digests[0] == digests[1] != digests[2]


def test_a_role_that_fails(run: Run, tmp_path: Path) -> None:
    path = application(tmp_path, role={"options": {"fails_at": 3}})
    done = run(path)
    assert done.code == 1
    assert done.err == "error: n/role failed in main: ValueError: round 3 went wrong\n"
    assert done.out.splitlines()[-1] == f"the traceback is in {only_run(tmp_path)}/log.txt"
    log = (only_run(tmp_path) / "log.txt").read_text()
    assert 'raise ValueError(f"round {r} went wrong")' in log
    assert json.loads((only_run(tmp_path) / "summary.json").read_text())["exit_code"] == 1


def test_a_role_that_fails_ends_the_event_stream(run: Run, tmp_path: Path) -> None:
    done = run(application(tmp_path, role={"options": {"fails_at": 2}}), "--format", "jsonl", "--debug")
    assert done.code == 1
    assert (done.last["event"], done.last["status"], done.last["exit_code"]) == ("failed", "failed", 1)
    assert done.last["error"] == "n/role failed in main: ValueError: round 2 went wrong"
    assert done.err.startswith("Traceback")


@pytest.mark.parametrize(
    ("factory", "code", "message"),
    [
        ("truncated", 3, "train.gz: truncated"),
        ("not_installed", 4, "pip install 'rolecall[data]'"),
    ],
)
def test_what_an_element_lacks_decides_the_code(
    run: Run, tmp_path: Path, factory: str, code: int, message: str
) -> None:
    elements = {"data": {"factory": f"tiny_roles:{factory}"}}
    done = run(application(tmp_path, "Reader", role={"elements": elements}), "--format", "jsonl")
    assert done.code == done.last["exit_code"] == code
    assert message in done.last["error"]
    assert message in done.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "ronds=3"], "rounds"),
        (["--set", "rounds"], "rounds"),
        (["--engine", "locl"], "Did you mean 'local'?"),
    ],
)
def test_wrong_settings(run: Run, tmp_path: Path, arguments: list[str], message: str) -> None:
    done = run(application(tmp_path), *arguments)
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err


def test_an_application_that_is_not_there(run: Run, tmp_path: Path) -> None:
    done = run(tmp_path / "nowhere.yaml", "--format", "jsonl")
    assert done.code == done.last["exit_code"] == 2
    assert "nowhere.yaml" in done.err
    assert not (tmp_path / "runs").exists()


def test_a_class_that_is_not_there_leaves_no_run_directory(run: Run, tmp_path: Path) -> None:
    done = run(application(tmp_path, "Countre"))
    assert done.code == 2
    assert "Did you mean 'Counter'?" in done.err
    assert not (tmp_path / "runs").exists()


def test_a_value_changed_after_it_was_sent_is_found_by_check(run: Run, tmp_path: Path) -> None:
    path = application(tmp_path, "Careless", relationships={"n": {"other": "n/role"}})
    assert run(path).code == 0
    done = run(path, "--check")
    assert done.code == 1
    assert "was changed after it was handed over" in done.err


def test_what_roles_print_stays_out_of_the_events(run: Run, tmp_path: Path) -> None:
    done = run(application(tmp_path, role={"options": {"prints": "hello"}}), "--format", "jsonl")
    assert done.code == 0
    assert done.last["status"] == "ok"
    assert done.err == "hello\n" * 3


def test_ctrl_c_ends_a_run_in_good_order(run: Run, tmp_path: Path) -> None:
    path = application(tmp_path, role={"options": {"rounds": 1000, "signals": 1}})
    before = signal.getsignal(signal.SIGINT)
    done = run(path, "--format", "jsonl")
    assert done.code == 5
    assert (done.last["event"], done.last["status"]) == ("finished", "stopped")
    assert 1 <= done.last["rounds"] < 1000
    assert done.err == "Stopping in good order; once more to abort.\n"
    assert (only_run(tmp_path) / "model.safetensors").exists()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_application_that_is_to_be_stopped_ends_well_when_it_is(run: Run, tmp_path: Path) -> None:
    path = application(tmp_path, role={"options": {"rounds": 1000, "signals": 1}}, until="stopped")
    assert run(path).code == 0


def test_ctrl_c_twice_aborts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class NoTimer:
        daemon = False

        def __init__(self, *given: object) -> None: ...

        def start(self) -> None: ...

        def cancel(self) -> None: ...

    monkeypatch.setattr("rolecall.cli.interrupts.threading.Timer", NoTimer)
    done = run(application(tmp_path, "Stubborn"), "--format", "jsonl")
    assert done.code == 130
    assert (done.last["event"], done.last["status"]) == ("failed", "aborted")
    assert done.err.splitlines()[-1] == "aborted by Ctrl-C"
    assert not (only_run(tmp_path) / "model.safetensors").exists()


def test_a_reader_that_goes_away_stops_the_run(tmp_path: Path) -> None:
    path = application(tmp_path, role={"options": {"rounds": 1_000_000}})
    command = [sys.executable, "-c", "import sys; from rolecall.cli import main; sys.exit(main())"]
    arguments = ["run", str(path), "--runs-dir", str(tmp_path / "runs"), "--format", "jsonl"]
    with subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["event"] == "started"
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 141
    assert json.loads((only_run(tmp_path) / "summary.json").read_text())["status"] == "stopped"


def test_the_data_directory_is_passed_on(run: Run, tmp_path: Path) -> None:
    run(application(tmp_path), "--data-dir", tmp_path)
    assert os.environ["ROLECALL_DATA"] == str(tmp_path)
    done = run(application(tmp_path), "--data-dir", tmp_path / "nowhere")
    assert done.code == 3
    assert "Check what --data-dir names" in done.err


def test_without_matplotlib_there_is_a_hint_and_no_plot(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "matplotlib" else found(name))
    done = run(application(tmp_path))
    assert done.code == 0
    assert done.err.startswith("the plot curve.png needs matplotlib, which is not installed. ")
    assert done.err.endswith("pip install 'rolecall[plots]'\n")


@pytest.mark.parametrize(("rounds", "state"), [(500, "Counter"), (2, "Heavy")])
def test_a_run_that_can_be_recorded_no_longer_is_an_error_that_names_its_directory(
    tmp_path: Path, rounds: int, state: str
) -> None:
    """Whether its logs or its final model do not fit: to a program, no file may be larger than 20,000 bytes."""
    path = application(tmp_path, state, parameters={"rounds": rounds})
    command = [sys.executable, "-m", "rolecall", "run", str(path), "--runs-dir", str(tmp_path / "runs")]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=no_large_files, check=False)
    assert f"error: {only_run(tmp_path)}: the run cannot be recorded (File too large)." in done.stderr, done.stderr
    assert done.returncode == 2
    assert "model.safetensors" not in os.listdir(only_run(tmp_path))


def no_large_files() -> None:
    """As a disk that is full is not to be had without privileges."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
