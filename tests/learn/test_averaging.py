from __future__ import annotations

import numpy as np
import pytest

from rolecall.core.errors import CallerError, WrongType
from rolecall.core.tensors import Tensors
from rolecall.learn.averaging import weighted_mean, weighted_metrics
from rolecall.learn.model import Score, Update


def update(value: float, samples: int, name: str = "w") -> Update:
    return Update(params=Tensors({name: np.full(3, value, np.float32)}), samples=samples, loss=0.0)


def test_weights_are_samples() -> None:
    assert weighted_mean([update(1, 30), update(5, 10)])["w"].tolist() == [2, 2, 2]


def test_takes_any_iterable_and_changes_nothing() -> None:
    updates = [update(1, 1), update(6, 1)]
    assert weighted_mean(each for each in updates)["w"].tolist() == [3.5] * 3
    assert [each.params["w"].tolist() for each in updates] == [[1, 1, 1], [6, 6, 6]]


def test_updates_of_different_models() -> None:
    with pytest.raises(WrongType, match=r"expected 'w' float32 \[3\], found 'v' float32 \[3\]"):
        weighted_mean([update(1, 1), update(1, 1, "v")])


def test_nothing_to_average() -> None:
    with pytest.raises(CallerError, match="nothing to average"):
        weighted_mean([])
    with pytest.raises(CallerError, match="all weights are zero"):
        weighted_mean([update(1, 0)])
    with pytest.raises(CallerError, match="0 scores over 0 samples"):
        weighted_metrics([])


def test_scores_are_those_of_all_samples_together() -> None:
    scores = [Score(accuracy=1.0, loss=0.0, samples=10), Score(accuracy=0.5, loss=2.0, samples=30)]
    assert weighted_metrics(scores) == Score(accuracy=0.625, loss=1.5, samples=40)
