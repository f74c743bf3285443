from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

import rolecall as rc
from rolecall.core.errors import ApplicationFailed, ConfigError
from rolecall.core.records import Metric
from rolecall.fleet.run import History, run
from rolecall.wire.certificates import create_authority, issue
from rolecall.wire.exchange import Exchange, ExchangeLimits
from rolecall.wire.peers import Peer, Unreachable, new_incarnation
from rolecall.wire.security import TlsFiles

HERE = Path(__file__).parent
NAMES = ("n1", "n2", "n3")
LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
TOLD: set[int] = set()
"""Processes that a test has told to end, or has killed."""
SECRET = b"what all nodes of this test know"


class Started:
    """A process that runs `rolecall node`."""

    def __init__(self, *arguments: str, log: Path) -> None:
        command = [sys.executable, "-m", "rolecall", "node", *arguments, "--format", "jsonl"]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ROLECALL_")}
        self._log = log.open("w")
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self._log, text=True, env={**clean, "PYTHONPATH": str(HERE)}
        )
        assert self.process.stdout is not None
        self.out = self.process.stdout

    def first(self) -> dict[str, Any]:
        """Return what it says first: that it listens, or why it does not."""
        said: dict[str, Any] = json.loads(self.out.readline())
        return said

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """End it, and return its exit code."""
        self.process.send_signal(how)
        code = self.process.wait()
        self.out.close()
        self._log.close()
        return code


@contextmanager
def started(log: Path, *nodes: tuple[str, ...]) -> Iterator[dict[str, str]]:
    """Start nodes with these arguments side by side; yield their addresses, and show that SIGTERM ends them."""
    with ExitStack() as stack:
        running = {arguments[0]: Started(*arguments, log=log / f"{arguments[0]}.log") for arguments in nodes}
        for node in running.values():
            stack.callback(node.end, signal.SIGKILL)
        yield {name: node.first()["address"] for name, node in running.items()}
        for name, node in running.items():
            code = node.process.wait() if node.process.pid in TOLD else node.end()
            assert code in (0, -signal.SIGKILL), (log / f"{name}.log").read_text()


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    create_authority(folder, now=LONG_AGO)
    for name in ("conductor", "lone", *NAMES):
        issue(folder, name)
    return folder


