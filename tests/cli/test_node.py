from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from rolecall.wire.certificates import create_authority, issue

Rolecall = Callable[..., Any]
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture
def certs(tmp_path: Path) -> Path:
    """Return a directory with certificates of node `a`, and of `old` whose has expired."""
    folder = tmp_path / "certs"
    create_authority(folder, now=LONG_AGO)
    issue(folder, "a")
    issue(folder, "old", now=LONG_AGO)
    return folder


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_bytes(b"a secret of many bytes\n")
    return path


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ROLECALL_CERTS", "ROLECALL_SECRET_FILE", "ROLECALL_LISTEN"):
        monkeypatch.delenv(name, raising=False)


def command(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "rolecall", "node", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# ------------------------------------------------------------------------------------------ a node that runs


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_node_says_where_it_listens_and_ends_when_it_is_told(secret_file: Path, how: signal.Signals) -> None:
    with command("a", "--listen", "127.0.0.1:0", "--secret-file", str(secret_file)) as node:
        assert node.stdout is not None
        line = node.stdout.readline()
        assert line.startswith("Node a listens at 127.0.0.1:")
        assert line.endswith(", this machine only.\n")
        node.send_signal(how)
        out, err = node.communicate()
    assert node.returncode == 0, err
    assert out == ""
    assert "Stopping in good order" in err


def test_programs_get_json_lines_and_the_last_is_terminal(certs: Path) -> None:
    with command("a", "--listen", "127.0.0.1:0", "--certs", str(certs), "--format", "jsonl") as node:
        assert node.stdout is not None
        listening = json.loads(node.stdout.readline())
        node.send_signal(signal.SIGTERM)
        out, err = node.communicate()
    assert node.returncode == 0, err
    address = listening.pop("address")
    assert address.startswith("127.0.0.1:")
    assert listening == {"event": "listening", "node": "a", "join": None, "tls": True}
    assert [json.loads(line) for line in out.splitlines()] == [{"event": "finished", "terminal": True, "status": "ok"}]


def test_with_certificates_it_may_listen_for_other_machines(certs: Path) -> None:
    with command("a", "--listen", "0.0.0.0:0", "--certs", str(certs)) as node:
        assert node.stdout is not None
        line = node.stdout.readline()
        node.send_signal(signal.SIGTERM)
        _, err = node.communicate()
    assert node.returncode == 0, err
    assert line.startswith("Node a listens at 0.0.0.0:")
    assert line.endswith(", with TLS.\n")


def free_ports() -> int:
    """Return the first of three ports in a row that nobody listens at."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError), ExitStack() as stack:
                for number in (1, 2):
                    stack.enter_context(socket.create_server(("127.0.0.1", port + number)))
                return port


def test_several_in_one_process_have_a_port_and_an_end_of_their_own(rolecall: Rolecall, secret_file: Path) -> None:
    port = free_ports()
    log = secret_file.with_name("audit.jsonl")
    words = ("e[1-2]", "f", "--listen", f"127.0.0.1:{port}", "--secret-file", str(secret_file), "--audit", str(log))
    with command(*words, "--format", "jsonl") as process:
        assert process.stdout is not None
        there = [json.loads(process.stdout.readline()) for _ in range(3)]
        addresses = {one["node"]: one["address"] for one in there}
        assert addresses == {name: f"127.0.0.1:{port + n}" for n, name in enumerate(("e1", "e2", "f"))}
        assert {row["id"] for row in rolecall("ps", "--format", "jsonl").of("node")} == {"e1", "e2", "f"}
        assert rolecall("stop", "e2").out == "e2 has ended.\n"
        assert {row["id"] for row in rolecall("ps", "--format", "jsonl").of("node")} == {"e1", "f"}
        assert [node["node"] for node in rolecall("status", "f", "--format", "jsonl").of("node")] == ["f"]
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert [json.loads(line)["event"] for line in out.splitlines()] == ["finished"]
    ends = [line["node"] for line in map(json.loads, log.read_text().splitlines()) if line["event"] == "end"]
    assert ends[0] == "e2" and sorted(ends) == ["e1", "e2", "f"]


def test_what_one_of_several_cannot_do_ends_all(rolecall: Rolecall, secret_file: Path) -> None:
    with socket.create_server(("127.0.0.1", free_ports() + 1)) as taken:
        port = taken.getsockname()[1]
        done = rolecall("node", "e[1-3]", "--listen", f"127.0.0.1:{port - 1}", "--secret-file", str(secret_file))
    assert done.code == 2
    assert f"listen on 127.0.0.1:{port}: " in done.err


# ------------------------------------------------------------------------------------------ nodes that do not run


def test_without_certificates_it_listens_on_this_machine_only(rolecall: Rolecall, secret_file: Path) -> None:
    done = rolecall("node", "a", "--listen", "0.0.0.0:0", "--secret-file", str(secret_file))
    assert done.code == 2
    assert "listen on 0.0.0.0: other machines can reach this address" in done.err
    assert "`rolecall certs init` and `rolecall certs issue`" in done.err
    assert done.out == ""


def test_without_a_secret_it_does_not_listen_at_all(rolecall: Rolecall) -> None:
    done = rolecall("node", "a", "--listen", "127.0.0.1:0", "--format", "jsonl")
    assert done.code == 2
    assert "without a secret every user of this machine could join" in done.err
    assert done.last["error_type"] == "ConfigError"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["a"], "Say where it listens (--listen HOST:PORT)"),
        (["a", "--listen", "here"], "Write host:port, such as 127.0.0.1:4000"),
        (["a", "--join", "there"], "Write host:port, such as 127.0.0.1:4000"),
        (["a[3-1]", "--listen", "127.0.0.1:0"], "a[3-1]"),
        (["a", "b", "--listen", "127.0.0.1:65535"], "'127.0.0.1:65536': this is no address"),
        (["a/b", "--listen", "127.0.0.1:0"], "a/b"),
        (["conductor", "--listen", "127.0.0.1:0"], "'conductor' is the name of the node that conducts"),
    ],
)
def test_what_makes_no_sense_is_refused(
    rolecall: Rolecall, secret_file: Path, arguments: list[str], problem: str
) -> None:
    done = rolecall("node", *arguments, "--secret-file", str(secret_file))
    assert done.code == 2
    assert problem in done.err


def test_an_address_that_is_taken_is_named(rolecall: Rolecall, secret_file: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = rolecall("node", "a", "--listen", address, "--secret-file", str(secret_file))
    assert done.code == 2
    assert f"listen on {address}: " in done.err


def test_certificates_that_others_would_refuse_are_refused_at_once(
    rolecall: Rolecall, certs: Path, tmp_path: Path
) -> None:
    def refused(name: str, folder: Path = certs) -> str:
        done = rolecall("node", name, "--listen", "127.0.0.1:0", "--certs", str(folder))
        assert done.code == 2
        return str(done.err)

    assert "old.pem: it expired on 2021" in refused("old")
    assert "b.pem: it cannot be read" in refused("b")
    for ending in ("pem", "key"):
        shutil.copy(certs / f"a.{ending}", certs / f"b.{ending}")
    assert "it names the node 'a', and this node is 'b'. `rolecall certs issue b`" in refused("b")
    foreign = tmp_path / "foreign"
    create_authority(foreign)
    for ending in ("pem", "key"):
        shutil.copy(certs / f"a.{ending}", foreign)
    assert "a.pem: it was not issued by the authority of" in refused("a", foreign)


def test_a_secret_that_is_none_is_refused(rolecall: Rolecall, secret_file: Path) -> None:
    def refused() -> str:
        done = rolecall("node", "a", "--listen", "127.0.0.1:0", "--secret-file", str(secret_file))
        assert done.code == 2
        return str(done.err)

    secret_file.chmod(0o640)
    assert f"chmod 600 {secret_file}" in refused()
    secret_file.chmod(0o600)
    secret_file.write_bytes(b"short\n")
    assert "it has 5 bytes, and 16 are needed" in (said := refused())
    assert "short" not in said
    secret_file.write_bytes(bytes(5000))
    assert "more than 4,096 bytes" in refused()
    secret_file.unlink()
    assert "the secret cannot be read (No such file or directory)" in refused()


def test_what_is_logged_afterwards_is_logged_as_before(rolecall: Rolecall) -> None:
    import logging

    logger = logging.getLogger("rolecall")
    before = logger.level, logger.propagate, list(logger.handlers)
    rolecall("node", "a", "--listen", "127.0.0.1:0")
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_the_options_may_come_from_the_environment(rolecall: Rolecall, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_SECRET_FILE", os.devnull + "/nowhere")
    assert "/nowhere: the secret cannot be read" in rolecall("node", "a", "--listen", "127.0.0.1:0").err


def test_help_has_an_example(rolecall: Rolecall) -> None:
    done = rolecall("node", "--help")
    assert done.code == 0
    assert "Example:  rolecall node edge1 --listen" in done.out
