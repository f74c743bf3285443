"""The audit log: what others had done to a node, and what they were refused."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.core.errors import ConfigError
from rolecall.core.records import Audited, Record
from rolecall.fleet.access import Access
from rolecall.fleet.audit import Audit
from rolecall.fleet.management import Management
from rolecall.fleet.standing_node import StandingNode, StandingNodeConfig
from rolecall.runtime.auditing import LIST_ITEMS, TEXT_CHARS

HERE = Path(__file__).parent
SECRET = "what all nodes of this test know"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---------------------------------------------------------------------------------------------- by itself


def test_each_event_is_one_line_that_only_its_owner_reads(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "audit.jsonl"
    for number in (1, 2):  # it is never begun anew
        audit = Audit(path, "n1")
        audit.write("assign", who=rc.RoleId("a/lead"), role="n1/worker", number=number, nothing=None, none=())
        audit.close()
    one, two = lines(path)
    assert one.pop("time").endswith("+00:00")
    assert one == {"node": "n1", "event": "assign", "who": "a/lead", "role": "n1/worker", "number": 1}
    assert two["number"] == 2
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_others_say_fits_on_a_line(tmp_path: Path) -> None:
    audit = Audit(tmp_path / "audit", "n1")
    audit.write("deny", who="a\nb\x1b[31m", why="x" * 100_000, targets=["y"] * 100_000, contacts={"z": "1\r2"})
    audit.close()
    (line,) = lines(tmp_path / "audit")
    assert (line["who"], line["contacts"]) == ("a?b?[31m", {"z": "1?2"})
    assert (len(line["why"]), len(line["targets"])) == (TEXT_CHARS, LIST_ITEMS)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"the audit log cannot be written \(Is a directory\)"):
        Audit(tmp_path, "n1")


# ---------------------------------------------------------------------------------------------- of a node


@asynccontextmanager
async def audited(
    tmp_path: Path, packages: tuple[str, ...] = ("managing_roles",), *managed: Callable[[Management], None]
) -> AsyncIterator[tuple[str, Path]]:
    """Start a node with an audit log in this process; yield where it listens, and the log."""
    secret, path = tmp_path / "secret", tmp_path / "audit.jsonl"
    secret.touch(0o600)
    secret.write_text(SECRET)
    heard, stop, at = anyio.Event(), anyio.Event(), list[str]()

    def announce(address: str | None) -> None:
        at.append(address or "")
        heard.set()

    def admin(management: Management) -> Any:
        for take in managed:
            take(management)
        return (), None

    config = StandingNodeConfig(
        name="w1", listen="127.0.0.1:0", access=Access(secret_file=secret), packages=packages, audit=path
    )
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(StandingNode(config, announce, admin).serve, stop)
        await heard.wait()
        try:
            yield at[0], path
        finally:
            stop.set()


def hiring(address: str) -> rc.App:
    return rc.App(
        name="hiring",
        nodes={"w1": rc.Node(address=address)},
        roles={"w1": {"lead": rc.RoleSpec("managing_roles:Hirer")}},
        relationships={"w1/lead": {"nodes": "w1/node"}, "w1/node": {"manager": "w1/lead"}},
        start="w1/lead.run",
        seed=1,
    )


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    monkeypatch.setenv("ROLECALL_SECRET_FILE", str(tmp_path / "secret"))


MAY_BLOCK = pytest.mark.may_block("the node is in this process and reads its secret, which is a small file")


@MAY_BLOCK
async def test_a_run_leaves_its_lines(tmp_path: Path) -> None:
    async with audited(tmp_path) as (address, path):
        await rc.run(hiring(address), engine="nodes")
    found = [(line["event"], line.get("who"), line.get("role")) for line in lines(path)]
    assert found[:7] == [
        ("begin", None, None),
        ("join", "conductor", None),
        ("deploy", "conductor/conductor", None),
        ("assign", "w1/lead", "w1/worker"),
        ("finish", "conductor/conductor", None),
        ("leave", "conductor", None),
        ("end", None, None),
    ]
    assert SECRET not in path.read_text()


@pytest.mark.parametrize("engine", ["local", "processes", "nodes"])
@MAY_BLOCK
async def test_a_run_has_a_record_of_what_was_done_to_nodes_that_keep_no_log(tmp_path: Path, engine: str) -> None:
    records: list[Record] = []
    found: list[Management] = []

    def managed(management: Management) -> None:
        found.append(management)
        management.audit("deny", who="somebody", why="no proof")

    async with audited(tmp_path) as (address, _):
        options: dict[str, Any] = {"observers": [records.append], "on_management": managed}
        await rc.run(hiring(address), engine=engine, **options)
    seen = [
        (record.what, record.node, record.facts.get("who"), record.facts.get("role", record.facts.get("why")))
        for record in records
        if isinstance(record, Audited)
    ]
    conducted = {("join", "conductor", "w1", None)}
    done = {("deploy", "w1", "conductor/conductor", None), ("finish", "w1", "conductor/conductor", None)}
    expected = {("deny", "conductor", "somebody", "no proof")}
    expected |= {("assign", "w1", "w1/lead", "w1/worker")} if engine != "nodes" else set()
    expected |= {"local": set(), "processes": conducted | done, "nodes": conducted}[engine]
    assert set(seen) == expected and len(seen) == len(expected)


@MAY_BLOCK
async def test_what_is_refused_is_there_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with audited(tmp_path, packages=()) as (address, path):
        with pytest.raises(ConfigError, match="does not import"):
            await rc.run(hiring(address), engine="nodes")
        other = tmp_path / "other"
        other.touch(0o600)
        other.write_text(SECRET[::-1])
        monkeypatch.setenv("ROLECALL_SECRET_FILE", str(other))
        with pytest.raises(rc.ApplicationFailed, match="different secrets"):
            await rc.run(hiring(address), engine="nodes")
    denied = [line for line in lines(path) if line["event"] == "deny"]
    assert [line.get("what") for line in denied] == ["an application", None]
    assert "does not import 'managing_roles:Hirer'" in denied[0]["why"]
    assert denied[1]["who"].startswith("127.0.0.1:") and "secret" in denied[1]["why"]
    assert SECRET not in path.read_text() and SECRET[::-1] not in path.read_text()


@MAY_BLOCK
async def test_a_node_is_managed_from_outside(tmp_path: Path) -> None:
    taken: list[Management] = []
    async with audited(tmp_path, ("managing_roles",), taken.append) as (_, path):
        management = taken[0]
        assert (management.names, management.application) == (["w1"], None)
        status = await management.node("w1").status()
        assert (status.name, status.application, [role.status for role in status.roles]) == ("w1", None, ["ready"])
        with pytest.raises(ConfigError, match=r"there is no such node\. The nodes are: w1"):
            management.node("w2")
        with pytest.raises(ConfigError, match="it is not started from here"):
            await management.join("w2")
        management.audit("deny", who="somebody", why="the test")
    assert ("deny", "somebody") in [(line["event"], line.get("who")) for line in lines(path)]
