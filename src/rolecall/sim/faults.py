"""What can go wrong in a simulated world, as values: scripted, drawn, written to a file, shrunk and replayed alike.

Those that have `for_s` end by themselves after so many seconds; without it they stay until something undoes them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, Protocol, TypeAlias, get_args

import msgspec

from rolecall.core.errors import ConfigError, nearest
from rolecall.sim.courier import CutKind

__all__ = (
    "Crash", "Cut", "DiskFull", "Fault", "Faulty", "Heal", "Isolate", "Partition", "Pause", "Restart", "Skew", "Slow",
    "StateKind", "check_nodes",
)  # fmt: skip

StateKind: TypeAlias = Literal["kept", "none"]
"""Whether the roles of a node that comes back go on from the state they had."""


_VALUES: Final[tuple[tuple[str, Callable[[Any], bool], str], ...]] = (
    ("for_s", lambda value: 0 <= value < math.inf, "seconds, from 0 on, or leave it out"),
    ("factor", lambda value: 0 < value < math.inf, "a number above 0: 2 is half as fast"),
    ("rate", lambda value: 0 < value < math.inf, "a number above 0: 2 is twice as fast"),
    ("offset_s", math.isfinite, "seconds"),
    ("free_bytes", lambda value: value >= 0, "a number of bytes, from 0 on"),
    ("how", lambda value: value in get_args(CutKind), " or ".join(map(repr, get_args(CutKind)))),
    ("state", lambda value: value in get_args(StateKind), " or ".join(map(repr, get_args(StateKind)))),
)
"""What a value of this name must be, in any fault that has one, and how to say so."""


class _Fault(
    msgspec.Struct, frozen=True, tag_field="kind", tag=str.lower, omit_defaults=True, forbid_unknown_fields=True
):
    """Base of the faults; one with values that cannot be is a `ConfigError`."""

    def __post_init__(self) -> None:
        for name, is_right, expected in _VALUES:
            value = getattr(self, name, None)
            if value is not None and not is_right(value):
                raise ConfigError(f"fault `{self}`", f"{name} is {value!r}", hint=f"Give {expected}")
        if isinstance(self, Cut) and self.a == self.b:
            raise ConfigError(f"fault `{self}`", "a node has no link to itself", hint="Name two nodes")

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes it names."""
        return tuple(str(getattr(self, name)) for name in ("node", "a", "b") if getattr(self, name, None) is not None)

    def __str__(self) -> str:
        values = [getattr(self, name) for name in self.__struct_fields__ if name != "for_s"]
        told = " ".join(str(value) for value in values if not isinstance(value, bool) and value is not None)
        for_s = getattr(self, "for_s", None)
        return f"{type(self).__name__.lower()} {told}".strip() + (f" for {for_s:g} s" if for_s is not None else "")


class Crash(_Fault, frozen=True):
    """A node ends without a word; with `for_s` it comes back, as by `Restart`."""

    node: str
    for_s: float | None = None
    state: StateKind = "none"
    how: CutKind = "silence"


class Restart(_Fault, frozen=True):
    """A node that has crashed comes back as a new incarnation, its roles with the state they had or without."""

    node: str
    state: StateKind = "none"


class Pause(_Fault, frozen=True):
    """A node stands still: it neither hears nor does anything."""

    node: str
    for_s: float | None = None


class Slow(_Fault, frozen=True):
    """What a node computes takes so many times longer."""

    node: str
    factor: float
    for_s: float | None = None


class Skew(_Fault, frozen=True):
    """The clock of a node jumps by `offset_s`, and runs at `rate` from then on."""

    node: str
    offset_s: float = 0.0
    rate: float = 1.0


class Cut(_Fault, frozen=True):
    """Nothing gets from `a` to `b`, nor back if `both`; connections break, or there is silence."""

    a: str
    b: str
    for_s: float | None = None
    both: bool = True
    how: CutKind = "reset"

    def __str__(self) -> str:
        arrow = "-" if self.both else ">"
        return f"cut {self.a} {arrow} {self.b} ({self.how})" + (f" for {self.for_s:g} s" if self.for_s else "")


class Isolate(_Fault, frozen=True):
    """Nothing gets to or from a node."""

    node: str
    for_s: float | None = None
    how: CutKind = "reset"


class Partition(_Fault, frozen=True):
    """Nothing gets from one group of nodes to another; nodes in none of them are one more."""

    groups: tuple[tuple[str, ...], ...]
    for_s: float | None = None
    how: CutKind = "reset"

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes it names."""
        return tuple(node for group in self.groups for node in group)

    def __str__(self) -> str:
        groups = " | ".join(" ".join(group) for group in self.groups)
        return f"partition {groups} ({self.how})" + (f" for {self.for_s:g} s" if self.for_s else "")


class Heal(_Fault, frozen=True):
    """Undo the cuts between two nodes, those of one, or everything that is cut."""

    a: str | None = None
    b: str | None = None


class DiskFull(_Fault, frozen=True, tag="disk_full"):
    """What a node writes fails once it has written `free_bytes` more."""

    node: str
    for_s: float | None = None
    free_bytes: int = 0


Fault: TypeAlias = Crash | Restart | Pause | Slow | Skew | Cut | Isolate | Partition | Heal | DiskFull


class Faulty(Protocol):
    """A world in which things can go wrong."""

    def crash(self, node: str, *, how: CutKind) -> None:
        """End a node without a word."""

    def restart(self, node: str, *, state: StateKind) -> None:
        """Have a node that has crashed come back."""

    def pause(self, node: str) -> None:
        """Have a node stand still."""

    def resume(self, node: str) -> None:
        """Have it go on."""

    def slow(self, node: str, factor: float) -> None:
        """Have what it computes take so many times longer than it should; 1 is as it should be."""

    def skew(self, node: str, offset_s: float, rate: float) -> None:
        """Set its clock."""

    def fill_disk(self, node: str, free_bytes: int | None) -> None:
        """Leave it so many bytes to write; None for no limit."""

    def cut(self, a: str, b: str, *, both: bool, how: CutKind) -> int:
        """Let nothing through; return a token for `mend`, as `isolate` and `partition` do."""

    def isolate(self, node: str, *, how: CutKind) -> int:
        """Let nothing through to or from a node."""

    def partition(self, groups: Iterable[Iterable[str]], *, how: CutKind) -> int:
        """Let nothing through between groups."""

    def mend(self, token: int) -> None:
        """Undo one of these."""

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Undo cuts."""


def check_nodes(fault: Fault, nodes: Iterable[str]) -> None:
    """Raise `ConfigError` for a fault that names a node which is not there."""
    known = list(nodes)
    for node in fault.nodes:
        if node not in known:
            raise ConfigError(f"fault `{fault}`", f"there is no node {node!r}.{nearest(node, known)}")
