"""What is known of a run when it begins and when it has ended, in the form that all outputs share."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

__all__ = ("Failure", "Plan", "Status", "Summary")

Status = Literal["ok", "stopped", "failed", "aborted"]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A run about to begin. `rounds` is how many it will take, None when the application does not say."""

    name: str
    architecture: str
    engine: str
    seed: int | None
    nodes: int
    roles: int
    rounds: int | None = None
    run_dir: str | None = None


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has ended with a result. `digest` is a hash of the final parameters, None without any.

    `returned` is what each start call returned, by its name (`server/coordinator.run`), as JSON knows it. A run that
    was judged has `consensus` and `solo` (see `rolecall.observe.outcome`), and its `accuracy` is the judged one.
    """

    status: Status
    architecture: str
    rounds: int | None
    accuracy: float | None
    wall_s: float
    digest: str | None
    loss: float | None = None
    consensus: float | None = None
    solo: float | None = None
    name: str = ""
    engine: str = "local"
    seed: int | None = None
    run_dir: str | None = None
    returned: dict[str, Any] = {}


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A run that has ended with an error; `exit_code` is what the process will end with."""

    status: Status
    error: str
    error_type: str
    exit_code: int
    architecture: str | None = None
    run_dir: str | None = None
    traceback: str = ""
