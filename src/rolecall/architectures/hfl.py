"""Hierarchical federated learning (Abad et al. 2020): devices, cells, and a macro cell.

The devices of a cell do FedSGD with their cell's aggregator; every `steps` of that, the macro cell averages the models
of the cells and hands the mean down again. Links are not sparsified here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import rolecall as rc
from rolecall.architectures.roles import (
    CollectiveAggregator,
    Coordinator,
    GradientTrainer,
    Learner,
    RandomSelector,
    Tester,
)
from rolecall.architectures.workloads import AnyModel, client_data, divided, model_element, test_element
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset, Gradient, Update, WeightedMean, screened
from rolecall.learn.screening import OnBad

__all__ = ("Cell", "app")


class Cell(Learner):
    """The aggregator of a cell: makes `steps` steps by the plain mean of its devices' gradients."""

    devices: rc.Group[GradientTrainer] = rc.many()

    def __init__(self, steps: int = 4, lr: float = 0.1, bad: OnBad = "fail") -> None:
        self.steps, self.lr = steps, lr
        self.bad: OnBad = bad

    @rc.task
    async def train(self, params: Tensors, round: int) -> Update:
        samples, loss = 0, 0.0
        with self.at_work():
            for step in range(self.steps):
                replies = await self.devices.call(GradientTrainer.gradient, params, (round - 1) * self.steps + step + 1)
                params = await self.compute(self.stepped, replies, params)
                samples += sum(gradient.samples for gradient in replies.values())
                loss = sum(gradient.loss for gradient in replies.values()) / len(replies)
        return Update(params, samples, loss)

    def stepped(self, gradients: Mapping[rc.RoleId, Gradient], params: Tensors) -> Tensors:
        """Make a step; runs in a worker thread."""
        good = screened(gradients, params, self.bad)
        return params - Tensors.mean(gradient.values for gradient in good.values()) * self.lr


def app(
    model: AnyModel,
    data: str | Dataset | Sequence[Dataset],
    *,
    cells: int = 2,
    rounds: int = 50,
    steps: int = 4,
    batch_size: int | None = 32,
    lr: float = 0.1,
    test: str | Dataset | None = None,
    clients: int | None = None,
    partition: str = "iid",
    seed: int | None = None,
) -> rc.App:
    """Build an application for `rc.run` from a model and data; see `fedavg.app`.

    The clients are devices of `cells` cells, in order and as evenly as can be. `steps` is the number of steps in a cell
    between two averages over all cells (the paper's H), `batch_size` that of a device's gradient (None: all it has).
    """
    shares, tested = client_data(data, partition, clients), test_element(data, test)
    equal = rc.ElementSpec(WeightedMean, options={"weighting": "equal"})
    macro = {
        "coordinator": rc.RoleSpec(
            Coordinator,
            options={"rounds": rounds},
            elements={"model": model_element(model)} | ({"test_data": tested} if tested else {}),
            extensions=[Tester] if tested else [],
        ),
        "selector": rc.RoleSpec(RandomSelector),
        "aggregator": rc.RoleSpec(CollectiveAggregator, elements={"rule": equal}),
    }
    devices = {
        f"device{number}": {
            "trainer": rc.RoleSpec(
                GradientTrainer,
                options={"batch_size": batch_size, "lr": lr},
                elements={"model": model_element(model), "data": share},
            )
        }
        for number, share in enumerate(shares, 1)
    }
    members = {
        f"cell{number}": {"devices": f"device[{first}-{last}]/trainer"}
        for number, (first, last) in enumerate(divided(len(shares), cells), 1)
    }
    return rc.App(
        name="hfl",
        parameters={"rounds": rounds},
        nodes={"macro": rc.Node(), f"cell[1-{cells}]": rc.Node(), f"device[1-{len(shares)}]": rc.Node()},
        roles={"macro": macro, "cell*": {"cell": rc.RoleSpec(Cell, options={"steps": steps, "lr": lr})}, **devices},
        relationships={"macro": {"trainers": "cell*/cell"}, **members},
        start="macro/coordinator.run",
        seed=seed,
    )
