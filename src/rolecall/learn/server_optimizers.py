"""Server optimizers: what a server makes of the mean of its clients' models (Reddi et al. 2021, algorithm 2).

The difference between the mean and the model the clients started from is taken for a gradient. All of them are pure:
`step` returns the new model and the new state, which is plain data and can be kept, moved and sent.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol, runtime_checkable

import msgspec
import numpy as np

from rolecall.core.errors import ConfigError
from rolecall.core.tensors import Array, Tensors

__all__ = ("FedAdagrad", "FedAdam", "FedAvgM", "FedYogi", "OptimizerState", "ServerOptimizer")


class OptimizerState(msgspec.Struct, frozen=True):
    """What an optimizer remembers: the steps taken, the momentum and the second moment."""

    steps: int = 0
    momentum: Tensors | None = None
    second: Tensors | None = None


@runtime_checkable
class ServerOptimizer(Protocol):
    """Turns the model of a round and the mean of what came back into the model of the next."""

    def step(self, params: Tensors, mean: Tensors, state: OptimizerState) -> tuple[Tensors, OptimizerState]:
        """Return the next model and state; `params` and `mean` are of one spec."""
        ...


class FedAvgM:
    """Momentum on the server (Hsu et al. 2019): `m = beta m + (mean - w)`, `w = w + lr m`."""

    def __init__(self, lr: float = 1.0, beta: float = 0.9) -> None:
        _require_rate("FedAvgM", lr, beta)
        self.lr, self.beta = lr, beta

    def step(self, params: Tensors, mean: Tensors, state: OptimizerState) -> tuple[Tensors, OptimizerState]:
        """Return the next model and state."""
        change = mean - params
        momentum = change if state.momentum is None else state.momentum * self.beta + change
        return params + momentum * self.lr, OptimizerState(state.steps + 1, momentum)


class _Adaptive(ABC):
    """What FedAdagrad, FedAdam and FedYogi share: all but how the second moment moves."""

    def __init__(self, lr: float = 0.1, beta1: float = 0.9, beta2: float = 0.99, tau: float = 1e-3) -> None:
        _require_rate(type(self).__name__, lr, beta1, beta2)
        if not tau > 0:
            raise ConfigError(type(self).__name__, f"tau is {tau}", hint="It must be positive")
        self.lr, self.beta1, self.beta2, self.tau = lr, beta1, beta2, tau

    def step(self, params: Tensors, mean: Tensors, state: OptimizerState) -> tuple[Tensors, OptimizerState]:
        """Return the next model and state."""
        change = mean - params
        momentum = change * (1 - self.beta1)
        if state.momentum is not None:
            momentum = state.momentum * self.beta1 + momentum
        before = state.second or params * 0.0 + self.tau**2
        second = Tensors.reduce([before, change], self._second)
        moved = Tensors.reduce([params, momentum, second], self._moved)
        return moved, OptimizerState(state.steps + 1, momentum, second)

    def _moved(self, rows: Array) -> Array:
        params, momentum, second = rows
        return np.asarray(params + self.lr * momentum / (np.sqrt(second) + self.tau))

    @abstractmethod
    def _second(self, rows: Array) -> Array: ...


class FedAdagrad(_Adaptive):
    """Adagrad on the server: `v = v + d^2` where d is the change of the round (`beta1` 0 in the paper)."""

    def __init__(self, lr: float = 0.1, beta1: float = 0.0, tau: float = 1e-3) -> None:
        super().__init__(lr, beta1, 0.0, tau)

    def _second(self, rows: Array) -> Array:
        return np.asarray(rows[0] + rows[1] ** 2)


class FedAdam(_Adaptive):
    """Adam on the server, without bias correction: `v = beta2 v + (1 - beta2) d^2`."""

    def _second(self, rows: Array) -> Array:
        return np.asarray(self.beta2 * rows[0] + (1 - self.beta2) * rows[1] ** 2)


class FedYogi(_Adaptive):
    """Yogi on the server: `v = v - (1 - beta2) d^2 sign(v - d^2)`, which moves more slowly than Adam's."""

    def _second(self, rows: Array) -> Array:
        square = rows[1] ** 2
        return np.asarray(rows[0] - (1 - self.beta2) * square * np.sign(rows[0] - square))


def _require_rate(name: str, lr: float, *betas: float) -> None:
    if not lr > 0:
        raise ConfigError(name, f"lr is {lr}", hint="It must be positive")
    for beta in betas:
        if not 0 <= beta < 1:
            raise ConfigError(name, f"a beta is {beta}", hint="It is at least 0 and below 1")
