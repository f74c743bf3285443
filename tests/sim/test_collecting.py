"""When garbage is collected: at steps that the run determines, and the later, the more is under way."""

from __future__ import annotations

import gc

import pytest

from rolecall.sim.collecting import Collector


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What generations are collected, in order."""
    generations: list[int] = []
    monkeypatch.setattr(gc, "collect", generations.append)
    return generations


def run(steps: int, pending: int) -> list[int]:
    """Return after how many steps something was collected."""
    collector, at = Collector(), []
    for step in range(0, steps, 1_000):
        if step >= collector.due:
            collector.collect(step, pending)
            at.append(step)
    return at


def test_each_generation_has_its_time(collected: list[int]) -> None:
    at = run(8_020_000, pending=0)
    assert at == list(range(20_000, 8_020_000, 20_000))
    assert collected.count(2) == 1
    assert collected.count(1) == 19
    assert collected[19] == 1


def test_what_is_under_way_is_not_looked_at_again_and_again(collected: list[int]) -> None:
    assert run(1_900_000, pending=40_000) == [20_000, 420_000, 820_000, 1_220_000, 1_620_000]
    assert run(100_000, pending=2_000) == [20_000, 40_000, 60_000, 80_000]
