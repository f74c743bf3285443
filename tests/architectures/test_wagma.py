from __future__ import annotations

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

import rolecall as rc
from rolecall.architectures import wagma

from . import serial
from .small import MODEL, SEED, assert_same, models, nodes, shares, start, with_class


class Witness(wagma.WAGMAWorker):
    """Writes down after which step each model in its group's sum was; some steps take longer than others."""

    async def descend(self, params: rc.Tensors, round: int) -> rc.Tensors:
        for _ in range(int(self.rng("rest", round).integers(12))):
            await anyio.lowlevel.checkpoint()
        return await super().descend(params, round)

    def merge(self, trained: rc.Tensors, total: wagma.GroupSum, round: int) -> rc.Tensors:
        self.log(round=round, group=" ".join(f"{who.home}:{step}" for who, step in total.steps.items()))
        return super().merge(trained, total, round)


def diaries(history: rc.History, names: list[str], rounds: int) -> dict[str, list[dict[str, int] | None]]:
    """Return what each node's sum was of in each step, None where it was the mean of all."""
    found: dict[str, list[dict[str, int] | None]] = {name: [None] * rounds for name in names}
    for metric in history.metrics:
        if "group" in metric.values:
            pairs = (item.split(":") for item in str(metric.values["group"]).split())
            found[metric.role.home][int(metric.values["round"])] = {who: int(step) for who, step in pairs}
    return found


@pytest.mark.parametrize(("count", "size", "tau"), [(4, 2, 5), (8, 4, 100), (6, 2, 4), (5, 4, 3)])
def test_equals_the_serial_replay_of_its_diary(count: int, size: int, tau: int) -> None:
    app = wagma.app(MODEL, shares(count), size=size, tau=tau, rounds=12, batch_size=4, lr=0.2, seed=SEED)
    history = rc.run_sync(with_class(app, Witness), checked=True)
    sums = diaries(history, list(nodes(count, lr=0.2)), 12)
    groups = [group for diary in sums.values() for group in diary if group]
    assert all(len(group) <= size for group in groups)
    assert_same(models(history), serial.wagma(start(), nodes(count, lr=0.2), sums))


def test_who_is_late_counts_with_what_it_had_before() -> None:
    class Slow(Witness):
        async def descend(self, params: rc.Tensors, round: int) -> rc.Tensors:
            await anyio.sleep(0.01)
            return await super().descend(params, round)

    app = wagma.app(MODEL, shares(4), size=4, tau=100, rounds=6, batch_size=4, lr=0.2, seed=SEED)
    history = rc.run_sync(with_class(with_class(app, Witness), Slow, "node3"), checked=True)
    sums = diaries(history, list(nodes(4, lr=0.2)), 6)
    stale = [step - group["node3"] for step, group in enumerate(sums["node1"]) if group]
    assert max(stale) >= 1, "nobody was late"
    assert_same(models(history), serial.wagma(start(), nodes(4, lr=0.2), sums))


def test_all_hold_one_model_after_everybody_averaged_with_everybody() -> None:
    app = wagma.app(MODEL, shares(5), tau=4, rounds=8, lr=0.2, seed=SEED)
    assert len({vector.tobytes() for vector in models(rc.run_sync(app)).values()}) == 1


@given(st.integers(1, 40), st.sampled_from([2, 4, 8]), st.integers(0, 20))
def test_groups_are_a_partition(count: int, size: int, step: int) -> None:
    groups = {tuple(wagma.group_of(rank, step, size, count)) for rank in range(count)}
    assert sorted(rank for group in groups for rank in group) == list(range(count))
    assert all(len(group) <= size for group in groups)
    if count & (count - 1) == 0 and count >= size:
        assert all(len(group) == size for group in groups)


def test_news_of_one_reaches_all_within_a_few_groups() -> None:
    knows = np.eye(16, dtype=bool)
    for step in range(2):
        knows = np.array([knows[wagma.group_of(rank, step, 4, 16)].any(axis=0) for rank in range(16)])
    assert knows.all()


def test_a_group_size_that_is_no_power_of_two() -> None:
    with pytest.raises(rc.RolecallError, match="size is 3"):
        rc.run_sync(wagma.app(MODEL, shares(3), size=3, rounds=1, seed=SEED))


class Leaving(wagma.GroupAggregator):
    """Ends when its model is asked for in the second step."""

    @rc.service(concurrent=True, allow="members")
    async def contribute(self) -> wagma.Contribution:
        if self.last is not None and self.last.step > 0:
            self.leave()
            await anyio.sleep_forever()
        return await super().contribute()


async def test_a_lost_member_ends_the_run_by_name() -> None:
    app = wagma.app(MODEL, shares(4), size=4, tau=100, rounds=30, seed=SEED).expanded()
    app = with_class(app, Leaving, "node2", role="group")
    with anyio.fail_after(10), pytest.raises(rc.ApplicationFailed, match="node2/group"):
        await rc.run(replace(app, on_failure="fail"))
