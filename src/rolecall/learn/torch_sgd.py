"""Optimizers by name.

Plain SGD is our own: the first step of any of torch's imports its compiler, which takes two seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

import torch
from torch import nn

from rolecall.core.errors import ConfigError, nearest

__all__ = ("SGD", "Optimizer", "OptimizerFactory", "make_optimizer")

Parameters: TypeAlias = Iterable[nn.Parameter]


class Optimizer(Protocol):
    """The two methods training needs; every torch.optim.Optimizer has them."""

    def step(self) -> object: ...

    def zero_grad(self) -> None: ...


OptimizerFactory: TypeAlias = Callable[[Parameters, float], Optimizer]


class SGD:
    """Stochastic gradient descent with momentum: bit for bit `torch.optim.SGD`, in half its time a step."""

    def __init__(self, parameters: Parameters, lr: float, *, momentum: float = 0.0, weight_decay: float = 0.0) -> None:
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._lr, self._momentum, self._weight_decay = lr, momentum, weight_decay
        self._velocities: dict[int, torch.Tensor] = {}

    def zero_grad(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        for at, parameter in enumerate(self._parameters):
            if parameter.grad is not None:
                parameter.add_(self._direction(at, parameter, parameter.grad), alpha=-self._lr)

    def _direction(self, at: int, parameter: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        if self._weight_decay:
            gradient = gradient.add(parameter, alpha=self._weight_decay)
        if not self._momentum:
            return gradient
        if at in self._velocities:
            return self._velocities[at].mul_(self._momentum).add_(gradient)
        return self._velocities.setdefault(at, gradient.clone())


def make_optimizer(
    choice: str | OptimizerFactory, parameters: Parameters, lr: float, *, momentum: float, weight_decay: float
) -> Optimizer:
    """Return the optimizer called `sgd`, `adam` or `adamw`, or what `choice(parameters, lr)` makes."""
    if not isinstance(choice, str):
        return choice(parameters, lr)
    if choice == "sgd":
        return SGD(parameters, lr, momentum=momentum, weight_decay=weight_decay)
    if choice not in ("adam", "adamw"):
        hint = f"Known are sgd, adam, adamw.{nearest(choice, ['sgd', 'adam', 'adamw'])}"
        raise ConfigError(f"optimizer {choice!r}", "there is no such optimizer", hint=hint)
    if momentum:
        raise ConfigError(f"optimizer {choice!r}", f"it takes no momentum (found {momentum})", hint="Use sgd")
    adam = torch.optim.Adam if choice == "adam" else torch.optim.AdamW
    return adam(parameters, lr=lr, weight_decay=weight_decay)
