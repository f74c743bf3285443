"""A modelled network: when what one node sends reaches another. No clock and no loop; the caller says what time it is.

Between two nodes lie the line of the one, a path, and the line of the other. Each adds its latency and jitter; each
has its bandwidth, and a queue in each direction. A line is shared by all that its node sends (or receives), a path
belongs to its pair. Delivery is reliable and in order, as over TCP: loss is the delay that it causes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from rolecall.core.errors import ConfigError
from rolecall.sim.pair import Pair
from rolecall.sim.queueing import Queue, Rate, Trace

__all__ = ("Access", "Network", "Path")


class Path(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What lies between the lines of two nodes, in one direction.

    `latency_s` is one way; each chunk takes up to `jitter_s` more, uniformly. `bandwidth_bps` is in bits a second,
    None for as much as there is. `loss` is the share of packets that must be sent again. `trace` makes the bandwidth
    a share of what it is, from each time on (seconds), and begins again after `period_s` if that is given.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bandwidth_bps: float | None = None
    loss: float = 0.0
    trace: Trace = ()
    period_s: float | None = None

    def __post_init__(self) -> None:
        _check(self, "latency_s", "jitter_s", "loss", positive=("bandwidth_bps",))


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """The line of one node, which all that it sends and receives goes over; see `Path` for the rest."""

    latency_s: float = 0.0
    jitter_s: float = 0.0
    up_bps: float | None = None
    down_bps: float | None = None
    loss: float = 0.0
    trace: Trace = ()
    period_s: float | None = None

    def __post_init__(self) -> None:
        _check(self, "latency_s", "jitter_s", "loss", positive=("up_bps", "down_bps"))


def _check(given: Path | Access, *names: str, positive: Sequence[str]) -> None:
    where = type(given).__name__
    for name in names:
        if not getattr(given, name) >= 0:
            raise ConfigError(f"{where}.{name}", f"it is {getattr(given, name)}", hint="Give 0 or more")
    for name in positive:
        bps = getattr(given, name)
        if bps is not None and not bps > 0:
            raise ConfigError(f"{where}.{name}", f"it is {bps}", hint="Give bits a second; leave it out for no limit")
    if given.loss >= 1:
        raise ConfigError(f"{where}.loss", f"it is {given.loss}", hint="Give a share below 1; `cut` loses everything")


class _Severance(msgspec.Struct, frozen=True):
    """A reason why some nodes cannot send to some others: pairs, nodes that are alone, or groups kept apart."""

    pairs: frozenset[tuple[str, str]] = frozenset()
    alone: str | None = None
    groups: dict[str, int] | None = None

    def severs(self, src: str, dst: str) -> bool:
        if self.groups is not None:
            return self.groups.get(src, -1) != self.groups.get(dst, -1)
        return self.alone in (src, dst) if self.alone is not None else (src, dst) in self.pairs


class Network:
    """Nodes with their lines, and paths between them.

    `default` is the path of pairs that have none of their own, or a function that returns it for two names.
    """

    def __init__(self, seed: int = 0, default: Path | Callable[[str, str], Path] | None = None) -> None:
        self.seed, self._default = seed, default or Path()
        self.version = 0
        """Changes whenever something is cut or healed."""
        self._access: dict[str, Access] = {}
        self._lines: dict[str, tuple[Queue | None, Queue | None]] = {}
        self._paths: dict[tuple[str, str], Path] = {}
        self._pairs: dict[str, dict[str, Pair]] = {}
        self._severed: dict[int, _Severance] = {}
        self._tokens = 0

    # ------------------------------------------------------------------------------------------------ layout

    def attach(self, node: str, access: Access) -> None:
        """Give a node a line of its own; what is under way is not changed."""
        self._access[node] = access
        up, down = (
            Queue(Rate(bps, access.trace, access.period_s)) if bps is not None else None
            for bps in (access.up_bps, access.down_bps)
        )
        if up is None and down is None:
            self._lines.pop(node, None)
        else:
            self._lines[node] = up, down
        self._configure(node)

    def set_path(self, a: str, b: str, path: Path, *, both: bool = True) -> None:
        """Say what lies between two nodes, in one direction or in both."""
        self._paths[a, b] = path
        if both:
            self._paths[b, a] = path
        self._configure(a)

    def _configure(self, node: str) -> None:
        for pairs in self._pairs.values():
            if node in pairs:
                pairs[node].configure()
        for pair in self._pairs.get(node, {}).values():
            pair.configure()

    def parts(self, src: str, dst: str) -> tuple[Access, Path, Access]:
        """Return the line of one node, the path to another, and that one's line."""
        path = self._paths.get((src, dst))
        if path is None:
            path = self._default if isinstance(self._default, Path) else self._default(src, dst)
        return self._access.get(src, _DIRECT), path, self._access.get(dst, _DIRECT)

    def lines(self, node: str) -> tuple[Queue | None, Queue | None]:
        """Return the queues of a node's line, out and in; none where its bandwidth has no limit."""
        return self._lines.get(node, (None, None))

    def key(self, src: str, dst: str) -> int:
        """Return where the random numbers of a pair begin."""
        told = f"{self.seed} {src} {dst}".encode()
        return int.from_bytes(hashlib.blake2b(told, digest_size=8).digest())

    # ----------------------------------------------------------------------------------------------- sending

    def pair(self, src: str, dst: str) -> Pair:
        """Return one direction between two nodes."""
        pairs = self._pairs.setdefault(src, {})
        found = pairs.get(dst)
        if found is None:
            found = pairs[dst] = Pair(self, src, dst)
        return found

    def deliver_at(self, src: str, dst: str, size_bytes: int, now_s: float) -> float | None:
        """Return when what `src` sends now reaches `dst`, or None while the way is cut; see `Pair.deliver_at`."""
        return self.pair(src, dst).deliver_at(size_bytes, now_s)

    def round_trip_s(self, a: str, b: str) -> float:
        """Return how long there and back takes at best."""
        return self.pair(a, b).latency_s + self.pair(b, a).latency_s

    # ---------------------------------------------------------------------------------------------- severing

    def cut(self, a: str, b: str, *, both: bool = True) -> int:
        """Let nothing through from `a` to `b`, nor back unless `both` is false; return a token for `mend`."""
        return self._sever(_Severance(pairs=frozenset({(a, b), (b, a)} if both else {(a, b)})))

    def isolate(self, node: str) -> int:
        """Let nothing through to or from a node; return a token for `mend`."""
        return self._sever(_Severance(alone=node))

    def partition(self, groups: Iterable[Iterable[str]]) -> int:
        """Let nothing through between groups of nodes; those named in none are one more. Return a token for `mend`.

        Raises:
            ConfigError: a node is in two groups.
        """
        group_of: dict[str, int] = {}
        for number, group in enumerate(groups):
            for node in group:
                if group_of.setdefault(node, number) != number:
                    raise ConfigError("partition", f"node {node!r} is in two groups", hint="Name each node once")
        return self._sever(_Severance(groups=group_of))

    def mend(self, token: int) -> None:
        """Undo one cut, isolation or partition; the others stay."""
        if self._severed.pop(token, None) is not None:
            self.version += 1

    def heal(self, a: str | None = None, b: str | None = None) -> None:
        """Undo every cut between two nodes, or all that concerns one, or everything.

        A partition is undone as a whole, and only by healing everything.
        """
        for token, severance in list(self._severed.items()):
            if _concerns(severance, a, b):
                del self._severed[token]
        self.version += 1

    def severed(self, src: str, dst: str) -> bool:
        """Return whether nothing gets through from one node to another."""
        return any(severance.severs(src, dst) for severance in self._severed.values())

    def _sever(self, severance: _Severance) -> int:
        self._tokens += 1
        self._severed[self._tokens] = severance
        self.version += 1
        return self._tokens


_DIRECT: Final = Access()


def _concerns(severance: _Severance, a: str | None, b: str | None) -> bool:
    named = {node for node in (a, b) if node is not None}
    if not named:
        return True
    if len(named) == 1 and severance.alone in named:
        return True
    return any(named <= set(pair) for pair in severance.pairs)
