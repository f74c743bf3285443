"""When what goes wrong: a list of faults with their times, from a script, a file or a draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Self

import msgspec

from rolecall.core.errors import ConfigError
from rolecall.sim.courier import CutKind
from rolecall.sim.faults import (
    Crash,
    Cut,
    DiskFull,
    Fault,
    Heal,
    Isolate,
    Partition,
    Pause,
    Restart,
    Skew,
    Slow,
    StateKind,
    check_nodes,
)  # fmt: skip
from rolecall.sim.injecting import Injector

__all__ = ("At", "Schedule", "Timed")


class Timed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A fault that begins `at_s` seconds after the world did."""

    at_s: float
    fault: Fault

    def __str__(self) -> str:
        return f"{self.at_s:g} s: {self.fault}"


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Faults in the order in which they begin."""

    faults: tuple[Timed, ...] = ()

    def __post_init__(self) -> None:
        for timed in self.faults:
            if not timed.at_s >= 0:
                raise ConfigError(f"fault `{timed}`", "it begins before the world", hint="Give a time from 0 on")
        in_order = sorted(self.faults, key=lambda timed: timed.at_s)
        msgspec.structs.force_setattr(self, "faults", tuple(in_order))

    def __str__(self) -> str:
        return "\n".join(map(str, self.faults)) or "nothing goes wrong"

    def with_(self, *faults: Timed) -> Schedule:
        """Return a schedule that has these faults too."""
        return Schedule((*self.faults, *faults))

    def check(self, nodes: Iterable[str]) -> None:
        """Raise `ConfigError` for a fault that names a node which is not there."""
        known = list(nodes)
        for timed in self.faults:
            check_nodes(timed.fault, known)

    def start(self, injector: Injector) -> None:
        """Have everything happen at its time."""
        for timed in self.faults:
            injector.at(timed.at_s, timed.fault)

    def to_json(self) -> str:
        """Return it as JSON, for `from_json`."""
        return msgspec.json.encode(self.faults).decode()

    @classmethod
    def from_json(cls, text: str | bytes, where: str = "schedule") -> Self:
        """Return what `to_json` wrote; raise `ConfigError` for anything else."""
        try:
            return cls(msgspec.json.decode(text, type=tuple[Timed, ...]))
        except msgspec.DecodeError as error:
            raise ConfigError(where, f"this is no schedule of faults: {error}") from None

    def save(self, path: Path) -> None:
        """Write it to a file, for `load`."""
        path.write_text(self.to_json() + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read it from a file; raise `ConfigError` where that has none."""
        try:
            return cls.from_json(path.read_bytes(), str(path))
        except OSError as error:
            raise ConfigError(str(path), f"it cannot be read: {error.strerror}") from None


class At:
    """What goes wrong at a time: `sim.at(3.0).cut("a", "b", for_s=1.0)`; see `sim.faults` for what each does."""

    def __init__(self, at_s: float, add: Callable[[Timed], None]) -> None:
        self._at_s, self._add = at_s, add

    def fault(self, fault: Fault) -> At:
        """Have a fault begin; return this again, for another at the same time."""
        self._add(Timed(self._at_s, fault))
        return self

    def crash(
        self, node: str, *, for_s: float | None = None, state: StateKind = "none", how: CutKind = "silence"
    ) -> At:
        """End a node without a word."""
        return self.fault(Crash(node, for_s, state, how))

    def restart(self, node: str, *, state: StateKind = "none") -> At:
        """Have a node that has crashed come back."""
        return self.fault(Restart(node, state))

    def pause(self, node: str, *, for_s: float | None = None) -> At:
        """Have a node stand still."""
        return self.fault(Pause(node, for_s))

    def slow(self, node: str, factor: float, *, for_s: float | None = None) -> At:
        """Have what a node computes take longer."""
        return self.fault(Slow(node, factor, for_s))

    def skew(self, node: str, offset_s: float = 0.0, *, rate: float = 1.0) -> At:
        """Set the clock of a node forward, and have it run at another rate."""
        return self.fault(Skew(node, offset_s, rate))

    def cut(self, a: str, b: str, *, for_s: float | None = None, both: bool = True, how: CutKind = "reset") -> At:
        """Let nothing through from `a` to `b`, nor back if `both`."""
        return self.fault(Cut(a, b, for_s, both, how))

    def isolate(self, node: str, *, for_s: float | None = None, how: CutKind = "reset") -> At:
        """Let nothing through to or from a node."""
        return self.fault(Isolate(node, for_s, how))

    def partition(self, *groups: Iterable[str], for_s: float | None = None, how: CutKind = "reset") -> At:
        """Let nothing through between groups of nodes."""
        return self.fault(Partition(tuple(tuple(group) for group in groups), for_s, how))

    def heal(self, a: str | None = None, b: str | None = None) -> At:
        """Undo cuts: between two nodes, of one, or all."""
        return self.fault(Heal(a, b))

    def disk_full(self, node: str, *, for_s: float | None = None, free_bytes: int = 0) -> At:
        """Have what a node writes fail."""
        return self.fault(DiskFull(node, for_s, free_bytes))
