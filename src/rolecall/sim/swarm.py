"""Draws what goes wrong from a seed, within a budget.

Each seed leaves out about half of the kinds of fault that a profile has ("swarm testing": Groce, Zhang, Eide, Chen and
Regehr, ISSTA 2012): a run with all of them at once is always the same mixture, in which some hide others.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

import msgspec

from rolecall.core.errors import ConfigError, nearest
from rolecall.sim.courier import CutKind
from rolecall.sim.faults import Crash, Cut, DiskFull, Fault, Isolate, Partition, Pause, Skew, Slow
from rolecall.sim.schedule import Schedule, Timed

__all__ = ("SWARMS", "Churn", "Swarm", "churn", "draw", "swarm_named")

SHORTEST_S: Final = 0.01


class Swarm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What may go wrong.

    `kinds` are the faults with their weights; `faults` is how many there are at most; none lasts longer than
    `longest_s`, and with `down_share`, no more than that share of the nodes have crashed, are cut off or stand still
    at the same time (but one always may). In the last `quiet_share` of the time nothing goes wrong any more, and what
    ends has ended.
    """

    kinds: dict[str, float]
    faults: int = 12
    longest_s: float = 1.0
    down_share: float = 0.34
    quiet_share: float = 0.3
    kept_state: float = 0.5


_HARMLESS: Final = {"cut": 3.0, "one_way": 2.0, "silence": 2.0, "pause": 1.0, "slow": 1.0, "skew": 0.5}

SWARMS: Final[Mapping[str, Swarm]] = MappingProxyType(
    {
        "none": Swarm(kinds={}, faults=0),
        "gentle": Swarm(kinds=_HARMLESS, faults=20, longest_s=0.8),
        "network": Swarm(kinds={"cut": 3, "one_way": 2, "silence": 2, "isolate": 2, "partition": 2}, longest_s=6.0),
        "crashes": Swarm(kinds={"crash": 3, "reset": 2, "pause": 1}, faults=8, longest_s=6.0),
        "slow": Swarm(kinds={"slow": 3, "pause": 2, "skew": 1}, longest_s=5.0),
        "everything": Swarm(
            kinds={**_HARMLESS, "isolate": 1, "partition": 1, "crash": 2, "reset": 1, "disk_full": 0.5},
            faults=16,
            longest_s=5.0,
        ),
    }
)
"""Profiles by name. Through `gentle`, a contract must hold as if nothing had happened: no link is given up."""


def swarm_named(name: str) -> Swarm:
    """Return a profile; raise `ConfigError` if there is none of that name."""
    if name not in SWARMS:
        raise ConfigError(
            f"faults {name!r}",
            f"there is no such profile.{nearest(name, SWARMS)}",
            hint=f"Choose of {', '.join(SWARMS)}",
        )
    return SWARMS[name]


def draw(
    seed: int,
    nodes: Sequence[str],
    duration_s: float,
    swarm: Swarm | str = "everything",
    *,
    spare: Iterable[str] = (),
) -> Schedule:
    """Return what goes wrong in `duration_s` seconds; nodes to `spare` never crash, stand still or are alone.

    Raises:
        ConfigError: there is no such profile, kind of fault, or node to spare.
    """
    profile = swarm_named(swarm) if isinstance(swarm, str) else swarm
    spared = list(spare)
    _require("spare", spared, "node", nodes)
    _require("Swarm.kinds", profile.kinds, "kind of fault", _MAKERS)
    if not duration_s > 0:
        raise ConfigError("faults", f"they are to be drawn for {duration_s} s", hint="Give seconds above 0")
    return Schedule(tuple(_Draw(seed, nodes, duration_s, profile, set(spared)).faults()))


def _require(where: str, names: Iterable[str], what: str, known: Collection[str]) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(
                where, f"there is no {what} {name!r}.{nearest(name, known)}", hint=f"Choose of {', '.join(known)}"
            )


