"""When silence becomes suspicious: a bound that adapts to how regularly a peer has been heard so far."""

from __future__ import annotations

from array import array
from statistics import median

__all__ = ("Suspicion",)


class Suspicion:
    """Watches the gaps between signs of life of one peer; times are seconds of one monotonic clock.

    A silence is suspicious when it exceeds the median gap by `k` times their median absolute deviation (which
    counts as `floor_s` at least), kept between `minimum_s` and `maximum_s`. Median and deviation are those of
    the last `window` gaps: unlike mean and variance they do not move for a few outliers.
    """

    __slots__ = ("_allowed_s", "_gaps_s", "_heard_s", "_window", "floor_s", "k", "maximum_s", "minimum_s")

    def __init__(
        self,
        minimum_s: float = 0.5,
        maximum_s: float = 3.0,
        k: float = 6.0,
        floor_s: float = 0.05,
        window: int = 64,
    ) -> None:
        if not (0 < minimum_s <= maximum_s and k >= 0 and floor_s >= 0 and window >= 1):
            raise ValueError(
                f"Suspicion(minimum_s={minimum_s}, maximum_s={maximum_s}, k={k}, floor_s={floor_s}, "
                f"window={window}): give 0 < minimum_s <= maximum_s, no negative numbers, and a window of 1 or more"
            )
        self.minimum_s, self.maximum_s, self.k, self.floor_s = minimum_s, maximum_s, k, floor_s
        self._gaps_s = array("d")
        self._window = window
        self._heard_s: float | None = None
        self._allowed_s: float | None = None  # what was computed since the last gap

    def beat(self, now_s: float) -> None:
        """Take note of a sign of life; the first one starts the watch."""
        if self._heard_s is not None:
            if len(self._gaps_s) == self._window:
                del self._gaps_s[0]
            self._gaps_s.append(max(now_s - self._heard_s, 0.0))
            self._allowed_s = None
        self._heard_s = now_s

    def excuse(self, stall_s: float) -> None:
        """Do not hold a silence of `stall_s` against the peer: this process was not listening for so long."""
        if self._heard_s is not None:
            self._heard_s += stall_s

    def deadline_s(self, now_s: float) -> float:
        """Return how long a silence may be; `maximum_s` as long as nothing is known of the peer.

        The watch starts at `now_s` if it has not started yet.
        """
        if self._heard_s is None:
            self._heard_s = now_s
        if self._allowed_s is None:
            self._allowed_s = self._compute()
        return self._allowed_s

    def suspects(self, now_s: float) -> bool:
        """Return whether the peer has been silent for longer than is allowed."""
        allowed_s = self.deadline_s(now_s)
        return self._heard_s is not None and now_s - self._heard_s > allowed_s

    def _compute(self) -> float:
        if not self._gaps_s:
            return self.maximum_s
        middle = median(self._gaps_s)
        deviation = median(abs(gap - middle) for gap in self._gaps_s)
        allowed = middle + self.k * max(deviation, self.floor_s)
        return min(max(allowed, self.minimum_s), self.maximum_s)
