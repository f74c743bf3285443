"""Nodes on machines of their own, as far as the network is concerned: over TLS, between network namespaces.

Where namespaces cannot be made (that takes root and `ip`, Debian's iproute2), addresses 127.0.0.2 and up stand for the
machines; the test is the same otherwise.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from rolecall.core.patterns import expand_range
from rolecall.wire.certificates import create_authority, issue

EXAMPLE = Path(__file__).parents[2] / "examples" / "fedavg" / "app.yaml"
NODES = ("server", "client[1-5]", "client[6-10]")
"""What runs on each machine."""


class Machine:
    """Somewhere a program runs, with an address that the others reach it at."""

    def __init__(self, address: str, prefix: tuple[str, ...] = ()) -> None:
        self.address, self._prefix = address, prefix

    def start(self, *arguments: str, log: Path) -> subprocess.Popen[str]:
        """Start a command of rolecall; it says events on stdout."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROLECALL_")}
        command = [*self._prefix, sys.executable, "-m", "rolecall", *arguments, "--format", "jsonl"]
        with log.open("w") as errors:
            return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=clean)


def ip(*arguments: str, within: str = "") -> None:
    command = ["ip", *(("-n", within) if within else ()), *arguments]
    subprocess.run(command, check=True, capture_output=True, text=True)


@contextmanager
def machines(count: int) -> Iterator[list[Machine]]:
    """Make that many machines, in namespaces if that is possible."""
    with ExitStack() as stack:
        try:
            yield stack.enter_context(namespaces(count))
            return
        except (OSError, subprocess.CalledProcessError):  # no `ip`, or no permission
            pass
        yield [Machine(f"127.0.0.{number}") for number in range(2, count + 2)]


@contextmanager
def namespaces(count: int) -> Iterator[list[Machine]]:
    """Join that many network namespaces by a bridge in the first one."""
    if shutil.which("ip") is None:
        raise FileNotFoundError("ip")
    names = [f"rolecall-{os.getpid()}-{number}" for number in range(count)]
    with ExitStack() as stack:
        for name in names:
            ip("netns", "add", name)
            stack.callback(ip, "netns", "delete", name)
            ip("link", "set", "lo", "up", within=name)
        hub = names[0]
        ip("link", "add", "hub", "type", "bridge", within=hub)
        ip("address", "add", "10.99.0.1/24", "dev", "hub", within=hub)
        ip("link", "set", "hub", "up", within=hub)
        for number, name in enumerate(names[1:], 2):
            ip("link", "add", f"port{number}", "type", "veth", "peer", "name", "uplink", "netns", name, within=hub)
            ip("link", "set", f"port{number}", "master", "hub", "up", within=hub)
            ip("address", "add", f"10.99.0.{number}/24", "dev", "uplink", within=name)
            ip("link", "set", "uplink", "up", within=name)
        yield [Machine(f"10.99.0.{number}", ("ip", "netns", "exec", name)) for number, name in enumerate(names, 1)]


def event(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    said: dict[str, Any] = json.loads(process.stdout.readline())
    return said


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


@pytest.mark.timeout(240)
def test_the_example_on_three_machines_over_tls_ends_with_the_digest_of_one_process(
    tmp_path: Path, example_digest: str
) -> None:
    certs = tmp_path / "certs"
    create_authority(certs)
    for name in ("conductor", *(node for range_ in NODES for node in expand_range(range_))):
        issue(certs, name)
    with machines(len(NODES) + 1) as (conductor, *others), ExitStack() as stack:
        at = f"{conductor.address}:{free_port()}"
        nodes = []
        for number, (name, machine) in enumerate(zip(NODES, others, strict=True)):
            arguments = ("--listen", f"{machine.address}:0", "--join", at, "--certs", str(certs))
            nodes.append(machine.start("node", name, *arguments, log=tmp_path / f"{number}.log"))
            stack.callback(end, nodes[-1])
        for name, machine, node in zip(NODES, others, nodes, strict=True):
            there = [event(node) for _ in expand_range(name)]
            assert sorted(one["node"] for one in there) == sorted(expand_range(name))
            assert all(one["address"].startswith(f"{machine.address}:") and one["tls"] for one in there)
        options = ("--engine", "nodes", "--listen", at, "--certs", str(certs), "--runs-dir", str(tmp_path))
        run = conductor.start("run", str(EXAMPLE), "--seed", "7", *options, log=tmp_path / "run.log")
        out, _ = run.communicate(timeout=200)
    last = json.loads(out.splitlines()[-1])
    assert last.get("status") == "ok", (out, (tmp_path / "run.log").read_text())
    assert last["digest"] == example_digest


def end(process: subprocess.Popen[str]) -> None:
    """End a node in good order."""
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0
