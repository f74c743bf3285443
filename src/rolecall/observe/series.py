"""Find, among all the metrics of a run, the one curve worth drawing.

An application logs many things from many roles. The *headline* is the metric people ask for first: accuracy,
else loss, else whatever number was logged first. When roles of several kinds log it (a coordinator the
accuracy of the global model, every trainer that of its own), the kind with the fewest members speaks for the
run; when several roles of that kind log it for the same round (the peers of gossip learning), their mean
does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rolecall.core.ids import RoleId
from rolecall.core.records import Metric, Record

__all__ = ("CLOCKS", "PREFERRED", "Series", "clock_of")

CLOCKS = ("round", "step", "epoch", "iteration")
"""What a metric may be counted in, best first; without any of them its time in seconds is taken."""

PREFERRED = ("accuracy", "loss")
"""What people ask for first."""

_POINTS_PER_TRACK = 8192


def clock_of(values: Mapping[str, object]) -> str:
    """Return the name of the value that says when a metric belongs: one of `CLOCKS`, or "time_s"."""
    return next((name for name in CLOCKS if _is_number(values.get(name))), "time_s")


class _Track:
    """One metric as logged by one kind of role: its mean over the roles, by round (or step, or time).

    Of a long run every second, fourth, ... point is kept, and always the newest: still finer than any screen.
    """

    def __init__(self, clock: str) -> None:
        self.clock = clock
        self.roles: set[RoleId] = set()
        self.sums: dict[float, tuple[float, int]] = {}
        self._seen = 0
        self._stride = 1
        self._newest = 0.0

    def add(self, role: RoleId, x: float, value: float) -> None:
        self.roles.add(role)
        if x not in self.sums:
            self._make_room(x)
        total, count = self.sums.get(x, (0.0, 0))
        self.sums[x] = (total + value, count + 1)

    def _make_room(self, x: float) -> None:
        if self._seen and (self._seen - 1) % self._stride:
            self.sums.pop(self._newest, None)
        if len(self.sums) >= _POINTS_PER_TRACK:
            self.sums = dict(list(self.sums.items())[::2])
            self._stride *= 2
        self._newest = x
        self._seen += 1

    def points(self) -> list[tuple[float, float]]:
        return sorted((x, total / count) for x, (total, count) in self.sums.items())


class Series:
    """Collect metrics as they come and say what the run's curve is so far."""

    def __init__(self, metrics: Iterable[Metric] = ()) -> None:
        self._tracks: dict[tuple[str, str], _Track] = {}
        for metric in metrics:
            self.add(metric)

    def add(self, record: Record) -> float | None:
        """Take one record; return where on the headline's x axis it counts, None if it is not part of it."""
        if not isinstance(record, Metric):
            return None
        clock = clock_of(record.values)
        x = float(record.time_s if clock == "time_s" else record.values[clock])
        kind = RoleId(record.role).name or str(record.role)
        for name, value in record.values.items():
            if name not in CLOCKS and _is_number(value):
                track = self._tracks.setdefault((kind, name), _Track(clock))
                if track.clock == clock:
                    track.add(record.role, x, float(value))
        key = self._headline_key()
        return x if key and key[0] == kind and key[1] in record.values else None

    @property
    def headline(self) -> str | None:
        """The name of the metric worth drawing, or None when no number was logged yet."""
        key = self._headline_key()
        return key[1] if key else None

    @property
    def clock(self) -> str:
        """What the headline is counted in: "round", "step", ..., or "time_s"."""
        key = self._headline_key()
        return self._tracks[key].clock if key else "time_s"

    def names(self) -> list[str]:
        """Return the metrics that the roles of the headline log, the headline first."""
        key = self._headline_key()
        if key is None:
            return []
        names = [name for kind, name in self._tracks if kind == key[0]]
        return sorted(names, key=lambda name: PREFERRED.index(name) if name in PREFERRED else len(PREFERRED))

    def reporters(self) -> int:
        """Return how many roles have logged the headline."""
        key = self._headline_key()
        return len(self._tracks[key].roles) if key else 0

    def points(self, name: str | None = None) -> list[tuple[float, float]]:
        """Return `(x, y)` pairs in order of x, for the headline or another of `names()`."""
        key = self._headline_key()
        if key is None:
            return []
        track = self._tracks.get((key[0], name or key[1]))
        return track.points() if track else []

    def at(self, x: float) -> dict[str, float]:
        """Return the value of each of `names()` at `x`, where there is one."""
        key = self._headline_key()
        found = {name: self._tracks[key[0], name].sums.get(x) for name in self.names()} if key else {}
        return {name: total[0] / total[1] for name, total in found.items() if total}

    def last(self, name: str | None = None) -> float | None:
        """Return the latest value of the headline or of another of `names()`; None when there is none."""
        points = self.points(name)
        return points[-1][1] if points else None

    def _headline_key(self) -> tuple[str, str] | None:
        keys = list(self._tracks)
        for preferred in PREFERRED:
            candidates = [key for key in keys if key[1] == preferred]
            if candidates:
                return min(candidates, key=lambda key: len(self._tracks[key].roles))
        return keys[0] if keys else None


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
