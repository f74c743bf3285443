"""What whoever runs a simulation again and again (the pytest plugin) needs of each run, and may decide for it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Final

import msgspec

from rolecall.sim.schedule import Schedule

__all__ = ("ATTEMPT", "Attempt", "note")


class Attempt(msgspec.Struct):
    """One run of a test: with `forced`, those faults take the place of all that the test asks for."""

    forced: Schedule | None = None
    digests: list[str] = []
    schedules: list[Schedule] = []


ATTEMPT: Final[ContextVar[Attempt | None]] = ContextVar("rolecall_attempt", default=None)


def note(digest: str) -> None:
    """Add to what must be equal whenever the same seed is run again."""
    attempt = ATTEMPT.get()
    if attempt is not None:
        attempt.digests.append(digest)
