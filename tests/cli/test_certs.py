from __future__ import annotations

import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rolecall.wire.certificates import check_own_certificate, read_certificate
from rolecall.wire.security import TlsFiles

Rolecall = Callable[..., Any]


@pytest.fixture
def folder(tmp_path: Path, rolecall: Rolecall) -> Path:
    """Return a directory with an authority."""
    assert rolecall("certs", "init", "--dir", str(tmp_path / "certs")).code == 0
    return tmp_path / "certs"


def test_certificates_are_what_nodes_ask_for(folder: Path, rolecall: Rolecall) -> None:
    done = rolecall("certs", "issue", "conductor", "edge[1-2]", "--dir", str(folder))
    assert done.code == 0
    for node in ("conductor", "edge1", "edge2"):
        check_own_certificate(TlsFiles.in_directory(folder, node), node)
        assert str(folder / f"{node}.pem") in done.out


def test_private_keys_are_for_their_owner_only(folder: Path, rolecall: Rolecall) -> None:
    rolecall("certs", "issue", "edge", "--dir", str(folder))
    assert {stat.S_IMODE(key.stat().st_mode) for key in folder.glob("*.key")} == {0o600}
    assert len(list(folder.glob("*.key"))) == 2


def test_nothing_is_overwritten(folder: Path, rolecall: Rolecall) -> None:
    assert rolecall("certs", "issue", "edge", "--dir", str(folder)).code == 0
    before = {path: path.read_bytes() for path in folder.iterdir()}
    for command, named in ((("init",), "ca.pem"), (("issue", "edge"), "edge.pem")):
        done = rolecall("certs", *command, "--dir", str(folder))
        assert done.code == 2
        assert named in done.err
        assert "it is there already" in done.err
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_several_are_issued_all_or_none(folder: Path, rolecall: Rolecall) -> None:
    rolecall("certs", "issue", "edge2", "--dir", str(folder))
    assert rolecall("certs", "issue", "edge[1-3]", "--dir", str(folder)).code == 2
    assert sorted(path.name for path in folder.glob("edge*.pem")) == ["edge2.pem"]


def test_without_an_authority_the_command_that_makes_one_is_named(tmp_path: Path, rolecall: Rolecall) -> None:
    done = rolecall("certs", "issue", "edge", "--dir", str(tmp_path))
    assert done.code == 2
    assert "rolecall certs init" in done.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a/b", "../evil", "ca", "", "edge[3-1]"])
def test_names_that_no_node_can_have_are_refused(folder: Path, rolecall: Rolecall, name: str) -> None:
    before = sorted(folder.parent.rglob("*"))
    done = rolecall("certs", "issue", name, "--dir", str(folder))
    assert done.code == 2
    assert "error: " in done.err
    assert sorted(folder.parent.rglob("*")) == before


def test_how_long_a_certificate_is_valid_may_be_chosen(folder: Path, rolecall: Rolecall) -> None:
    done = rolecall("certs", "issue", "edge", "--days", "2", "--dir", str(folder), "--format", "jsonl")
    facts = read_certificate(folder / "edge.pem")
    assert 2 <= (facts.valid_until - facts.valid_from).total_seconds() / 86_400 < 2.1
    (row,) = done.of("certificate")
    assert row["for"] == "edge"
    assert row["valid_until"] == f"{facts.valid_until:%Y-%m-%d %H:%M}"
    assert done.last["status"] == "ok"


@pytest.mark.parametrize("command", [("certs",), ("certs", "init"), ("certs", "issue")])
def test_help_has_an_example(rolecall: Rolecall, command: tuple[str, ...]) -> None:
    assert "Example:" in rolecall(*command, "--help").out
