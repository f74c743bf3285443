"""FedSGD (McMahan et al. 2017, section 2): gradients travel, and the server makes the step.

In each round the chosen clients compute the gradient of one batch at the global model, and the server steps by their
mean, weighted by samples. With all clients and their whole data for a batch it is gradient descent on all data.
"""

from __future__ import annotations

from collections.abc import Sequence

import rolecall as rc
from rolecall.architectures.roles import (
    ClientSelector,
    GradientAggregator,
    GradientTrainer,
    RandomSelector,
    RoundCoordinator,
    Tester,
)
from rolecall.architectures.workloads import AnyModel, client_data, federation, model_element, test_element
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset

__all__ = ("Coordinator", "app")


class Coordinator(RoundCoordinator):
    """Has gradients computed and applied; see `fedavg.Coordinator` for `quorum` and `deadline_s`."""

    selector: ClientSelector = rc.one()
    aggregator: GradientAggregator = rc.one()
    trainers: rc.Group[GradientTrainer] = rc.many()

    def __init__(self, rounds: int, quorum: float = 1.0, deadline_s: float | None = None) -> None:
        super().__init__(rounds)
        self.quorum, self.deadline_s = quorum, deadline_s

    async def round(self, round: int, params: Tensors) -> Tensors:
        """Select, compute gradients, step."""
        chosen = await self.selector.select(round, list(self.trainers))
        there = self.trainers.only([who for who in chosen if who in self.trainers])  # some may have left
        patient = there.within(quorum=float(self.quorum), deadline_s=self.deadline_s)
        gradients = await patient.call(GradientTrainer.gradient, params, round)
        params = await self.aggregator.apply(dict(gradients.items()), params)
        losses = [gradient.loss for gradient in gradients.values()]
        self.log(round=round, clients=len(losses), train_loss=sum(losses) / len(losses))
        await self.after_round(round, params)
        return params


def app(
    model: AnyModel,
    data: str | Dataset | Sequence[Dataset],
    *,
    rounds: int = 100,
    fraction: float = 1.0,
    batch_size: int | None = None,
    lr: float = 0.1,
    test: str | Dataset | None = None,
    clients: int | None = None,
    partition: str = "iid",
    quorum: float = 1.0,
    deadline_s: float | None = None,
    seed: int | None = None,
) -> rc.App:
    """Build an application for `rc.run` from a model and data; see `fedavg.app`.

    `batch_size` is the number of samples each gradient is computed from, None for all that a client has; `lr` is the
    learning rate of the server.
    """
    shares, tested = client_data(data, partition, clients), test_element(data, test)
    server = {
        "coordinator": rc.RoleSpec(
            Coordinator,
            options={"rounds": rounds, "quorum": quorum, "deadline_s": deadline_s},
            elements={"model": model_element(model)} | ({"test_data": tested} if tested else {}),
            extensions=[Tester] if tested else [],
        ),
        "selector": rc.RoleSpec(RandomSelector, options={"fraction": fraction}),
        "aggregator": rc.RoleSpec(GradientAggregator, options={"lr": lr}),
    }
    options = {"batch_size": batch_size, "lr": lr}
    trainers = [
        rc.RoleSpec(GradientTrainer, options=options, elements={"model": model_element(model), "data": share})
        for share in shares
    ]
    return federation("fedsgd", server, trainers, rounds, seed)
