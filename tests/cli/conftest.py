"""The command line called as a shell would call it, in this process."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from rolecall.cli import main


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        """Its output as JSON lines."""
        return [json.loads(line) for line in self.out.splitlines()]

    def of(self, kind: str) -> list[dict[str, Any]]:
        """Those events that are of one kind."""
        return [event for event in self.events if event["event"] == kind]

    @property
    def last(self) -> dict[str, Any]:
        """Its terminal event, after which nothing came and before which there was no other."""
        *before, last = self.events
        assert last["terminal"] is True
        assert not any("terminal" in event for event in before)
        return last


Rolecall = Callable[..., Done]


@pytest.fixture
def rolecall(capsys: pytest.CaptureFixture[str]) -> Rolecall:
    """Run `rolecall` with these arguments."""

    def call(*arguments: str) -> Done:
        code = main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return call
