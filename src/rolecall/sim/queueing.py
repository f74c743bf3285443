"""A line of limited bandwidth that many messages share: when each of them is through."""

from __future__ import annotations

from bisect import bisect_right
from math import inf, nextafter
from typing import Final, TypeAlias

from rolecall.core.errors import ConfigError

__all__ = ("Queue", "Rate", "Trace")

Trace: TypeAlias = tuple[tuple[float, float], ...]
"""From each time on, in seconds, that share of the nominal bandwidth."""

_SAME_S: Final = 1e-12  # nearer together than this is the same time


class Rate:
    """How much a line carries: `bps` bits a second, times the share that `trace` says for the time being.

    Before the first entry of the trace the share is 1. With `period_s` the trace begins anew after so many seconds;
    without it, its last share stays, and must not be 0: nothing would ever arrive.
    """

    __slots__ = ("_period_s", "_shares", "_times_s", "bps")

    def __init__(self, bps: float, trace: Trace = (), period_s: float | None = None) -> None:
        check_trace(trace, period_s)
        self.bps = bps
        if trace and trace[0][0] > 0:
            trace = ((0.0, 1.0), *trace)
        self._times_s, self._shares = [at for at, _ in trace], [share for _, share in trace]
        self._period_s = period_s

    def finish(self, start_s: float, bits: float) -> float:
        """Return when so many bits are through, if they have the line for themselves from `start_s` on."""
        if not self._times_s:
            return start_s + bits / self.bps
        at_s, end_s = start_s, start_s
        while bits > 0:
            bps, until_s = self._piece(at_s)
            end_s = at_s + bits / bps if bps else inf
            if end_s <= until_s:
                break
            bits -= bps * (until_s - at_s)
            at_s = end_s = until_s
        return end_s

    def bits(self, start_s: float, end_s: float) -> float:
        """Return how many bits go through from `start_s` to `end_s`."""
        if not self._times_s:
            return (end_s - start_s) * self.bps
        total = 0.0
        while start_s < end_s:
            bps, until_s = self._piece(start_s)
            total += bps * (min(until_s, end_s) - start_s)
            start_s = until_s
        return total

    def _piece(self, now_s: float) -> tuple[float, float]:
        """Return the bandwidth at a time, and until when it is that."""
        rounds_s = 0.0
        if self._period_s is not None:
            rounds_s = now_s // self._period_s * self._period_s
        index = bisect_right(self._times_s, now_s - rounds_s) - 1
        last = index + 1 >= len(self._times_s)
        until_s = (self._period_s or inf) if last else self._times_s[index + 1]
        if rounds_s + until_s <= now_s:  # the difference is lost in the rounding
            return self._piece(nextafter(now_s, inf))
        return self.bps * self._shares[index], rounds_s + until_s


def check_trace(trace: Trace, period_s: float | None) -> None:
    """Raise `ConfigError` for a trace that is none."""
    times_s = [at_s for at_s, _ in trace]
    if times_s != sorted(set(times_s)) or any(at_s < 0 for at_s in times_s):
        raise ConfigError("trace", f"its times are {times_s}", hint="Give times from 0 on, each later than the last")
    if any(share < 0 for _, share in trace):
        raise ConfigError("trace", "a share is negative", hint="Give shares of the bandwidth, such as 0.5")
    stays = [share for _, share in trace] if period_s is not None else [share for _, share in trace[-1:]]
    if trace and not any(stays):
        raise ConfigError("trace", "it ends without any bandwidth", hint="End it with a share above 0")
    if period_s is not None and (period_s <= 0 or (times_s and times_s[-1] >= period_s)):
        raise ConfigError("period_s", f"{period_s:g} s does not reach past the last time of the trace")


class Queue:
    """Serves messages one after another at a rate; one that comes early finds the gaps that later ones leave."""

    __slots__ = ("_ends", "_rate", "_starts")

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._starts: list[float] = []  # busy from each of these ...
        self._ends: list[float] = []  # ... to each of these; sorted, disjoint

    @property
    def bps(self) -> float:
        """The nominal bandwidth."""
        return self._rate.bps

    def reserve(self, from_s: float, bits: float, now_s: float) -> tuple[float, float]:
        """Book the line for a message that reaches it at `from_s`; return when it begins and when it is through.

        `now_s` never goes back, and `from_s` is not before it.
        """
        starts, ends = self._starts, self._ends
        if ends and ends[0] <= now_s:
            gone = bisect_right(ends, now_s)
            del starts[:gone], ends[:gone]
        if not ends or from_s > ends[-1]:
            end_s = self._rate.finish(from_s, bits)
            starts.append(from_s)
            ends.append(end_s)
            return from_s, end_s
        return self._fill(from_s, bits)

    def _fill(self, from_s: float, bits: float) -> tuple[float, float]:
        """Spread the message over the gaps from `from_s` on; everything up to its end is busy then."""
        starts, ends = self._starts, self._ends
        first = index = bisect_right(ends, from_s - _SAME_S)
        at_s, begin_s, done_s = from_s, inf, inf
        while True:
            gap_end_s = starts[index] if index < len(starts) else inf
            if at_s < gap_end_s:
                begin_s = min(begin_s, at_s)
                done_s = self._rate.finish(at_s, bits)
                if done_s <= gap_end_s:
                    break
                bits -= self._rate.bits(at_s, gap_end_s)
            at_s = max(at_s, ends[index])
            index += 1
        start_s = min(from_s, starts[first]) if first < len(starts) else from_s
        starts[first:index], ends[first:index] = [start_s], [done_s]
        return begin_s, done_s
