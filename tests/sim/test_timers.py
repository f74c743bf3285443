"""The queue of a virtual world, against a heap of all that is in it."""

from __future__ import annotations

import asyncio
import heapq
from math import inf
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from rolecall.sim.timers import DAEMON_ARRIVAL, DAEMON_TIMER, SERIOUS_ARRIVAL, SERIOUS_TIMER, Timers

AT_ONCE = 0.0
round_times = st.sampled_from([AT_ONCE, 0.0002, 0.001, 0.0015, 0.5, 1.0, 1e9])
times = st.one_of(round_times, st.floats(0, 0.01), st.floats(0, 3), st.floats(0, 1e300))
kinds = st.sampled_from([SERIOUS_ARRIVAL, DAEMON_ARRIVAL, SERIOUS_TIMER, DAEMON_TIMER])
acts = st.lists(st.one_of(st.tuples(times, kinds), st.just("pop"), st.integers(0, 50)), max_size=80)


class Handle:
    """A timer, of which only this is looked at."""

    def __init__(self) -> None:
        self._cancelled = False


class Reference:
    """One heap, in which cancelled timers stay until their turn."""

    def __init__(self) -> None:
        self.heap: list[tuple[float, int, Any, int]] = []
        self.number = 0

    def add(self, when_s: float, what: Any, kind: int) -> None:
        self.number += 1
        heapq.heappush(self.heap, (when_s, self.number, what, kind))

    def living(self) -> list[tuple[float, int, Any, int]]:
        return [entry for entry in self.heap if not entry[2]._cancelled]


@given(acts)
def test_all_goes_off_in_order_of_time_and_then_of_number(acts: list[Any]) -> None:
    timers, reference, now_s = Timers(), Reference(), 0.0
    for act in acts:
        if isinstance(act, tuple):
            what = Handle()
            timers.add(now_s + act[0], what, act[1])
            reference.add(now_s + act[0], what, act[1])
        elif act == "pop" and reference.heap:
            expected = heapq.heappop(reference.heap)
            assert timers.next_s == expected[0]
            assert timers.pop() == expected
            now_s = max(now_s, expected[0])
        elif isinstance(act, int):
            living = [entry for entry in sorted(reference.living()) if entry[3] >= SERIOUS_TIMER]
            if act < len(living):
                living[act][2]._cancelled = True
                timers.cancelled(living[act][3])
        assert timers.size == len(reference.heap)
        assert timers.serious == sum(entry[3] in (SERIOUS_ARRIVAL, SERIOUS_TIMER) for entry in reference.living())
        assert timers.next_s == (reference.heap[0][0] if reference.heap else inf)
        assert set(timers.pending()) == {entry[2] for entry in reference.living()}
    timers.skip_cancelled()
    living = sorted(reference.living())
    assert timers.next_s == (living[0][0] if living else inf)


def test_one_arrives_where_nothing_else_is_due() -> None:
    timers = Timers()
    timers.add(1.0, "first", SERIOUS_ARRIVAL)
    timers.add(1.0001, "second", DAEMON_ARRIVAL)
    assert timers.one_arrives(1.0)
    assert not timers.one_arrives(1.0001)  # the first is late, and the second due with it
    timers.add(1.0, "third", SERIOUS_ARRIVAL)
    assert not timers.one_arrives(1.0)
    assert [timers.pop()[2] for _ in range(2)] == ["first", "third"]
    assert timers.one_arrives(1.0001)
    timers.add(1.0001, Handle(), SERIOUS_TIMER)
    assert not timers.one_arrives(1.0001)


def test_many_that_are_cancelled_are_forgotten() -> None:
    timers = Timers()
    loop = asyncio.new_event_loop()
    for number in range(5_000):
        timer = asyncio.TimerHandle(0.0, print, (), loop)
        timers.add(number / 7, timer, SERIOUS_TIMER)
        if number % 10:
            timer.cancel()
            timers.cancelled(SERIOUS_TIMER)
    loop.close()
    assert timers.size < 2_000
    assert timers.serious == len(timers.pending()) == 500
    gone_off = []
    while timers.size:
        when_s, _, timer, _ = timers.pop()
        if not timer.cancelled():
            gone_off.append(when_s)
    assert gone_off == [number / 7 for number in range(0, 5_000, 10)]
