"""What can go wrong with a simulation itself, as opposed to what happens in it."""

from __future__ import annotations

from collections.abc import Sequence

from rolecall.core.errors import CallerError, RolecallError

__all__ = ("Diverged", "Endless", "NotSimulated", "Stuck")


class Stuck(RolecallError):
    """Raised when nothing can ever happen again and the run is not over; `waiting` says who waits for what."""

    def __init__(self, time_s: float, waiting: Sequence[str]) -> None:
        lines = "".join(f"\n  {line}" for line in waiting) or "\n  (no task is left)"
        super().__init__(f"At {time_s:.6g} s nothing can happen any more, and the run is not over. Waiting:{lines}")
        self.time_s, self.waiting = time_s, list(waiting)


class Endless(RolecallError):
    """Raised when so much happens at one instant that time would never move."""

    def __init__(self, time_s: float, steps: int, busiest: Sequence[str]) -> None:
        super().__init__(
            f"{steps:,} steps were taken at {time_s:.6g} s and time has not moved: something goes round in circles "
            f"without waiting. Busiest at the end: {', '.join(busiest) or 'callbacks of no task'}."
        )
        self.time_s = time_s


class NotSimulated(CallerError):
    """Raised for what has no place in virtual time: threads, subprocesses, sockets, signals."""

    def __init__(self, what: str, who: str, hint: str) -> None:
        super().__init__(f"{who} asks for {what}, which there is not in a simulation. {hint}.")


class Diverged(RolecallError):
    """Raised when the same seed has not given the same run twice."""

    def __init__(self, seed: int, first: str, second: str) -> None:
        super().__init__(
            f"seed {seed} gave two different runs (digests {first} and {second}): something in it depends on what is "
            "not simulated, such as the real time, the address of an object, or the order of a set."
        )
