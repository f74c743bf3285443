"""One direction between two nodes of a modelled network: when what the one sends now reaches the other."""

from __future__ import annotations

from math import ceil, sqrt
from typing import TYPE_CHECKING, Final

from rolecall.sim.queueing import Queue, Rate

if TYPE_CHECKING:
    from rolecall.sim.network import Network, Path

__all__ = ("Pair",)

PACKET_BYTES: Final = 1_460  # of payload, in an Ethernet frame
TAIL_PACKETS: Final = 3  # without three packets after it, a loss is noticed by timeout only
TIMEOUT_MIN_S: Final = 0.2  # of a retransmission, as in Linux
TIMEOUTS_MAX: Final = 6
MATHIS: Final = 1.22  # see `Pair.bandwidth`

_MASK: Final = (1 << 64) - 1


class Pair:
    """One direction between two nodes; made by a `Network`."""

    __slots__ = (
        "_count", "_cut", "_down", "_jitter_s", "_key", "_last_s", "_network", "_queue", "_timeout_s",
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
