from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.wire import Suspicion


def heard(gaps_s: list[float], **options: float) -> tuple[Suspicion, float]:
    """Return a watch that has heard a peer with those gaps, and the time of the last."""
    suspicion, now_s = Suspicion(**options), 100.0  # type: ignore[arg-type]
    suspicion.beat(now_s)
    for gap_s in gaps_s:
        now_s += gap_s
        suspicion.beat(now_s)
    return suspicion, now_s


def test_an_unknown_peer_is_given_the_longest_time() -> None:
    suspicion = Suspicion()
    assert suspicion.deadline_s(5.0) == 3.0
    assert not suspicion.suspects(7.9) and suspicion.suspects(8.1)  # the watch started with the first question
    suspicion.beat(8.5)
    assert not suspicion.suspects(11.4) and suspicion.suspects(11.6)


def test_a_regular_peer_is_given_its_median_and_k_times_the_floor() -> None:
    suspicion, now_s = heard([0.5] * 10)
    assert suspicion.deadline_s(now_s) == pytest.approx(0.5 + 6 * 0.05)
    assert not suspicion.suspects(now_s + 0.79)
    assert suspicion.suspects(now_s + 0.81)


def test_an_irregular_peer_is_given_more() -> None:
    suspicion, now_s = heard([0.3, 0.5, 0.7] * 5)
    assert suspicion.deadline_s(now_s) == pytest.approx(0.5 + 6 * 0.2)


def test_few_outliers_change_nothing() -> None:
    suspicion, now_s = heard([0.5] * 20 + [2.9, 0.0, 2.5])
    assert suspicion.deadline_s(now_s) == pytest.approx(0.8)


def test_it_stays_between_minimum_and_maximum() -> None:
    quick, now_s = heard([0.01] * 10, minimum_s=0.4)
    assert quick.deadline_s(now_s) == 0.4
    slow, now_s = heard([10.0] * 10)
    assert slow.deadline_s(now_s) == 3.0


def test_it_forgets_what_is_long_past() -> None:
    suspicion, now_s = heard([2.0] * 64 + [0.5] * 64)
    assert suspicion.deadline_s(now_s) == pytest.approx(0.8)


def test_a_sign_of_life_ends_the_suspicion() -> None:
    suspicion, now_s = heard([0.5] * 10)
    assert suspicion.suspects(now_s + 2)
    suspicion.beat(now_s + 2)
    assert not suspicion.suspects(now_s + 2.5)


def test_our_own_stall_is_not_held_against_the_peer() -> None:
    suspicion, now_s = heard([0.5] * 10)
    now_s += 5
    suspicion.excuse(4.9)
    assert not suspicion.suspects(now_s) and suspicion.suspects(now_s + 1)


@given(st.lists(st.floats(0, 100), max_size=100), st.floats(0, 10), st.floats(0, 1))
def test_always_within_bounds(gaps_s: list[float], k: float, floor_s: float) -> None:
    suspicion, now_s = heard(gaps_s, k=k, floor_s=floor_s)
    allowed_s = suspicion.deadline_s(now_s)
    assert 0.5 <= allowed_s <= 3.0
    assert not suspicion.suspects(now_s)
    assert suspicion.suspects(now_s + allowed_s + 0.001)


@pytest.mark.parametrize(
    "options",
    [{"minimum_s": 0.0}, {"minimum_s": 4.0}, {"k": -1.0}, {"floor_s": -1.0}, {"window": 0}],
)
def test_bounds_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="minimum_s <= maximum_s"):
        Suspicion(**options)  # type: ignore[arg-type]
