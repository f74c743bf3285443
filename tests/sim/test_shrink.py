"""A failing schedule becomes a small one."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.sim.faults import Crash, Cut, Heal, Partition
from rolecall.sim.schedule import Schedule, Timed
from rolecall.sim.shrink import shrink
from rolecall.sim.swarm import draw


def crashes(schedule: Schedule) -> set[str]:
    return {timed.fault.node for timed in schedule.faults if isinstance(timed.fault, Crash)}


def test_only_what_matters_is_left() -> None:
    noise = [Timed(0.1 * number, Cut("a", "b", 0.5)) for number in range(20)]
    both = Schedule((*noise, Timed(0.123, Crash("a", 3.2)), Timed(1.777, Crash("b", 0.4))))
    shrunk = shrink(both, lambda schedule: crashes(schedule) == {"a", "b"})
    assert [str(timed) for timed in shrunk.schedule.faults] == [
        "0 s: crash a none silence for 0.01 s",
        "2 s: crash b none silence for 0.01 s",
    ] or crashes(shrunk.schedule) == {"a", "b"}
    assert len(shrunk.schedule.faults) == 2
    assert shrunk.is_minimal
    assert shrunk.runs < 100


def test_what_fails_without_any_fault_needs_none() -> None:
    shrunk = shrink(draw(3, ["a", "b", "c"], 10.0), lambda schedule: True)
    assert shrunk.schedule == Schedule()
    assert shrunk.runs == 1


def test_the_length_that_matters_is_kept() -> None:
    def fails(schedule: Schedule) -> bool:
        return any(isinstance(timed.fault, Cut) and (timed.fault.for_s or 0) > 1.0 for timed in schedule.faults)

    shrunk = shrink(Schedule((Timed(3.14159, Cut("a", "b", 7.7)), Timed(4.0, Heal()))), fails)
    (timed,) = shrunk.schedule.faults
    assert timed.at_s == 3.0
    assert isinstance(timed.fault, Cut) and 1.0 < (timed.fault.for_s or 0) <= 2.0


def test_a_partition_loses_nodes() -> None:
    def fails(schedule: Schedule) -> bool:
        groups = [timed.fault.groups for timed in schedule.faults if isinstance(timed.fault, Partition)]
        return any("a" in first and "b" in second for first, second in groups)

    shrunk = shrink(Schedule((Timed(1.0, Partition((("a", "c", "d"), ("b", "e")))),)), fails)
    (timed,) = shrunk.schedule.faults
    assert isinstance(timed.fault, Partition) and timed.fault.groups[0] == ("a",)


def test_it_ends_when_the_runs_are_spent() -> None:
    schedule = draw(5, ["a", "b", "c", "d"], 10.0)
    asked = []
    shrunk = shrink(schedule, lambda tried: bool(asked.append(tried)), runs_max=5)
    assert (shrunk.runs, len(asked), shrunk.is_minimal) == (5, 5, False)
    assert shrunk.schedule == schedule


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.sets(st.integers(0, 30), min_size=1, max_size=3))
def test_what_is_left_fails_and_nothing_can_be_left_out(seed: int, needed: set[int]) -> None:
    schedule = draw(seed, ["a", "b", "c", "d"], 10.0)
    kinds = {type(schedule.faults[number % len(schedule.faults)].fault) for number in needed if schedule.faults}

    def fails(tried: Schedule) -> bool:
        return kinds <= {type(timed.fault) for timed in tried.faults}

    shrunk = shrink(schedule, fails, runs_max=2_000)
    assert shrunk.is_minimal
    assert fails(shrunk.schedule)
    assert len(shrunk.schedule.faults) == len(kinds)
