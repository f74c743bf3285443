"""`--plant NAME` puts a fault into the runtime, for the tests that show that the others would find it."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--plant", metavar="NAME", help="Have this fault in the runtime.")


@pytest.fixture(autouse=True)
def _planted(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the fault there that was asked for."""
    name = request.config.getoption("--plant", None)
    if name is not None:
        from .planting import PLANTS

        PLANTS[name](monkeypatch)
