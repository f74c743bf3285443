"""Each server optimizer against algorithm 2 of Reddi et al. 2021, written out in numpy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from rolecall.core.errors import ConfigError
from rolecall.core.tensors import Tensors
from rolecall.learn import FedAdagrad, FedAdam, FedAvgM, FedYogi, OptimizerState, ServerOptimizer

Vector = np.ndarray[Any, Any]
ROUNDS, SIZE = 6, 5


def adagrad(v: Vector, d: Vector) -> Vector:
    return v + d * d


def adam(v: Vector, d: Vector) -> Vector:
    return 0.99 * v + 0.01 * d * d


def yogi(v: Vector, d: Vector) -> Vector:
    return v - 0.01 * d * d * np.sign(v - d * d)


@pytest.mark.parametrize(
    ("optimizer", "second", "beta1"),
    [
        (FedAdagrad(lr=0.3, tau=0.1), adagrad, 0.0),
        (FedAdam(lr=0.3, tau=0.1), adam, 0.9),
        (FedYogi(lr=0.3, tau=0.1), yogi, 0.9),
    ],
)
def test_adaptive_ones(optimizer: ServerOptimizer, second: Callable[[Vector, Vector], Vector], beta1: float) -> None:
    means = np.random.default_rng(1).normal(size=(ROUNDS, SIZE))
    x, m, v = np.ones(SIZE), np.zeros(SIZE), np.full(SIZE, 0.1**2)
    params, state = Tensors({"w": x}), OptimizerState()
    for mean in means:
        d = mean - x
        m = beta1 * m + (1 - beta1) * d
        v = second(v, d)
        x = x + 0.3 * m / (np.sqrt(v) + 0.1)
        params, state = optimizer.step(params, Tensors({"w": mean}), state)
        assert np.allclose(params["w"], x, rtol=0, atol=1e-12)
    assert state.steps == ROUNDS


def test_momentum() -> None:
    means = np.random.default_rng(2).normal(size=(ROUNDS, SIZE))
    x, m = np.ones(SIZE), np.zeros(SIZE)
    params, state = Tensors({"w": x}), OptimizerState()
    for mean in means:
        m = 0.8 * m + (mean - x)
        x = x + 0.5 * m
        params, state = FedAvgM(lr=0.5, beta=0.8).step(params, Tensors({"w": mean}), state)
        assert np.allclose(params["w"], x, rtol=0, atol=1e-12)


def test_without_momentum_and_with_a_rate_of_one_it_is_averaging() -> None:
    mean = Tensors({"w": np.array([3.0, -1.0])})
    assert FedAvgM(beta=0.0).step(Tensors({"w": np.zeros(2)}), mean, OptimizerState())[0] == mean


def test_a_step_leaves_the_state_it_was_given_alone() -> None:
    optimizer, start = FedAdam(), Tensors({"w": np.zeros(2)})
    mean = Tensors({"w": np.ones(2)})
    _, state = optimizer.step(start, mean, OptimizerState())
    assert optimizer.step(start, mean, state)[0] == optimizer.step(start, mean, state)[0]


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"FedAdam: lr is 0"):
        FedAdam(lr=0)
    with pytest.raises(ConfigError, match=r"FedYogi: a beta is 1"):
        FedYogi(beta1=1)
    with pytest.raises(ConfigError, match=r"FedAdagrad: tau is 0"):
        FedAdagrad(tau=0)
