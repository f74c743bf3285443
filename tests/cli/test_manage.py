"""The commands that look after runs and nodes, and `run -d`, with a run in a process of its own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from anyio.from_thread import start_blocking_portal

from rolecall.cli.places import Places
from rolecall.cli.shell import Shell

from .conftest import Rolecall

HERE = Path(__file__).parent


COMMANDS = ("ps", "status", "logs", "call", "assign", "pause", "resume", "relate", "stop", "shell")


def application(directory: Path, class_: str = "Adder", name: str = "adding") -> Path:
    app = {
        "name": name,
        "nodes": {"n[1-2]": {}},
        "roles": {"n*": {"adder": {"class": f"managed:{class_}"}}},
        "until": {"seconds": 600},
        "import_from": [str(HERE)],
    }
    path = directory / f"{name}.yaml"
    path.write_text(yaml.safe_dump(app))
    return path


def command(*arguments: Any) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "rolecall", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def detached(directory: Path, app: Path, *arguments: str) -> dict[str, Any]:
    done = command("run", app, "-d", "--format", "jsonl", "--runs-dir", directory / "runs", *arguments)
    assert done.returncode == 0, done.stderr
    told, last = (json.loads(line) for line in done.stdout.splitlines())
    assert last == {"event": "finished", "terminal": True, "status": "ok"}
    assert told.pop("event") == "detached"
    return dict(told)


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory, reaping: None) -> Iterator[Path]:
    """Use a directory of this module's own for records of what runs."""
    with pytest.MonkeyPatch.context() as patch:
        directory = tmp_path_factory.mktemp("managed")
        patch.setenv("ROLECALL_STATE", str(directory / "state"))
        for name in ("ROLECALL_CERTS", "ROLECALL_SECRET_FILE", "ROLECALL_LISTEN"):
            patch.delenv(name, raising=False)
        yield directory


