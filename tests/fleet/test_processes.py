"""The engine `processes`: what it gives is what `local` gives, and whatever happens, no process is left."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import psutil
import pytest

import rolecall as rc
from rolecall.core.errors import ApplicationFailed, ConfigError, NodeLost
from rolecall.core.records import LogLine, Metric, Record, StatusChange
from rolecall.fleet import processes

HERE = Path(__file__).parent
NAMES = ("server", "w1", "w2", "w3")


def toy(does: str = "", *, on_failure: Any = "fail", **boss: Any) -> rc.App:
    """Return an application of a boss and three workers, of which the second does something else."""
    workers = {name: {"does": does} if name == "w2" else {} for name in NAMES[1:]}
    return rc.App(
        name="toy",
        nodes={name: rc.Node() for name in NAMES},
        roles={
            "server": {"boss": rc.RoleSpec("process_roles:Boss", options=boss)},
            **{name: {"worker": rc.RoleSpec("process_roles:Worker", options=o)} for name, o in workers.items()},
        },
        relationships={"server": {"workers": "w*/worker"}},
        start="server/boss.run",
        on_failure=on_failure,
        seed=3,
        import_from=[str(HERE)],
    )


@pytest.fixture(autouse=True, scope="module")
def _what_is_opened_once() -> None:
    """Have uvloop open the two descriptors that it keeps for good."""
    anyio.run(anyio.lowlevel.checkpoint, backend_options={"use_uvloop": find_spec("uvloop") is not None})


@pytest.fixture(autouse=True)
def _nothing_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail a test that leaves a process or a descriptor behind."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    me = psutil.Process()
    before, others = set(os.listdir("/proc/self/fd")), me.children(recursive=True)
    yield
    assert [child for child in me.children(recursive=True) if child not in others and child.is_running()] == []
    assert set(os.listdir("/proc/self/fd")) <= before


class Run:
    """A run in processes, with what it told."""

    def __init__(self, app: rc.App, **options: Any) -> None:
        self.records: list[Record] = []
        self.history, self.error = None, None
        try:
            self.history = rc.run_sync(app, engine="processes", observers=[self.records.append], **options)
        except Exception as error:
            self.error = error

    def statuses(self, status: str) -> set[str]:
        """Return which roles entered a status."""
        return {r.role for r in self.records if isinstance(r, StatusChange) and r.status == status}

    @property
    def lines(self) -> list[str]:
        """What was logged."""
        return [f"{r.level} {r.source}: {r.text}" for r in self.records if isinstance(r, LogLine)]


def test_gives_what_local_gives() -> None:
    local = rc.run_sync(toy())
    run = Run(toy())
    history = run.history
    assert history is not None, run.error
    assert history.digest == local.digest
    assert history.final == local.final
    assert history.states == local.states
    assert history.returned == local.returned
    pids = {part for metric in history.metrics for part in str(metric.values.get("pids", "")).split()}
    assert len({pid.partition("=")[2] for pid in pids}) == 3
    comparable = [m.values for m in history.metrics if "pids" not in m.values]
    assert comparable == [m.values for m in local.metrics if "pids" not in m.values]
    times = [m.time_s for m in history.metrics]
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] <= history.wall_s
    roles = {"server/boss", "w1/worker", "w2/worker", "w3/worker"}
    assert run.statuses("ready") == run.statuses("stopped") == roles


def test_checked_runs_are_checked_on_every_node() -> None:
    run = Run(toy(), checked=True)
    assert run.history is not None, run.error
    assert run.history.digest == rc.run_sync(toy(), checked=True).digest


@pytest.mark.timeout(120)
def test_the_example_with_torch_ends_with_the_digest_of_one_process(example_digest: str) -> None:
    app = HERE.parents[1] / "examples" / "fedavg" / "app.yaml"
    assert rc.run_sync(app, engine="processes", seed=7).digest == example_digest


def test_main_routines_end_and_fail() -> None:
    def app(does: str, on_failure: Any = "fail") -> rc.App:
        return rc.App(
            name="walk",
            nodes={"n[1-2]": rc.Node()},
            roles={
                "n1": {"walker": rc.RoleSpec("process_roles:Walker")},
                "n2": {"walker": rc.RoleSpec("process_roles:Walker", options={"does": does}, on_failure=on_failure)},
            },
            import_from=[str(HERE)],
        )

    run = Run(app("end"))
    assert run.history is not None, run.error
    assert sorted(m.role for m in run.history.metrics if "rests" in m.values) == ["n1/walker", "n2/walker"]
    failed = Run(app("fail"))
    assert isinstance(failed.error, ApplicationFailed)
    assert str(failed.error) == "n2/walker failed in main: ValueError: lost its way"
    tolerated = Run(app("fail", "continue"))
    assert tolerated.history is not None, tolerated.error
    assert "error n2/walker: failed in main: ValueError: lost its way" in tolerated.lines
    assert "n2/walker" in tolerated.statuses("failed")


async def test_stops_in_good_order() -> None:
    stop = anyio.Event()

    def watch(record: Record) -> None:
        if isinstance(record, Metric) and "pids" in record.values:
            stop.set()

    history = await rc.run(toy(waits=True), engine="processes", observers=[watch], stop=stop)
    assert history.status == "stopped"
    assert history.states["server/boss"].round == 3


# ---------------------------------------------------------------------------------------------- failures


def test_a_role_that_fails_in_setup() -> None:
    run = Run(toy("fail in setup"))
    assert isinstance(run.error, ApplicationFailed)
    assert str(run.error) == "w2/worker failed in setup: ValueError: no luck"
    assert isinstance(run.error.__cause__, ValueError)


def test_a_role_whose_failure_is_tolerated_is_gone_for_the_others() -> None:
    run = Run(toy("fail in setup", on_failure="continue"))
    assert run.history is not None, run.error
    assert {m.values["answered"] for m in run.history.metrics if "answered" in m.values} == {2}
    assert "error w2/worker: failed in setup: no luck" in run.lines


def test_a_process_that_ends_by_itself() -> None:
    run = Run(toy("exit in setup"))
    assert isinstance(run.error, ApplicationFailed)
    assert str(run.error).startswith("node w2 failed in the run: NodeLost: w2/node was lost: its process ")
    assert "ended with exit code 3; its last words: out of | memory" in str(run.error)


def test_a_process_that_is_killed() -> None:
    run = Run(toy("be killed"))
    assert isinstance(run.error, ApplicationFailed)
    assert isinstance(run.error.__cause__, NodeLost)
    assert "node w2 failed" in str(run.error)
    assert "was ended by SIGKILL" in str(run.error)


def test_a_process_that_is_killed_and_not_missed() -> None:
    run = Run(toy("be killed", on_failure="continue", quorum=0.6))
    assert run.history is not None, run.error
    assert run.history.status == "ok"
    answered = [m.values["answered"] for m in run.history.metrics if "answered" in m.values]
    assert answered[-1] == 2
    assert any(line.startswith("error w2: the node is lost: its process") for line in run.lines)
    assert "w3/worker" in run.statuses("stopped")


def test_what_nodes_start_ends_with_them() -> None:
    sleeping = [
        process.pid for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", "1000"]
    ]
    run = Run(toy("start a process"))
    assert run.history is not None, run.error
    left = [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", "1000"]]
    assert [process.pid for process in left if process.pid not in sleeping] == []


# ---------------------------------------------------------------------------------------------- output


def test_output_and_logs_carry_the_name_of_the_node(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(toy("write"))
    assert run.history is not None, run.error
    out, err = capsys.readouterr()
    assert out == "w2: to stdout\n"
    assert "w2: to stderr\n" in err
    logged = {(record.name, record.levelno, record.getMessage()) for record in caplog.records}
    assert ("rolecall.role.w2/worker", logging.WARNING, "by its logger") in logged
    assert ("library", logging.WARNING, "w2: by a library") in logged


def test_the_secret_of_a_run_is_in_no_log_command_line_or_environment(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    secret, seen = "the only secret of this one run", list[str]()
    monkeypatch.setattr(processes, "new_secret", lambda: secret.encode())
    caplog.set_level(logging.DEBUG)

    def observe(record: Record) -> None:
        seen.append(repr(record))
        if isinstance(record, StatusChange) and record.status == "ready":
            for child in psutil.Process().children(recursive=True):
                seen.extend(Path(f"/proc/{child.pid}/{kind}").read_text() for kind in ("cmdline", "environ"))

    assert rc.run_sync(toy(), engine="processes", observers=[observe]).status == "ok"
    out, err = capfd.readouterr()
    said = "\n".join([*seen, caplog.text, out, err])
    assert "w2/worker" in said and "PATH=" in said
    for form in (secret, secret.encode().hex(), base64.b64encode(secret.encode()).decode()):
        assert form not in said


# ---------------------------------------------------------------------------------------------- what cannot go


class _Local(rc.Role):
    @rc.task
    async def run(self) -> None: ...


def test_objects_that_live_here_cannot_go_there() -> None:
    boss = rc.RoleSpec("process_roles:Boss", options={"rounds": object()})
    app = msgspec.structs.replace(toy(), roles={**toy().roles, "server": {"boss": boss}})
    with pytest.raises(
        ConfigError, match=r"roles.server.boss.options.rounds: it is object, .*name it in the application"
    ):
        rc.run_sync(app, engine="processes")


# ---------------------------------------------------------------------------------------------- the parent


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], list[int]]]]:
    """Start `rolecall run` with a toy that waits; return its process and those of its nodes once all are at work."""
    started: list[subprocess.Popen[str]] = []

    def start(app: rc.App) -> tuple[subprocess.Popen[str], list[int]]:
        app.save(tmp_path / "app.yaml")
        arguments = ["run", str(tmp_path / "app.yaml"), "--engine", "processes", "--format", "jsonl"]
        command = [sys.executable, "-m", "rolecall", *arguments, "--runs-dir", str(tmp_path / "runs")]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        for line in process.stdout:
            if "pids" in json.loads(line):
                break
        return process, [child.pid for child in psutil.Process(process.pid).children(recursive=True)]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def gone(pids: list[int]) -> bool:
    """Wait until processes have ended, 5 s at most."""
    _, alive = psutil.wait_procs([psutil.Process(pid) for pid in pids if psutil.pid_exists(pid)], timeout=5)
    return not alive


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP])
def test_nothing_outlives_a_parent_that_is_ended(running: Any, number: int) -> None:
    process, children = running(toy(waits=True))
    assert len(children) == 1 + len(NAMES)
    process.send_signal(number)
    process.wait()
    assert process.returncode == -number
    assert gone(children)


def test_nothing_outlives_a_fork_server_that_is_ended(running: Any) -> None:
    process, children = running(toy(waits=True))
    server = next(pid for pid in children if psutil.Process(pid).ppid() == process.pid)
    os.kill(server, signal.SIGKILL)
    assert gone(children)
    out, _ = process.communicate(timeout=10)
    assert process.returncode == 1
    assert "failed in the run: NodeLost" in json.loads(out.splitlines()[-1])["error"]


def test_a_first_signal_ends_the_run_in_good_order(running: Any) -> None:
    process, children = running(toy(waits=True))
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=15)
    assert process.returncode == 5
    assert json.loads(out.splitlines()[-1])["status"] == "stopped"
    assert gone(children)


def test_a_second_signal_aborts(running: Any) -> None:
    process, children = running(toy("", waits=True))
    for pid in children:  # nothing answers any more
        if psutil.Process(pid).ppid() != process.pid:
            os.kill(pid, signal.SIGSTOP)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert "once more to abort" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=15)
    assert process.returncode == 130
    assert gone(children)
