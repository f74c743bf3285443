from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import CallerError, ConfigError, WrongType
from rolecall.core.tensors import Tensors
from rolecall.learn import Krum, Median, Rule, TrimmedMean, Update, WeightedMean
from rolecall.learn.rules import krum_scores

COUNTS = st.integers(5, 9)


def updates(rows: np.ndarray, samples: int = 1) -> list[Update]:
    return [Update(Tensors({"w": row[:4].reshape(2, 2), "b": row[4:]}), samples, loss=1.0) for row in rows]


def rows(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 7))


@given(COUNTS, st.integers(0, 1000))
def test_the_median_is_numpys(count: int, seed: int) -> None:
    given = rows(count, seed)
    assert np.array_equal(Median()(updates(given)).flat, np.median(given, axis=0))


@given(COUNTS, st.integers(0, 1000), st.sampled_from([0.0, 0.1, 0.2, 0.4]))
def test_the_trimmed_mean_leaves_out_both_ends(count: int, seed: int, share: float) -> None:
    given = rows(count, seed)
    cut = int(share * count)
    expected = np.array([np.mean(sorted(column)[cut : count - cut]) for column in given.T])
    assert np.allclose(TrimmedMean(share)(updates(given)).flat, expected, rtol=0, atol=1e-12)


@given(COUNTS, st.integers(0, 1000), st.integers(1, 3))
def test_krum_is_the_published_rule(count: int, seed: int, chosen: int) -> None:
    given, faulty = rows(count, seed), 1
    scores = []
    for i in range(count):
        distances = sorted(float(((given[i] - given[j]) ** 2).sum()) for j in range(count) if j != i)
        scores.append(sum(distances[: count - faulty - 2]))
    assert np.allclose(krum_scores([u.params for u in updates(given)], faulty), scores)
    best = sorted(np.argsort(scores, kind="stable")[:chosen])
    assert np.allclose(Krum(faulty, chosen)(updates(given)).flat, given[best].mean(axis=0), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(0.2), Krum(1), Krum(1, chosen=4)])
def test_robust_rules_bear_one_liar_and_the_mean_does_not(rule: Rule) -> None:
    honest = rows(6) * 0.01
    lied = [*updates(honest), *updates(np.full((1, 7), 1e6))]
    assert np.abs(rule(lied).flat).max() < 0.1
    assert np.abs(WeightedMean()(lied).flat).max() > 1e4


def test_weightings() -> None:
    given = [Update(Tensors({"w": np.full(2, value)}), n, loss) for value, n, loss in [(1.0, 1, 0.5), (4.0, 2, 2.0)]]
    assert WeightedMean()(given)["w"].tolist() == [3.0, 3.0]
    assert WeightedMean("equal")(given)["w"].tolist() == [2.5, 2.5]
    assert WeightedMean("loss")(given)["w"].tolist() == pytest.approx([(1 * 2 + 4 * 0.5) / 2.5] * 2)
    with pytest.raises(ConfigError, match=r"no weighting 'sample'.*Did you mean 'samples'"):
        WeightedMean("sample")  # type: ignore[arg-type]


def test_integers_and_bfloat16_are_reduced_as_the_numbers_they_are() -> None:
    import torch

    def tensors(value: float) -> Tensors:
        return Tensors({"h": torch.full((3,), value, dtype=torch.bfloat16), "n": np.array([int(value)])})

    merged = Median()([Update(tensors(value), 1, 0.0) for value in (1.0, 2.5, 64.0)])
    assert merged.torch()["h"].tolist() == [2.5] * 3 and merged["n"].tolist() == [2]


def test_what_cannot_be_merged() -> None:
    with pytest.raises(ConfigError, match=r"4 updates cannot bear 1 wrong ones. Give 5"):
        Krum(1)(updates(rows(4)))
    with pytest.raises(ConfigError, match=r"share is 0.5"):
        TrimmedMean(0.5)
    with pytest.raises(ConfigError, match="faulty=-1"):
        Krum(-1)
    with pytest.raises(CallerError, match="nothing to reduce"):
        Median()([])
    two = [Update(Tensors({"w": np.zeros(size)}), 1, 0.0) for size in (2, 3)]
    with pytest.raises(WrongType, match=r"Tensors\.reduce"):
        Median()(two)