@pytest.fixture(autouse=True)
def _state(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_STATE", str(state / "state"))


@pytest.fixture(scope="module")
def adding(state: Path) -> Iterator[dict[str, Any]]:
    """Return what is known of a run that goes on, with an adder on each of two nodes."""
    run = detached(state, application(state))
    yield run
    with contextlib.suppress(ProcessLookupError):
        os.kill(run["pid"], signal.SIGKILL)


# ------------------------------------------------------------------------------------------ what there is


def test_runs_are_listed(rolecall: Rolecall, adding: dict[str, Any]) -> None:
    [row] = rolecall("ps", "--format", "jsonl").of("run")
    assert row.pop("since")
    assert row == {
        "event": "run",
        "id": f"adding-{adding['pid']}",
        "what": "run, local",
        "application": "adding",
        "nodes": 2,
        "pid": adding["pid"],
        "listens": None,
        "run_dir": adding["run_dir"],
    }
    heading, line = rolecall("ps").out.splitlines()
    assert heading.split()[:2] == ["id", "what"]
    assert line.startswith(f"{adding['id']}  run, local")


def test_the_status_of_nodes_is_shown(rolecall: Rolecall, adding: dict[str, Any]) -> None:
    done = rolecall("status", "--format", "jsonl")
    assert [event["node"] for event in done.of("node")] == ["n1", "n2"]
    [node] = rolecall("status", "n2", "--format", "jsonl").of("node")
    assert (node["application"], node["dead_letters"]) == ("adding", 0)
    assert [(role["role"], role["class"], role["status"]) for role in node["roles"]][1] == (
        "n2/adder", "managed:Adder", "ready",
    )  # fmt: skip
    first, *rest = rolecall("status", "n1").out.splitlines()
    assert first.startswith("n1: up ")
    assert [line.split()[:2] for line in rest[:2]] == [["n1/node", "ready"], ["n1/adder", "ready"]]
    by_pattern = rolecall("status", "n[1-2]", "--format", "jsonl").of("node")
    assert [event["node"] for event in by_pattern] == ["n1", "n2"]
    by_run = rolecall("status", str(adding["pid"]), "--format", "jsonl").of("node")
    assert [event["node"] for event in by_run] == ["n1", "n2"]


# ------------------------------------------------------------------------------------------ what can be done


def test_a_role_is_called_and_its_log_is_read(rolecall: Rolecall, adding: dict[str, Any]) -> None:
    first = json.loads(rolecall("call", "n1/adder", "add", "numbers=[1, 2]").out)
    done = rolecall("call", "n1/adder", "add", "--json", '{"numbers": [4]}', "--format", "jsonl")
    assert done.of("result") == [{"event": "result", "role": "n1/adder", "channel": "add", "result": first + 4}]
    assert done.last["status"] == "ok"
    assert rolecall("logs", "n1/adder", "-n", "1").out.endswith(f"  n1/adder  sum={first + 4}\n")
    lines = rolecall("logs", "*/adder", "-n", "2", "--format", "jsonl").of("log")
    assert [(line["source"], line["text"]) for line in lines] == [
        ("n1/adder", f"sum={first}"),
        ("n1/adder", f"sum={first + 4}"),
    ]
    assert rolecall("logs", "n2", "--level", "warning").out == ""


def test_the_items_of_a_stream_are_printed_as_they_come(rolecall: Rolecall, adding: dict[str, Any]) -> None:
    assert rolecall("call", "n1/adder", "count", "to=3").out == "0\n1\n2\n"
    done = rolecall("call", "n1/adder", "count", "to=2", "--format", "jsonl")
    assert [event["result"] for event in done.of("result")] == [0, 1]
    assert done.last["status"] == "ok"


def test_roles_are_paused_and_go_on(rolecall: Rolecall, adding: dict[str, Any]) -> None:
    assert rolecall("pause", "*/adder").out == "n1/adder is paused.\nn2/adder is paused.\n"
    late = rolecall("call", "n1/adder", "add", "numbers=[1]", "--timeout", "0.05")
    assert (late.code, "within 0.05 s" in late.err) == (1, True)
    assert rolecall("resume", "*/adder", "--format", "jsonl").of("resumed") == [
        {"event": "resumed", "role": "n1/adder"}, {"event": "resumed", "role": "n2/adder"}
    ]  # fmt: skip
    assert rolecall("call", "n1/adder", "add", "numbers=[]").code == 0


def test_relationships_are_made_to_name_others(rolecall: Rolecall, adding: dict[str, Any]) -> None:
    def who() -> list[str]:
        return list(json.loads(rolecall("call", "n1/relating", "who").out))

    assert rolecall("assign", "n1", "relating", "managed:Asker", "--relate", "adders=n1/adder").code == 0
    said = rolecall("relate", "n1/relating", "adders", "n2/adder", "--add").out
    assert (said, who()) == ("adders of n1/relating has more: n2/adder.\n", ["n1/adder", "n2/adder"])
    absent = rolecall("relate", "n1/relating", "adders", "n1/*", "--remove")
    assert (absent.code, "n1/* cannot be removed from what it names: n1/adder, n2/adder" in absent.err) == (2, True)
    assert rolecall("relate", "n1/relating", "adders", "n1/adder", "--remove").code == 0
    assert who() == ["n2/adder"]
    assert rolecall("relate", "n1", "friends", "*/adder").out == "friends of n1 is now */adder.\n"
    assert rolecall("relate", "n1/relating", "adders", "--alias", "friends").code == 0
    assert who() == ["n1/adder", "n2/adder"]
    done = rolecall("relate", "n1/relating", "adders", "--format", "jsonl")
    assert done.of("related") == [
        {"event": "related", "of": "n1/relating", "name": "adders", "how": "replace", "roles": []}
    ]
    assert who() == []
    for wrong in (["--add"], ["x/y", "--add", "--remove"], ["x/y", "--alias", "friends"]):
        assert rolecall("relate", "n1/relating", "adders", *wrong).code == 2
    assert rolecall("stop", "n1/relating").code == 0


def test_the_log_is_followed_until_nobody_reads(rolecall: Rolecall, adding: dict[str, Any]) -> None:
    words = [sys.executable, "-m", "rolecall", "logs", "n2", "-f", "-n", "0"]
    rolecall("call", "n2/adder", "add", "numbers=[1]")
    with subprocess.Popen([*words[:-1], "1"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline().endswith("n2/adder  sum=1\n")  # it has begun
        rolecall("call", "n2/adder", "add", "numbers=[7]")
        assert following.stdout.readline().endswith("n2/adder  sum=8\n")
        following.send_signal(signal.SIGINT)
        _, err = following.communicate(timeout=30)
        assert following.returncode == 130
        assert err == "aborted by Ctrl-C\n"


def test_roles_are_assigned_and_stopped(rolecall: Rolecall, adding: dict[str, Any]) -> None:
    done = rolecall("assign", "n2", "more", "managed:Adder", "--set", "start=10", "--format", "jsonl")
    assert done.of("assigned") == [{"event": "assigned", "role": "n2/more"}]
    assert rolecall("call", "n2/more", "add", "numbers=[1]").out == "11\n"
    assert rolecall("assign", "n1", "asker", "managed:Asker", "--relate", "adders=*/adder,n2/more").code == 0
    assert json.loads(rolecall("call", "n1/asker", "who").out) == ["n1/adder", "n2/adder", "n2/more"]
    assert rolecall("stop", "n2/more").out == "n2/more has stopped.\n"
    assert json.loads(rolecall("call", "n1/asker", "who").out) == ["n1/adder", "n2/adder"]


@pytest.mark.parametrize(
    ("words", "problem", "code"),
    [
        ("call n1/ader add", r"There is no role 'n1/ader'. Did you mean 'n1/adder'?", 2),
        ("call n1/adder ad", "Did you mean 'add'?", 2),
        ("call n1/adder add", "argument 'numbers' is missing", 2),
        ("call n1/adder add numbers=x", "expected list", 2),
        ("call n1/adder add numbers", "found 'numbers', expected NAME=VALUE", 2),
        ("call n1/adder add numbers=[1] numbers=[2]", "'numbers' is given twice", 2),
        ("call n1/adder add --json [1]", "this is no object", 2),
        ("call n1/adder add --json {", "this is no JSON", 2),
        ("call n1/adder add numbers=[1] --json {}", "both as NAME=VALUE and with --json", 2),
        ("call n1/adder fail", "ValueError: it went wrong", 1),
        ("call n1/adder wait --timeout 0.01", "n1/adder.wait did not answer within 0.01 s", 1),
        ("call adder add", "roles are named NODE/ROLE", 2),
        ("call m1/adder add", "no node 'm1' can be found on this machine. The nodes here: n1, n2", 2),
        ("status n3", "no node 'n3' can be found on this machine", 2),
        ("status --run adder", "nothing here is called 'adder'", 2),
        ("logs --level warn", "There is no level 'warn'. Did you mean 'warning'?", 2),
        ("assign n1 x managed.Adder", "a class is named module:QualName", 2),
        ("assign n1 x managed:Ader", "Did you mean 'Adder'?", 2),
        ("assign n1 adder managed:Adder", "there is already a role of this name", 2),
        ("assign n1 x managed:Failing", "no setup today", 1),
        ("assign n1 x managed:Adder --set begin=1", "begin", 2),
        ("stop n1", "it lives as long as the run adding-", 2),
        ("stop n1/nobody", "There is no role 'n1/nobody'", 2),
        ("status n1 --at 127.0.0.1:1", "what lets you look after the node there is missing", 2),
    ],
)
def test_what_cannot_be_done_is_told(
    rolecall: Rolecall, adding: dict[str, Any], words: str, problem: str, code: int
) -> None:
    done = rolecall(*words.split(), "--format", "jsonl")
    assert problem in done.err
    assert done.code == code
    assert done.last["exit_code"] == code


# ------------------------------------------------------------------------------------------ the shell


def at_the_prompt(capsys: pytest.CaptureFixture[str], *lines: str) -> tuple[str, str]:
    """Return what a shell prints when these lines are typed, its prompts left out, and what it prints to stderr."""
    with start_blocking_portal() as portal:
        Shell(portal, Places(), sys.stdout, stdin=io.StringIO("\n".join(lines) + "\n")).cmdloop_until_left()
    out, err = capsys.readouterr()
    return out.removeprefix(f"{Shell.intro}\n").replace(Shell.prompt, ""), err


def test_the_shell_does_commands_and_python(capsys: pytest.CaptureFixture[str], adding: dict[str, Any]) -> None:
    out, err = at_the_prompt(
        capsys,
        'assign n2 shelled managed:Adder --set "start=100"',
        "call n2/shelled add numbers=[1]",
        'sums = [await call("n2/shelled", "add", numbers=[n]) for n in range(3)]',
        "sums",
        "_[-1] + 1",
        'len((await status("n2")).roles)',
        'await stop("n2/shelled")',
        "",
        "exit",
        "never read",
    )
    assert err == ""
    assert out.splitlines() == ["n2/shelled is ready.", "101", "[101, 102, 104]", "105", "3", "['n2/shelled']"]


def test_the_shell_survives_mistakes(capsys: pytest.CaptureFixture[str], adding: dict[str, Any]) -> None:
    out, err = at_the_prompt(
        capsys,
        "call n1/adder ad",
        "statu n1",
        'await call("n1/adder", "fail")',
        "1 / 0",
        "call 'n1",
        "help",
        "help call",
    )
    assert "Did you mean 'add'?" in err
    assert "ValueError: it went wrong" in err
    assert "No closing quotation" in err
    assert "This is no command, and no Python either" in out
    assert "ZeroDivisionError: division by zero" in out
    assert "Commands: ps, status, logs, call, assign, pause, resume, relate, stop" in out
    assert "Example:  rolecall call" in out


def test_the_shell_completes(adding: dict[str, Any]) -> None:
    with start_blocking_portal() as portal:
        shell = Shell(portal, Places(), sys.stdout)
        assert shell.completenames("st") == ["status", "stop"]
        assert shell.completedefault("n1/ad", "call n1/ad", 5, 10) == ["n1/adder"]
        assert adding["id"] in shell.completedefault("", "status ", 7, 7)
        assert shell.completedefault("n", "await n", 6, 7) == []


# ------------------------------------------------------------------------------------------ beginnings and ends


def test_a_run_is_stopped_in_good_order(rolecall: Rolecall, state: Path, adding: dict[str, Any]) -> None:
    run = detached(state, application(state, name="brief"), "--engine", "processes")
    ambiguous = rolecall("status", "n1")
    assert ambiguous.code == 2
    assert f"it could be any of 2: {adding['id']}, {run['id']}. Say which with --run" in ambiguous.err
    assert rolecall("call", "n1/adder", "add", "numbers=[5]", "--run", "brief").out == "5\n"
    done = rolecall("stop", "brief")
    assert done.out == f"{run['id']} has ended.\n", done.err
    assert [row["id"] for row in rolecall("ps", "--format", "jsonl").of("run")] == [adding["id"]]
    directory = Path(run["run_dir"])
    assert json.loads((directory / "summary.json").read_text())["status"] == "stopped"
    last = json.loads((directory / "output.txt").read_text().splitlines()[-1])
    assert (last["event"], last["terminal"]) == ("finished", True)


@pytest.mark.parametrize(
    ("class_", "engine", "problem"),
    [
        ("Ader", "local", "Did you mean 'Adder'?"),
        ("Adder", "nodes", "it has no address, which the engine `nodes` needs"),
    ],
)
def test_a_detached_run_that_cannot_begin_says_why(state: Path, class_: str, engine: str, problem: str) -> None:
    path = application(state, class_, name="wrong")
    words = ("run", path, "-d", "--engine", engine, "--runs-dir", state / "runs", "--format", "jsonl")
    done = command(*words)
    assert done.returncode == 2
    assert problem in done.stderr
    last = json.loads(done.stdout.splitlines()[-1])
    assert (last["terminal"], last["exit_code"]) == (True, 2)


def test_without_anything_to_look_after(rolecall: Rolecall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_STATE", str(tmp_path))
    tmp_path.chmod(0o700)
    assert rolecall("ps").out == "Nothing runs here that could be looked after.\n"
    assert "no run and no node can be found here. Start one: rolecall run APP" in rolecall("status").err
    tmp_path.chmod(0o755)
    done = rolecall("ps")
    assert (done.code, "other users may look into it" in done.err) == (2, True)


def test_a_run_goes_on_where_it_cannot_be_recorded(
    rolecall: Rolecall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ROLECALL_STATE", str(tmp_path / "file"))
    path = application(tmp_path)
    path.write_text(path.read_text().replace("seconds: 600", "seconds: 0.3"))
    done = rolecall("run", path, "--runs-dir", tmp_path / "runs")
    assert done.code == 0, done.err
    assert "warning: rolecall: others cannot look after this: " in done.out


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example(rolecall: Rolecall, name: str) -> None:
    done = rolecall(name, "--help")
    assert done.code == 0
    assert f"Example:  rolecall {name}" in done.out


# ------------------------------------------------------------------------------------------ nodes


@pytest.fixture
def edge(state: Path, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str, Path]]:
    """Return a node that serves, its address, and the file with its secret."""
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("what all nodes of this test know")
    words = ["node", "edge1", "--listen", "127.0.0.1:0", "--secret-file", str(secret), "--allow", "managed"]
    with subprocess.Popen(
        [sys.executable, "-m", "rolecall", *words, "--audit", str(tmp_path / "audit.jsonl"), "--format", "jsonl"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(HERE)},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())["address"], secret
        process.kill()


def test_a_node_is_looked_after_too(
    rolecall: Rolecall, edge: tuple[subprocess.Popen[str], str, Path], tmp_path: Path
) -> None:
    process, address, secret = edge
    remote = ("--at", address, "--secret-file", secret, "--format", "jsonl")
    [there] = rolecall("status", *remote).of("node")
    assert (there["node"], there["application"]) == ("edge1", None)
    [row] = rolecall("ps", "--format", "jsonl").of("node")
    assert (row["id"], row["pid"], row["listens"], row["application"]) == ("edge1", process.pid, address, None)
    [here] = rolecall("status", "edge1", "--format", "jsonl").of("node")
    assert here["incarnation"] == there["incarnation"]
    wrong = tmp_path / "wrong"
    wrong.touch(0o600)
    wrong.write_text("what no node of this test knows")
    refused = rolecall("status", "--at", address, "--secret-file", wrong)
    assert (refused.code, "has another secret" in refused.err) == (1, True)
    assert rolecall("stop", "edge1").out == "edge1 has ended.\n"
    assert process.wait() == 0
    events = [json.loads(line)["event"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert (events[0], events[-1]) == ("begin", "end")


def test_roles_are_assigned_to_a_node_that_nobody_conducts(
    rolecall: Rolecall, edge: tuple[subprocess.Popen[str], str, Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def application_there() -> str | None:
        [node] = rolecall("status", "edge1", "--format", "jsonl").of("node")
        return node["application"] and str(node["application"])

    _, address, secret = edge
    assert rolecall("assign", "edge1", "one", "managed:Adder", "--set", "start=10").out == "edge1/one is ready.\n"
    asker = rolecall("assign", "edge1", "two", "managed:Asker", "--relate", "adders=*/one")
    assert (asker.out, application_there()) == ("edge1/two is ready.\n", "assigned")
    assert json.loads(rolecall("call", "edge1/two", "who").out) == ["edge1/one"]
    assert "no setup today" in rolecall("assign", "edge1", "three", "managed:Failing").err
    assert "does not import 'json:JSONDecoder'" in rolecall("assign", "edge1", "four", "json:JSONDecoder").err
    app = application(state, name="conducted")
    tree = yaml.safe_load(app.read_text()) | {"nodes": {"edge1": {"address": address}}, "until": {"seconds": 0.2}}
    app.write_text(yaml.safe_dump({**tree, "roles": {"edge1": tree["roles"]["n*"]}}))
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    words = ("run", app, "--engine", "nodes", "--secret-file", secret, "--runs-dir", state / "runs")
    occupied = rolecall(*words).err
    assert "has the application 'assigned' already. It ends with its last role: `rolecall stop 'edge1/*'`" in occupied
    assert rolecall("call", "edge1/one", "add", "numbers=[1]").out == "11\n"
    assert rolecall("stop", "edge1/*").code == 0
    assert application_there() is None
    assert rolecall("assign", "edge1", "one", "managed:Failing").code != 0
    assert application_there() is None
    assert rolecall(*words).code == 0


def test_a_run_on_nodes_is_looked_after_at_either_end(
    rolecall: Rolecall, edge: tuple[subprocess.Popen[str], str, Path], state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, address, secret = edge
    path = state / "onnodes.yaml"
    app = yaml.safe_load(application(state, name="onnodes").read_text())
    app |= {"nodes": {"edge1": {"address": address}}, "roles": {"edge1": app["roles"]["n*"]}}
    path.write_text(yaml.safe_dump(app))
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    run = detached(state, path, "--engine", "nodes", "--secret-file", str(secret))
    assert rolecall("call", "edge1/adder", "add", "numbers=[2]").out == "2\n"
    assert rolecall("call", "edge1/adder", "add", "numbers=[2]", "--run", run["id"]).out == "4\n"
    assert rolecall("logs", "edge1/adder", "-n", "1").out.endswith("edge1/adder  sum=4\n")
    assert rolecall("assign", "edge1", "more", "managed:Adder").code == 0
    foreign = rolecall("assign", "edge1", "other", "json:JSONDecoder")
    assert (foreign.code, "does not import 'json:JSONDecoder'" in foreign.err) == (2, True)
    assert rolecall("stop", run["id"]).code == 0
    assert rolecall("stop", "edge1").code == 0
