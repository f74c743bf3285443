"""`examples/own-model-and-data` learns, and what it brings is what the roles ask for."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rolecall as rc
from rolecall.architectures import fedsgd
from rolecall.learn import Differentiable, Model

HERE = Path(__file__).parents[2] / "examples" / "own-model-and-data"


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.setattr(sys, "path", [str(HERE), *sys.path])
    return importlib.import_module("own_model"), importlib.import_module("own_data")


def test_the_application_learns_and_runs_the_same_again() -> None:
    first, again = (rc.run_sync(HERE / "app.yaml", seed=7, sets=["rounds=5"], checked=True) for _ in range(2))
    accuracy = first.last("accuracy")
    assert isinstance(accuracy, float) and accuracy > 0.85
    assert first.digest == again.digest


def test_the_model_is_one_and_its_gradient_is_the_slope_of_its_loss(own: tuple[Any, Any]) -> None:
    model, data = own[0].Softmax(4, 3, seed=1), own[1].habits()
    assert isinstance(model, Model) and isinstance(model, Differentiable)
    params = model.parameters()
    gradient = model.gradient(params, data, batch_size=len(data)).values
    for at in range(0, params.size, 4):
        nudge = np.zeros(params.size)
        nudge[at] = 1e-6
        above, below = (model.evaluate(params.like(params.flat + sign * nudge), data).loss for sign in (1, -1))
        assert gradient.flat[at] == pytest.approx((above - below) / 2e-6, abs=1e-6)


def test_it_does_for_an_architecture_that_wants_gradients(own: tuple[Any, Any]) -> None:
    model = rc.ElementSpec(own[0].Softmax, options={"inputs": 4, "classes": 3})
    app = fedsgd.app(
        model, [own[1].share(at, 3) for at in range(3)], test=own[1].habits("test"), rounds=20, lr=0.5, seed=1
    )
    history = rc.run_sync(app)
    assert history.curve("accuracy")[-1][1] > 0.85


def test_shares_are_whole_people(own: tuple[Any, Any]) -> None:
    shares = [own[1].share(at, 3) for at in range(3)]
    assert [len(set(share.users.tolist())) for share in shares] == [2, 2, 2]
