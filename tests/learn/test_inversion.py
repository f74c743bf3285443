from __future__ import annotations

import numpy as np
import pytest

from rolecall.core.errors import CallerError
from rolecall.learn import MLP, LeNet5, invert, load


def test_the_gradient_of_one_sample_gives_the_sample_away() -> None:
    data, model = load("digits", "train"), MLP(seed=3)
    for at in (0, 17, 400):
        gradient = model.gradient(model.parameters(), data.subset([at]), batch_size=1)
        found = invert(gradient.values)
        assert np.allclose(found.x, data.x[at].ravel(), atol=1e-5)
        assert found.label == data.y[at]


def test_that_of_a_batch_does_not() -> None:
    data, model = load("digits", "train"), MLP(seed=3)
    found = invert(model.gradient(model.parameters(), data, batch_size=32).values)
    assert np.abs(data.x.reshape(len(data), -1) - found.x).max(axis=1).min() > 0.1


def test_models_and_gradients_it_is_of_no_use_for() -> None:
    model = LeNet5()
    with pytest.raises(CallerError, match=r"the first layer is not dense.*0.weight \[6, 1, 5, 5\]"):
        invert(model.parameters())
    with pytest.raises(CallerError, match="no unit of it was active"):
        invert(MLP().parameters() * 0.0)
