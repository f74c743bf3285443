"""What goes wrong is drawn from a seed, within a budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import ConfigError
from rolecall.sim.faults import Crash, Isolate, Pause
from rolecall.sim.swarm import SWARMS, Churn, Swarm, churn, draw

NODES = [f"n{number}" for number in range(6)]


@given(st.integers(0, 10_000), st.sampled_from(sorted(SWARMS)), st.integers(1, 6))
def test_a_draw_keeps_to_its_budget(seed: int, name: str, count: int) -> None:
    nodes, swarm = NODES[:count], SWARMS[name]
    schedule = draw(seed, nodes, 20.0, name, spare=["n0"])
    assert schedule == draw(seed, nodes, 20.0, name, spare=["n0"])
    schedule.check(nodes)
    assert len(schedule.faults) <= swarm.faults
    away = []
    for timed in schedule.faults:
        for_s = getattr(timed.fault, "for_s", 0.0)
        assert 0 <= for_s <= swarm.longest_s
        assert timed.at_s + for_s <= 20.0 * (1 - swarm.quiet_share) + 0.02
        if isinstance(timed.fault, Crash | Pause | Isolate):
            assert timed.fault.node != "n0"
            away.append((timed.at_s, timed.at_s + for_s))
    allowed = max(1, int(swarm.down_share * count))
    for at_s, _ in away:
        assert sum(begin_s <= at_s < end_s for begin_s, end_s in away) <= allowed


def test_other_seeds_draw_other_things() -> None:
    drawn = {draw(seed, NODES, 20.0).to_json() for seed in range(100)}
    assert len(drawn) > 95


def test_each_seed_leaves_some_kinds_out_and_none_is_always_left_out() -> None:
    kinds = [frozenset(type(timed.fault).__name__ for timed in draw(seed, NODES, 20.0).faults) for seed in range(200)]
    seen = Counter(kind for each in kinds for kind in each)
    assert set(seen) == {"Cut", "Isolate", "Partition", "Crash", "Pause", "Slow", "Skew", "DiskFull"}
    assert max(seen.values()) < 190
    assert len(set(kinds)) > 30


def test_nothing_goes_wrong_with_none() -> None:
    assert draw(1, NODES, 20.0, "none").faults == ()
    assert draw(1, [], 20.0).faults == ()
    assert draw(1, ["a"], 20.0, Swarm(kinds={"cut": 1.0})).faults == ()  # there is nobody to be cut off from


def test_a_profile_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match=r"faults 'gentel': .* Did you mean 'gentle'\?"):
        draw(1, NODES, 20.0, "gentel")


def test_nodes_come_and_go() -> None:
    rates = Churn(up_s=100.0, down_s=20.0)
    schedule = churn(7, [f"n{number}" for number in range(200)], 1_000.0, rates)
    assert schedule == churn(7, [f"n{number}" for number in range(200)], 1_000.0, rates)
    crashes = [timed.fault for timed in schedule.faults if isinstance(timed.fault, Crash)]
    away_s = sum(
        min(fault.for_s or 0.0, 1_000.0 - timed.at_s) for timed, fault in zip(schedule.faults, crashes, strict=True)
    )
    assert away_s / (200 * 1_000.0) == pytest.approx(20 / 120, abs=0.03)
    last_s: dict[str, float] = {}
    for timed, fault in zip(schedule.faults, crashes, strict=True):
        assert timed.at_s >= last_s.get(fault.node, 0.0) - 0.001  # never while it is away
        last_s[fault.node] = timed.at_s + (fault.for_s or 0.0)
    alone = churn(7, ["n5"], 1_000.0, rates)
    assert list(alone.faults) == [timed for timed in schedule.faults if timed.fault.nodes == ("n5",)]


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda: draw(1, ["server", "a"], 9.0, spare=["sever"]),
            r"spare: there is no node 'sever'\. Did you mean 'server'",
        ),
        (lambda: draw(1, ["a"], 9.0, Swarm(kinds={"crush": 1.0})), r"no kind of fault 'crush'\. Did you mean 'crash'"),
        (lambda: draw(1, ["a"], -9.0), r"they are to be drawn for -9\.0 s"),
        (lambda: Churn(up_s=0.0, down_s=1.0), r"up_s=0\.0.*Give seconds above 0"),
    ],
)
def test_a_draw_of_what_is_not_there(make: Callable[[], object], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        make()
