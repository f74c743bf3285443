"""What leaves a routine at its safe point."""

from __future__ import annotations

__all__ = ("Parked", "is_parked")


class Parked(BaseException):
    """Unwinds a resumable task or a main routine at its safe point; no `Exception`, so that nobody catches it."""


def is_parked(error: BaseException) -> bool:
    """Whether a routine was left at its safe point, from within task groups or not."""
    if isinstance(error, BaseExceptionGroup):
        return error.split(Parked)[1] is None
    return isinstance(error, Parked)
