"""FedProx (Li et al. 2020, algorithm 2): federated averaging whose clients stay near to the global model.

A client adds `mu / 2 * ||w - w_t||^2` to its loss, so that many local epochs on unlike data do not carry it away; with
`mu` 0 it is federated averaging. Only the trainer differs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from msgspec import structs

import rolecall as rc
from rolecall.architectures import fedavg
from rolecall.architectures.roles import Trainer
from rolecall.architectures.workloads import AnyModel
from rolecall.core.errors import ConfigError
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset, PlanStep, ProximalModel, Update

__all__ = ("ProximalTrainer", "app")


class ProximalTrainer(Trainer):
    """Trains while `mu` holds the model near to the one it was given."""

    model: ProximalModel = rc.element()  # pyright: ignore[reportIncompatibleVariableOverride] - nobody sets it

    def __init__(self, mu: float = 0.1, epochs: int = 1, batch_size: int = 32, lr: float = 0.1) -> None:
        if not mu >= 0:
            raise ConfigError("ProximalTrainer", f"mu is {mu}", hint="It must not be negative")
        super().__init__(epochs, batch_size, lr)
        self.mu = mu

    async def fitted(self, params: Tensors, step: PlanStep, seed: int) -> Update:
        """Train once, with the proximal term."""
        fit = partial(
            self.model.fit_proximal, mu=self.mu, epochs=step.epochs, batch_size=step.batch_size, lr=step.lr, seed=seed
        )
        return await self.compute(fit, params, self.data, cost=step.epochs * len(self.data))


def app(model: AnyModel, data: str | Dataset | Sequence[Dataset], *, mu: float = 0.1, **options: Any) -> rc.App:
    """Build an application; `options` are those of `fedavg.app`, the model is a `ProximalModel` (torch modules are)."""
    plain = fedavg.app(model, data, **options)
    roles = {node: {name: _proximal(spec, mu) for name, spec in of.items()} for node, of in plain.roles.items()}
    return structs.replace(plain, name="fedprox", roles=roles)


def _proximal(spec: rc.RoleSpec, mu: float) -> rc.RoleSpec:
    if spec.class_ is not Trainer:
        return spec
    return structs.replace(spec, class_=ProximalTrainer, options={**spec.options, "mu": mu})
