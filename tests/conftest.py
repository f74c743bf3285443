"""What every test gets: reproducible hypothesis runs, and none of the machine's own settings."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx
from hypothesis import HealthCheck, settings

# A loaded machine must not fail tests by its slowness, and a failure must come back when they run again.
settings.register_profile(
    "rolecall", deadline=None, derandomize=True, print_blob=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("rolecall")

MAY_BLOCK = (
    ("<frozen importlib._bootstrap>", "_find_and_load"),  # a first import reads files; it happens once
    ("rolecall/runtime/watchdog.py", "__exit__"),  # joins a thread that has been told to end
)


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the developer's `ROLECALL_*` settings and runs out, and terminal output at one width without colour."""
    for name in [name for name in os.environ if name.startswith("ROLECALL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("ROLECALL_STATE", str(tmp_path_factory.getbasetemp() / "state"))
    for name in ("FORCE_COLOR", "CLICOLOR_FORCE", "TTY_COMPATIBLE", "GITHUB_ACTIONS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TERM", "dumb")


@pytest.fixture(autouse=True)
def _loop_never_blocked(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a coroutine test in which `rolecall` blocks the event loop, unless it is marked `may_block`."""
    if not inspect.iscoroutinefunction(request.function) or request.node.get_closest_marker("may_block"):
        yield
        return
    with blockbuster_ctx("rolecall") as blockbuster:
        for function in blockbuster.functions.values():
            for file, name in MAY_BLOCK:
                function.can_block_in(file, name)
        yield
