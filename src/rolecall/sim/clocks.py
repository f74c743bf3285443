"""The clocks of nodes: each may be ahead or behind, and run fast or slow."""

from __future__ import annotations

__all__ = ("NodeClock",)


class NodeClock:
    """A clock that shows `offset_s` more than the world's, and runs at `rate` from `since_s` on."""

    def __init__(self, offset_s: float = 0.0, rate: float = 1.0, since_s: float = 0.0) -> None:
        self._shown_s, self._rate, self._since_s = since_s + offset_s, rate, since_s

    def shown(self, world_s: float) -> float:
        """Return what the clock shows at a time of the world."""
        return self._shown_s + (world_s - self._since_s) * self._rate

    def world(self, shown_s: float) -> float:
        """Return when the clock shows a time."""
        return self._since_s + (shown_s - self._shown_s) / self._rate

    def skewed(self, offset_s: float, rate: float, now_s: float) -> NodeClock:
        """Return a clock that goes on from here, set forward by `offset_s`, at another rate."""
        return NodeClock(self.shown(now_s) - now_s + offset_s, rate, now_s)
