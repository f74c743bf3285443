"""Configurators: with which settings each client trains in a round."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

import rolecall as rc
from rolecall.architectures.roles.learners import Trainer
from rolecall.architectures.roles.testing import Loader
from rolecall.core.tensors import Tensors
from rolecall.learn import PlanStep, Update

__all__ = ("ClientConfigurator", "Configuring", "EpochsByData")


class ClientConfigurator(rc.Role):
    """Gives every client of a round its settings."""

    @rc.service
    @abstractmethod
    async def configure(self, round: int, clients: list[rc.RoleId]) -> dict[rc.RoleId, PlanStep]: ...


class EpochsByData(ClientConfigurator):
    """Lets clients with less data train for more epochs, so that all read about `samples` samples a round.

    It asks the clients for the size of their data once; they need the extension `Loader`.
    """

    loaders: rc.Group[Loader] = rc.many("trainers")

    def __init__(self, samples: int, most: int = 20, batch_size: int = 32, lr: float = 0.1) -> None:
        self.samples, self.most, self.batch_size, self.lr = samples, most, batch_size, lr

    async def setup(self) -> None:
        self._sizes: dict[rc.RoleId, int] = {}

    @rc.service
    async def configure(self, round: int, clients: list[rc.RoleId]) -> dict[rc.RoleId, PlanStep]:
        new = [client for client in clients if client not in self._sizes]
        reports = await self.loaders.only(new).call(Loader.describe)
        self._sizes.update({client: report.samples for client, report in reports.items()})
        return {client: PlanStep(self._epochs(client), self.batch_size, self.lr) for client in clients}

    def _epochs(self, client: rc.RoleId) -> int:
        return min(self.most, max(1, round(self.samples / max(1, self._sizes[client]))))


class Configuring(rc.Extension):
    """Extends a coordinator: has every client train with the settings that the role `configurator` gives it."""

    configurator: ClientConfigurator = rc.one()
    configured: rc.Group[Trainer] = rc.many("trainers")
    quorum: float
    deadline_s: float | None

    async def ask(self, chosen: list[rc.RoleId], round: int, params: Tensors) -> Mapping[rc.RoleId, Update]:
        """Ask for the settings of the round, and have each client train with its own."""
        steps = await self.configurator.configure(round, chosen)
        patient = self.configured.only(chosen).within(quorum=float(self.quorum), deadline_s=self.deadline_s)
        return await patient.call_each(lambda who: Trainer.train_as.bind(params, round, steps[who]))