class _Draw:
    def __init__(self, seed: int, nodes: Sequence[str], duration_s: float, swarm: Swarm, spare: set[str]) -> None:
        self._rng = random.Random(f"faults {seed}")
        self._nodes, self._swarm = list(nodes), swarm
        self._victims = [node for node in nodes if node not in spare]
        self._active_s = duration_s * (1 - swarm.quiet_share)
        self._away: list[tuple[float, float]] = []  # when a node is of no use to others

    def faults(self) -> list[Timed]:
        kinds = self._kinds()
        if not kinds or not self._nodes:
            return []
        count = self._rng.randint(1, self._swarm.faults)
        times_s = sorted(self._rng.uniform(0, self._active_s) for _ in range(count))
        made = [(at_s, self._fault(kinds, round(at_s, 4))) for at_s in times_s]
        return [Timed(round(at_s, 4), fault) for at_s, fault in made if fault is not None]

    def _kinds(self) -> dict[str, float]:
        """Return about half of the kinds, at least one; of those that there are nodes for."""
        usable = {kind: w for kind, w in self._swarm.kinds.items() if len(self._nodes) > 1 or kind not in _BETWEEN}
        kept = {kind: weight for kind, weight in usable.items() if self._rng.random() < 0.5}
        if not kept and usable:
            kind = self._rng.choice(list(usable))
            kept = {kind: usable[kind]}
        return kept

    def _fault(self, kinds: dict[str, float], at_s: float) -> Fault | None:
        kind = self._rng.choices(list(kinds), list(kinds.values()))[0]
        longest_s = max(min(self._swarm.longest_s, self._active_s - at_s), SHORTEST_S)
        for_s = round(SHORTEST_S * (longest_s / SHORTEST_S) ** self._rng.random(), 4)  # as often short as long
        if kind in _AWAY and (not self._victims or not self._spared(at_s, for_s)):
            return None
        return _MAKERS[kind](self, for_s)

    def _spared(self, at_s: float, for_s: float) -> bool:
        """Return whether another node may be away, and count it."""
        overlapping = sum(begin_s < at_s + for_s and at_s < end_s for begin_s, end_s in self._away)
        if overlapping and overlapping + 1 > self._swarm.down_share * len(self._nodes):
            return False
        self._away.append((at_s, at_s + for_s))
        return True

    def victim(self) -> str:
        return self._rng.choice(self._victims)

    def node(self) -> str:
        return self._rng.choice(self._nodes)

    def cut(self, for_s: float, how: CutKind, *, both: bool = True) -> Fault:
        a, b = self._rng.sample(self._nodes, 2)
        return Cut(a, b, for_s, both, how)

    def how(self) -> CutKind:
        return self._rng.choice(("reset", "silence"))

    def crash(self, for_s: float, how: CutKind) -> Fault:
        state = self._rng.random() < self._swarm.kept_state
        return Crash(self.victim(), for_s, "kept" if state else "none", how)

    def partition(self, for_s: float) -> Fault:
        shuffled = self._rng.sample(self._nodes, len(self._nodes))
        border = self._rng.randint(1, len(shuffled) - 1)
        groups = tuple(tuple(sorted(group)) for group in (shuffled[:border], shuffled[border:]))
        return Partition(groups, for_s, self.how())

    def skew(self) -> Fault:
        return Skew(self.node(), round(self._rng.uniform(-30, 30), 3), round(self._rng.uniform(0.9, 1.1), 3))

    def slow(self, for_s: float) -> Fault:
        return Slow(self.node(), self._rng.choice((2.0, 10.0, 100.0)), for_s)


_Maker: TypeAlias = Callable[[_Draw, float], Fault]
_MAKERS: Final[Mapping[str, _Maker]] = {
    "cut": lambda draw, for_s: draw.cut(for_s, "reset"),
    "silence": lambda draw, for_s: draw.cut(for_s, "silence"),
    "one_way": lambda draw, for_s: draw.cut(for_s, draw.how(), both=False),
    "isolate": lambda draw, for_s: Isolate(draw.victim(), for_s, draw.how()),
    "partition": lambda draw, for_s: draw.partition(for_s),
    "crash": lambda draw, for_s: draw.crash(for_s, "silence"),
    "reset": lambda draw, for_s: draw.crash(for_s, "reset"),
    "pause": lambda draw, for_s: Pause(draw.victim(), for_s),
    "slow": lambda draw, for_s: draw.slow(for_s),
    "skew": lambda draw, for_s: draw.skew(),
    "disk_full": lambda draw, for_s: DiskFull(draw.node(), for_s),
}
_BETWEEN: Final = frozenset({"cut", "silence", "one_way", "isolate", "partition"})
_AWAY: Final = frozenset({"isolate", "crash", "reset", "pause"})


class Churn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Devices that come and go: up and down for so many seconds on average, exponentially distributed."""

    up_s: float
    down_s: float
    state: float = 0.5
    """How many of those that come back have kept their state."""

    def __post_init__(self) -> None:
        if not (self.up_s > 0 and self.down_s > 0 and 0 <= self.state <= 1):
            raise ConfigError("Churn", f"found {self}", hint="Give seconds above 0, and a share as `state`")


def churn(seed: int, nodes: Iterable[str], duration_s: float, rates: Churn) -> Schedule:
    """Return when nodes leave and come back; all are there at the beginning, and each has a course of its own."""
    faults: list[Timed] = []
    for node in nodes:
        rng = random.Random(f"churn {seed} {node}")
        at_s = rng.expovariate(1 / rates.up_s)
        while at_s < duration_s:
            for_s = rng.expovariate(1 / rates.down_s)
            kept = rng.random() < rates.state
            faults.append(Timed(round(at_s, 4), Crash(node, round(for_s, 4), "kept" if kept else "none")))
            at_s += for_s + rng.expovariate(1 / rates.up_s)
    return Schedule(tuple(faults))
