"""What must hold while a simulation runs, and what must come true before it ends."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeAlias

import anyio

from rolecall.core.errors import RolecallError
from rolecall.sim.loop import VirtualLoop

__all__ = ("Check", "Checks", "Promise", "Violated")

Check: TypeAlias = Callable[[], object]
"""Returns something false, or raises `AssertionError`, where what it checks does not hold; None counts as true."""


class Violated(RolecallError):
    """Raised when what must hold does not, at a time of the world."""

    def __init__(self, time_s: float, what: str, why: str = "") -> None:
        super().__init__(f"at {time_s:.6g} s: {what}{': ' if why else ''}{why}")
        self.time_s, self.what = time_s, what


class Promise:
    """Something that must come true; `await promise.kept.wait()` waits for it."""

    def __init__(self, check: Check, name: str) -> None:
        self.check, self.name, self.kept = check, name, anyio.Event()


class Checks:
    """Looks after every event and at the end of every instant; `on_violation` gets what is wrong first."""

    def __init__(self, loop: VirtualLoop, on_violation: Callable[[Exception], None]) -> None:
        self._loop, self._on_violation = loop, on_violation
        self._always: list[tuple[Check, str]] = []
        self._promises: list[Promise] = []
        self._looking = False

    def always(self, check: Check, name: str = "") -> None:
        """Have something hold from now on."""
        self._always.append((check, name or _name(check)))
        self.look()

    def eventually(self, check: Check, within_s: float, name: str = "") -> Promise:
        """Have something come true within a time."""
        promise = Promise(check, name or _name(check))
        self._promises.append(promise)
        self._loop.at(self._loop.now_s() + within_s, None, self._due, promise, within_s)
        self.look()
        return promise

    @property
    def open(self) -> list[Promise]:
        """What has not come true yet."""
        return [promise for promise in self._promises if not promise.kept.is_set()]

    def look(self) -> None:
        """Check everything now."""
        if self._looking:  # a check itself has made something happen
            return
        self._looking = True
        try:
            for check, name in self._always:
                self._require(check, name)
            for promise in self.open:
                if self._holds(promise.check):
                    promise.kept.set()
        except Exception as error:
            self._on_violation(error)
        finally:
            self._looking = False

    def _require(self, check: Check, name: str) -> None:
        try:
            found = check()
        except AssertionError as error:
            raise Violated(self._loop.now_s(), f"{name} does not hold", str(error)) from error
        if found is not None and not found:
            raise Violated(self._loop.now_s(), f"{name} does not hold")

    def _holds(self, check: Check) -> bool:
        try:
            found = check()
        except AssertionError:
            return False
        return found is None or bool(found)

    def _due(self, promise: Promise, within_s: float) -> None:
        if not promise.kept.is_set() and not self._holds(promise.check):
            self._on_violation(
                Violated(self._loop.now_s(), f"{promise.name} has not come true", f"it had {within_s:g} s")
            )


def _name(check: Check) -> str:
    """Return how to speak of a check: its name, or for a lambda its line."""
    name = getattr(check, "__name__", type(check).__name__)
    if name != "<lambda>":
        return name.replace("_", " ")
    try:
        return inspect.getsource(check).strip()
    except OSError:
        return "a check"
