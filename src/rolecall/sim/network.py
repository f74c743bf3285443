"""A modelled network: when what one node sends reaches another. No clock and no loop; the caller says what time it is.

Between two nodes lie the line of the one, a path, and the line of the other. Each adds its latency and jitter; each
has its bandwidth, and a queue in each direction. A line is shared by all that its node sends (or receives), a path
belongs to its pair. Delivery is reliable and in order, as over TCP: loss is the delay that it causes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from math import ceil, sqrt
from typing import Final

import msgspec

from rolecall.core.errors import ConfigError
from rolecall.sim.queueing import Queue, Rate, Trace

__all__ = ("Access", "Network", "Pair", "Path")

PACKET_BYTES: Final = 1_460  # of payload, in an Ethernet frame
TAIL_PACKETS: Final = 3  # without three packets after it, a loss is noticed by timeout only
TIMEOUT_MIN_S: Final = 0.2  # of a retransmission, as in Linux
TIMEOUTS_MAX: Final = 6
MATHIS: Final = 1.22  # see `Pair.bandwidth`

_MASK: Final = (1 << 64) - 1


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


class Pair:
    """One direction between two nodes; made by a `Network`."""

    __slots__ = (
        "_count", "_cut", "_down", "_jitter_s", "_key", "_last_s", "_network", "_queue", "_tail_loss", "_timeout_s",
        "_up", "_version", "dst", "latency_s", "loss", "src",
    )  # fmt: skip

    def __init__(self, network: Network, src: str, dst: str) -> None:
        self._network, self.src, self.dst = network, src, dst
        self._key = -1
        self._count, self._version, self._last_s, self._cut = 0, -1, 0.0, False
        self.configure()

    def configure(self) -> None:
        """Take over what the network says of the two nodes now."""
        out, path, into = self._network.parts(self.src, self.dst)
        self.latency_s = out.latency_s + path.latency_s + into.latency_s
        self._jitter_s = out.jitter_s + path.jitter_s + into.jitter_s
        self.loss = 1 - (1 - out.loss) * (1 - path.loss) * (1 - into.loss)
        self._timeout_s = max(TIMEOUT_MIN_S, 4 * (self.latency_s + self._jitter_s))
        self._up, self._down = self._network.lines(self.src)[0], self._network.lines(self.dst)[1]
        bps = self.bandwidth(path)
        self._queue = Queue(Rate(bps, path.trace, path.period_s)) if bps is not None else None

    def bandwidth(self, path: Path) -> float | None:
        """Return what one connection gets of the path.

        With loss that is at most what congestion control makes of it (Mathis, Semke, Mahdavi and Ott, "The
        macroscopic behavior of the TCP congestion avoidance algorithm", 1997, eq. 3): a packet for each round trip,
        times 1.22 through the root of the loss.
        """
        trip_s = 2 * self.latency_s + self._jitter_s
        if not self.loss or not trip_s:
            return path.bandwidth_bps
        allowed = PACKET_BYTES * 8 / trip_s * MATHIS / sqrt(self.loss)
        return allowed if path.bandwidth_bps is None else min(allowed, path.bandwidth_bps)

    @property
    def in_flight_bytes(self) -> int:
        """How much is under way when the narrowest stretch is never idle."""
        narrowest = min((queue.bps for queue in (self._up, self._queue, self._down) if queue is not None), default=0.0)
        return int(narrowest * self.latency_s / 8)

    @property
    def cut(self) -> bool:
        """Whether nothing gets through at the moment."""
        if self._version != self._network.version:
            self._look()
        return self._cut

    def _look(self) -> None:
        self._version, self._cut = self._network.version, self._network.severed(self.src, self.dst)

    def deliver_at(self, size_bytes: int, now_s: float) -> float | None:
        """Return when what is sent now arrives, never before what was sent earlier; None while the way is cut."""
        if self._version != self._network.version:
            self._look()
        if self._cut:
            return None
        at_s = now_s + self.latency_s
        if self._up is not None or self._queue is not None or self._down is not None:
            at_s = self._queued(size_bytes * 8, now_s)
        if self._jitter_s:
            at_s += self._draw() * self._jitter_s
        if self.loss:
            at_s += self._resent_s(size_bytes)
        if at_s < self._last_s:
            at_s = self._last_s
        self._last_s = at_s
        return at_s

    def _queued(self, bits: int, now_s: float) -> float:
        """Return when the last bit arrives: each stretch passes on the first bits before it has the last."""
        begin_s = end_s = now_s
        for queue in (self._up, self._queue):
            if queue is not None:
                begin_s, done_s = queue.reserve(begin_s, bits, now_s)
                end_s = max(end_s, done_s)
        begin_s, end_s = begin_s + self.latency_s, end_s + self.latency_s
        if self._down is not None:
            end_s = max(end_s, self._down.reserve(begin_s, bits, now_s)[1])
        return end_s

    def _resent_s(self, size_bytes: int) -> float:
        """Return how long the end of a chunk is late because packets of it were lost."""
        packets = min(ceil(size_bytes / PACKET_BYTES), TAIL_PACKETS)
        chance, late_s, timeout_s = 1 - (1 - self.loss) ** packets, 0.0, self._timeout_s
        for _ in range(TIMEOUTS_MAX):
            if self._draw() >= chance:
                break
            late_s, timeout_s, chance = late_s + timeout_s, 2 * timeout_s, self.loss
        return late_s

    def _draw(self) -> float:
        """Return the next number in [0, 1) of this pair, which depends on the seed and on nothing else (splitmix64)."""
        if self._key < 0:
            self._key = self._network.key(self.src, self.dst)
        self._count += 1
        z = (self._key + self._count * 0x9E3779B97F4A7C15) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return ((z ^ (z >> 31)) >> 11) / (1 << 53)


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
