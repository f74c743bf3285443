from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.ids import RoleId
from rolecall.core.records import LogLine, Metric
from rolecall.observe.series import Series


def metric(role: str, time_s: float = 0.0, **values: float | int | str) -> Metric:
    return Metric(time_s, RoleId(role), values)


def test_accuracy_by_round_is_the_headline() -> None:
    series = Series(metric("server/coordinator", round=r, loss=1 / r, accuracy=r / 10) for r in (1, 2, 3))
    assert (series.headline, series.clock) == ("accuracy", "round")
    assert series.points() == [(1, 0.1), (2, 0.2), (3, 0.3)]
    assert series.names() == ["accuracy", "loss"]
    assert series.at(2) == {"accuracy": 0.2, "loss": 0.5}
    assert series.last("loss") == 1 / 3


def test_loss_leads_where_there_is_no_accuracy_and_anything_where_there_is_neither() -> None:
    series = Series([metric("a/b", step=1, temperature=3.0)])
    assert (series.headline, series.clock) == ("temperature", "step")
    series.add(metric("a/b", step=1, loss=2.0))
    assert series.headline == "loss"
    series.add(metric("a/b", step=2, accuracy=0.5))
    assert series.headline == "accuracy"


def test_the_mean_over_peers_is_one_point() -> None:
    series = Series(metric(f"client{i}/gossip", round=1, accuracy=0.1 * i) for i in (1, 2, 3))
    assert series.reporters() == 3
    [(x, y)] = series.points()
    assert x == 1
    assert abs(y - 0.2) < 1e-12


def test_the_kind_with_the_fewest_roles_speaks_for_the_run() -> None:
    series = Series()
    for i in range(3):
        assert series.add(metric(f"client{i}/trainer", round=1, accuracy=0.9)) == 1.0
    assert series.add(metric("server/coordinator", round=1, accuracy=0.4, loss=2.0)) == 1.0
    assert series.points() == [(1, 0.4)]
    assert series.add(metric("client0/trainer", round=2, accuracy=0.9)) is None


def test_without_a_clock_seconds_count() -> None:
    series = Series([metric("a/b", 0.5, loss=1.0), metric("a/b", 1.5, loss=0.5)])
    assert series.clock == "time_s"
    assert series.points() == [(0.5, 1.0), (1.5, 0.5)]


def test_what_is_no_number_is_no_point() -> None:
    series = Series([metric("a/b", round=1, loss=float("nan"), note="warming up")])
    assert series.headline is None
    assert series.points() == []
    assert series.last() is None
    assert series.names() == []
    assert series.add(LogLine(0.0, "info", "a/b", "hello")) is None


def test_memory_is_bounded_and_both_ends_stay() -> None:
    series = Series(metric("a/b", step=n, loss=float(n)) for n in range(50_000))
    points = series.points()
    assert 4096 <= len(points) <= 8192
    assert points[-1] == (49_999, 49_999)
    assert points[0] == (0, 0)
    assert {b - a for (a, _), (b, _) in pairwise(points[:-1])} == {8}


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(-1e6, 1e6)), min_size=1))
def test_points_come_in_order_whatever_the_order_of_the_metrics(pairs: list[tuple[int, float]]) -> None:
    points = Series(metric("a/b", round=x, loss=y) for x, y in pairs).points()
    assert [x for x, _ in points] == sorted({x for x, _ in pairs})
