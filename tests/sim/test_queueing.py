"""A line that messages share: its rate, its gaps, and that no bit is carried twice or for nothing."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import ConfigError
from rolecall.sim.queueing import Queue, Rate

seconds = st.floats(0, 100)
sizes = st.integers(1, 100_000)
traces = st.lists(st.tuples(st.floats(0.1, 10), st.floats(0.0, 3.0)), min_size=1, max_size=5)


def trace_of(steps: list[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    """Return a trace that ends with some bandwidth."""
    at_s, trace = 0.0, []
    for step_s, share in steps:
        trace.append((at_s, share))
        at_s += step_s
    return (*trace, (at_s, 0.5))


def test_a_message_takes_its_time() -> None:
    queue = Queue(Rate(1_000))
    assert queue.reserve(2.0, 500, 2.0) == (2.0, 2.5)
    assert queue.reserve(2.0, 500, 2.0) == (2.5, 3.0)
    assert queue.reserve(9.0, 500, 9.0) == (9.0, 9.5)


def test_what_reaches_the_line_sooner_does_not_wait_for_what_comes_later() -> None:
    queue = Queue(Rate(1_000))
    assert queue.reserve(5.0, 1_000, 0.0) == (5.0, 6.0)
    assert queue.reserve(1.0, 1_000, 0.0) == (1.0, 2.0)
    assert queue.reserve(4.5, 1_000, 0.0) == (4.5, 6.5)  # around what is there
    assert queue.reserve(4.5, 1_000, 0.0) == (6.5, 7.5)


def test_a_trace_changes_the_rate() -> None:
    rate = Rate(1_000, ((1.0, 0.5), (2.0, 0.0), (3.0, 2.0)))
    assert rate.finish(0.0, 1_000) == 1.0
    assert rate.finish(0.0, 1_500) == 2.0
    assert rate.finish(0.0, 2_500) == 3.5
    assert rate.finish(2.5, 2_000) == 4.0
    assert rate.bits(0.5, 3.5) == 500 + 500 + 0 + 1_000


def test_a_trace_may_begin_again() -> None:
    rate = Rate(1_000, ((0.0, 1.0), (1.0, 0.0)), period_s=2.0)
    assert rate.finish(0.0, 2_500) == 4.5
    assert rate.bits(0.0, 10.0) == 5_000


@pytest.mark.parametrize(
    ("trace", "period_s", "problem"),
    [
        (((1.0, 1.0), (1.0, 0.5)), None, "its times are"),
        (((-1.0, 1.0),), None, "its times are"),
        (((0.0, -1.0),), None, "negative"),
        (((0.0, 1.0), (1.0, 0.0)), None, "without any bandwidth"),
        (((0.0, 0.0),), 1.0, "without any bandwidth"),
        (((0.0, 1.0), (1.0, 0.5)), 1.0, "does not reach"),
    ],
)
def test_a_trace_that_is_none(trace: tuple[tuple[float, float], ...], period_s: float | None, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        Rate(1_000, trace, period_s)


@given(traces, st.booleans(), seconds, sizes)
def test_the_rate_and_the_time_agree(steps: list[tuple[float, float]], again: bool, start_s: float, bits: int) -> None:
    trace = trace_of(steps)
    rate = Rate(1_000, trace, trace[-1][0] + 1 if again else None)
    end_s = rate.finish(start_s, bits)
    assert start_s <= end_s < inf
    assert rate.bits(start_s, end_s) == pytest.approx(bits, rel=1e-6, abs=1e-3)


@given(st.lists(st.tuples(st.floats(0, 5), st.floats(0, 20), sizes), min_size=1, max_size=30), traces, st.booleans())
def test_no_bit_is_carried_twice_or_for_nothing(
    messages: list[tuple[float, float, int]], steps: list[tuple[float, float]], traced: bool
) -> None:
    """By any time the line has carried no more than it can; and while a message waits, it carries all it can."""
    rate = Rate(10_000, trace_of(steps) if traced else ())
    queue, now_s, booked = Queue(rate), 0.0, []
    for pause_s, ahead_s, bits in messages:
        now_s += pause_s
        begin_s, end_s = queue.reserve(now_s + ahead_s, bits, now_s)
        assert now_s + ahead_s <= begin_s + 1e-9
        assert begin_s <= end_s
        booked.append((now_s + ahead_s, end_s, bits))
    for from_s, _, _ in booked:
        for _, until_s, _ in booked:
            within = sum(bits for start_s, end_s, bits in booked if start_s >= from_s and end_s <= until_s)
            assert within <= rate.bits(from_s, until_s) + 1 if until_s > from_s else within <= 1 + max(sizes_of(booked))
    first_s, last_s = min(start_s for start_s, _, _ in booked), max(end_s for _, end_s, _ in booked)
    assert sum(sizes_of(booked)) <= rate.bits(first_s, last_s) + 1


def sizes_of(booked: list[tuple[float, float, int]]) -> list[int]:
    return [bits for _, _, bits in booked]


@given(st.lists(sizes, min_size=1, max_size=30))
def test_a_busy_line_is_never_idle(messages: list[int]) -> None:
    queue = Queue(Rate(1_000))
    ends = [queue.reserve(0.0, bits, 0.0)[1] for bits in messages]
    assert ends == sorted(ends)
    assert ends[-1] == pytest.approx(sum(messages) / 1_000)