@pytest.fixture(scope="module")
def nodes(certs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Return the addresses of three nodes with certificates, which serve all tests of this module."""
    common = ("--certs", str(certs), "--allow", "standing_roles")
    log = tmp_path_factory.mktemp("nodes")
    with started(log, *((name, "--listen", f"127.0.0.{i}:0", *common) for i, name in enumerate(NAMES, 1))) as addresses:
        yield addresses


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Find the roles, and forget what an earlier test has said about access."""
    monkeypatch.syspath_prepend(HERE)
    for name in ("ROLECALL_CERTS", "ROLECALL_SECRET_FILE", "ROLECALL_LISTEN"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def conduct(certs: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run an application on nodes, with the certificates of a directory."""

    async def conducted(app: rc.App, certs: Path = certs, **options: Any) -> History:
        monkeypatch.setenv("ROLECALL_CERTS", str(certs))
        return await run(app, engine="nodes", **options)

    return conducted


def averaging(addresses: dict[str, str | None], worker: str = "standing_roles:Worker", **options: Any) -> rc.App:
    """Return an application in which the first node averages what the others make."""
    first, *others = addresses
    return rc.App(
        name="averaging",
        seed=5,
        nodes={name: rc.Node(address=address) for name, address in addresses.items()},
        roles={
            first: {"server": rc.RoleSpec("standing_roles:Server")},
            **{name: {"worker": rc.RoleSpec(worker, options=options)} for name in others},
        },
        relationships={first: {"workers": "*/worker"}},
        start=[rc.Call(f"{first}/server.run", {"rounds": 4})],
    )


def waiting(address: str) -> rc.App:
    """Return an application that logs the process of its node, and goes on until it is stopped."""
    return rc.App(
        name="waiting",
        nodes={"n1": rc.Node(address=address)},
        roles={"n1": {"waiter": rc.RoleSpec("standing_roles:Waiter")}},
        until="stopped",
    )


async def test_nodes_that_somebody_started_compute_what_one_process_does(nodes: Any, conduct: Any) -> None:
    app = averaging(nodes)
    here = await run(app)
    seen: list[Any] = []
    for _ in range(2):  # they live on, and know nothing of the run before
        there = await conduct(app, observers=(seen.append,))
        assert there.digest == here.digest
        assert there.returned == here.returned == {"n1/server.run": 4}
        assert there.curve("norm") == here.curve("norm")
        assert len([record for record in seen if isinstance(record, Metric)]) == 4
        seen.clear()


async def test_a_role_that_fails_ends_the_run_and_not_the_nodes(nodes: Any, conduct: Any) -> None:
    with pytest.raises(ApplicationFailed, match="step 2 went wrong"):
        await conduct(averaging(nodes, fails_at=2))
    assert (await conduct(averaging(nodes))).status == "ok"


async def test_messages_may_be_checked(nodes: Any, conduct: Any) -> None:
    assert (await conduct(averaging(nodes), checked=True)).digest == (await run(averaging(nodes))).digest


# ------------------------------------------------------------------------------------------ what is imported


async def test_nodes_import_what_their_operator_allowed_and_nothing_else(nodes: Any, conduct: Any) -> None:
    app = averaging(nodes, dim={"$import": "os:getpid"})
    with pytest.raises(ConfigError, match=r"node 'n[23]' does not import 'os:getpid', only .*standing_roles"):
        await conduct(app)
    assert (await conduct(averaging(nodes))).status == "ok"


async def test_what_an_allowed_module_has_imported_itself_is_not_allowed(nodes: Any, conduct: Any) -> None:
    app = averaging(nodes, dim={"$import": "standing_roles:os.getpid"})
    with pytest.raises(ConfigError, match=r"'standing_roles:os.getpid' was made in posix"):
        await conduct(app)


# ------------------------------------------------------------------------------------------ who may conduct


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """Return a directory with the certificate of a conductor from another authority."""
    create_authority(tmp_path)
    issue(tmp_path, "conductor")
    return tmp_path


@pytest.fixture
def expired(tmp_path: Path, certs: Path) -> Path:
    """Return a directory with the certificate of a conductor that was valid once."""
    for name in ("ca.pem", "ca.key"):
        shutil.copy(certs / name, tmp_path)
    issue(tmp_path, "conductor", now=LONG_AGO)
    return tmp_path


@pytest.fixture
def stolen(tmp_path: Path, certs: Path) -> Path:
    """Return a directory with the certificate of a node in the place of the conductor's."""
    shutil.copy(certs / "ca.pem", tmp_path)
    shutil.copy(certs / "n1.pem", tmp_path / "conductor.pem")
    shutil.copy(certs / "n1.key", tmp_path / "conductor.key")
    return tmp_path


async def test_a_conductor_of_another_authority_is_refused(nodes: Any, conduct: Any, foreign: Path) -> None:
    with pytest.raises(ApplicationFailed, match=r"node n\d failed in start: LinkRefused: .*certificate"):
        await conduct(averaging(nodes), foreign)


async def test_an_expired_certificate_is_refused(nodes: Any, conduct: Any, expired: Path) -> None:
    with pytest.raises(ConfigError, match=r"conductor.pem: it expired on 2021"):
        await conduct(averaging(nodes), expired)


async def test_the_certificate_of_another_node_is_refused(nodes: Any, conduct: Any, stolen: Path) -> None:
    with pytest.raises(ConfigError, match="it names the node 'n1', and this node is 'conductor'"):
        await conduct(averaging(nodes), stolen)


async def test_a_node_that_answers_by_another_name_is_refused(nodes: Any, conduct: Any) -> None:
    swapped = {**nodes, "n2": nodes["n3"], "n3": nodes["n2"]}
    with pytest.raises(ApplicationFailed, match=r"LinkRefused: .*node 'n[23]' answers there, and not 'n[23]'"):
        await conduct(averaging(swapped))


async def test_another_conductor_waits_its_turn(nodes: Any, conduct: Any, certs: Path) -> None:
    stop, begun = anyio.Event(), anyio.Event()

    def record(record: Any) -> None:
        if isinstance(record, Metric):
            begun.set()

    ended: list[History] = []

    async def first() -> None:
        ended.append(await conduct(waiting(nodes["n1"]), observers=(record,), stop=stop))

    other = Exchange(
        Peer("conductor", new_incarnation()),
        tls=TlsFiles.in_directory(certs, "conductor"),
        on_link=lambda link: None,
        on_lost=lambda peer, why: None,
        limits=ExchangeLimits(dial_attempts=1),
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await begun.wait()
        async with other:
            with pytest.raises(Unreachable, match="linked with another life of node 'conductor'"):
                await other.dial(nodes["n1"], "n1")
        stop.set()
    assert ended[0].status == "stopped"


# ------------------------------------------------------------------------------------------ addresses


@pytest.fixture
def joining(certs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str | None]]:
    """Return a node that does not listen, and says so."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        at = f"127.0.0.1:{found.getsockname()[1]}"
    monkeypatch.setenv("ROLECALL_LISTEN", at)
    with started(tmp_path, ("lone", "--join", at, "--certs", str(certs), "--allow", "standing_roles")) as addresses:
        yield addresses


async def test_a_node_that_does_not_listen_joins(nodes: Any, joining: Any, conduct: Any) -> None:
    assert joining == {"lone": None}
    # The server is on the node that joins: it dials the other, which does not reach it.
    app = averaging({"lone": None, "n1": nodes["n1"]})
    assert (await conduct(app)).digest == (await run(app)).digest


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        (None, r"nodes.n2: it has no address, which the engine `nodes` needs"),
        ("here", r"nodes.n2.address: 'here': this is no address"),
    ],
)
async def test_addresses_that_lead_nowhere(conduct: Any, address: str | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        await conduct(averaging({"n1": "127.0.0.1:1", "n2": address}))


async def test_the_name_of_the_conductor_is_taken(conduct: Any) -> None:
    with pytest.raises(ConfigError, match="this is the name of the node that conducts"):
        await conduct(averaging({"n1": "127.0.0.1:1", "conductor": "127.0.0.1:2"}))


# ------------------------------------------------------------------------------------------ without certificates


@pytest.fixture
def secret_file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    path.touch(0o600)
    path.write_bytes(SECRET)
    return path


@pytest.fixture
def plain(secret_file: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the addresses of two nodes without certificates."""
    arguments = ("--listen", "127.0.0.1:0", "--secret-file", str(secret_file), "--allow", "standing_roles")
    with started(tmp_path, ("n1", *arguments), ("n2", *arguments)) as addresses:
        yield addresses


@pytest.fixture
def other_secret_file(secret_file: Path) -> Path:
    path = secret_file.with_name("other")
    shutil.copy(secret_file, path)
    path.write_bytes(SECRET[::-1])
    return path


@pytest.mark.may_block("the test looks at the ports of processes in between")
async def test_on_one_machine_a_secret_does(
    plain: Any, secret_file: Path, other_secret_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nobody_listens_off_loopback()
    app = averaging(plain)
    monkeypatch.setenv("ROLECALL_SECRET_FILE", str(secret_file))
    assert (await run(app, engine="nodes")).digest == (await run(app)).digest
    nobody_listens_off_loopback()
    monkeypatch.setenv("ROLECALL_SECRET_FILE", str(other_secret_file))
    with pytest.raises(ApplicationFailed, match=r"LinkRefused: .*different secrets"):
        await run(app, engine="nodes")
    monkeypatch.delenv("ROLECALL_SECRET_FILE")
    with pytest.raises(ApplicationFailed, match=r"RefusedByPeer: .*'conductor' has no secret, and node 'n\d' has one"):
        await run(app, engine="nodes")


def nobody_listens_off_loopback() -> None:
    """Look at every port that a process of this test listens on."""
    ports = []
    for process in psutil.Process().children(recursive=True):
        for connection in process.net_connections("inet"):
            if connection.status == psutil.CONN_LISTEN:
                ports.append(connection.laddr.port)
                assert connection.laddr.ip.startswith("127.") or connection.laddr.ip == "::1"
    assert len(ports) >= 2


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_a_node_that_is_ended_ends_the_run(
    plain: Any, secret_file: Path, monkeypatch: pytest.MonkeyPatch, how: signal.Signals
) -> None:
    monkeypatch.setenv("ROLECALL_SECRET_FILE", str(secret_file))

    def record(record: Any) -> None:
        if isinstance(record, Metric):
            TOLD.add(pid := int(record.values["begun"]))
            os.kill(pid, how)

    with pytest.raises(ApplicationFailed, match=r"node n1 failed in the run: NodeLost"):
        await run(waiting(plain["n1"]), engine="nodes", observers=(record,))
