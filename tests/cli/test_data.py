from __future__ import annotations

import os
from pathlib import Path

import pytest

from .conftest import Rolecall


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take back what a command sets."""
    monkeypatch.setattr(os, "environ", os.environ.copy())


def test_the_list(rolecall: Rolecall) -> None:
    done = rolecall("data", "list")
    assert done.code == 0
    heading, *rows = done.out.splitlines()
    assert heading.split() == [
        "name",
        "what",
        "it",
        "is",
        "shape",
        "train",
        "test",
        "found",
        "where,",
        "or",
        "how",
        "to",
        "get",
        "it",
    ]
    assert [row.split()[0] for row in rows] == ["cifar-10", "digits", "fashion-mnist"]


def test_the_list_for_programs(rolecall: Rolecall, tmp_path: Path) -> None:
    done = rolecall("data", "list", "--format", "jsonl", "--data-dir", tmp_path)
    rows = {event["name"]: event for event in done.events[:-1]}
    assert done.last["status"] == "ok"
    assert rows["fashion-mnist"]["train"] == 60_000
    assert rows["cifar-10"]["found"] is False
    assert "cifar-10-binary.tar.gz" in rows["cifar-10"]["where"]


def test_without_a_command_it_explains_itself(rolecall: Rolecall) -> None:
    done = rolecall("data")
    assert done.code == 0
    assert "list" in done.out


def test_a_directory_that_is_not_there(rolecall: Rolecall) -> None:
    done = rolecall("data", "list", "--data-dir", "/no/such/place", "--format", "jsonl")
    assert done.code == done.last["exit_code"] == 3
    assert done.last["error"] == "/no/such/place: there is no such directory. Check what --data-dir names."
