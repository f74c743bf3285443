"""Federated averaging (McMahan et al. 2017, algorithm 1).

A coordinator has some of the trainers train the global model on their own data in each round; the average of what
comes back, weighted by samples, is the next global model. Each responsibility is a role of its own, so that a variant
changes one of them.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import partial

import msgspec

import rolecall as rc
from rolecall.architectures.workloads import AnyModel, client_data, model_element, test_element
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset, Model, Score, Update, weighted_mean, weighted_metrics

__all__ = (
    "Aggregator",
    "ClientSelector",
    "ClientTester",
    "Coordinator",
    "CyclicSelector",
    "FederationState",
    "RandomSelector",
    "Tester",
    "Trainer",
    "app",
)


class Trainer(rc.Role):
    """Trains the global model on the local data."""

    model: Model = rc.element()
    data: Dataset = rc.element()

    def __init__(self, epochs: int = 1, batch_size: int = 32, lr: float = 0.1) -> None:
        self.epochs, self.batch_size, self.lr = epochs, batch_size, lr

    @rc.task
    async def train(self, params: Tensors, round: int) -> Update:
        fit = partial(self.model.fit, epochs=self.epochs, batch_size=self.batch_size, lr=self.lr)
        seeded = partial(fit, seed=self.seed("fit", round))
        return await self.compute(seeded, params, self.data, cost=self.epochs * len(self.data))

    @rc.service
    async def evaluate(self, params: Tensors) -> Score:
        return await self.compute(self.model.evaluate, params, self.data, cost=len(self.data) / 3)


class Aggregator(rc.Role):
    """Averages updates, weighted by the samples behind them."""

    @rc.service
    async def aggregate(self, updates: list[Update]) -> Tensors:
        return await self.compute(weighted_mean, updates)


class ClientSelector(rc.Role):
    """Chooses who trains in a round."""

    @rc.service
    @abstractmethod
    async def select(self, round: int, clients: list[rc.RoleId]) -> list[rc.RoleId]: ...


class RandomSelector(ClientSelector):
    """Chooses a share of the clients at random, at least one."""

    def __init__(self, fraction: float = 1.0) -> None:
        self.fraction = fraction

    @rc.service
    async def select(self, round: int, clients: list[rc.RoleId]) -> list[rc.RoleId]:
        count = max(1, round_half_up(self.fraction * len(clients)))
        chosen = self.rng("select", round).choice(len(clients), count, replace=False)
        return [clients[i] for i in sorted(chosen)]


class CyclicSelector(ClientSelector):
    """Chooses a share of the clients in turn, so that all train equally often."""

    def __init__(self, fraction: float = 1.0) -> None:
        self.fraction = fraction

    @rc.service
    async def select(self, round: int, clients: list[rc.RoleId]) -> list[rc.RoleId]:
        count = max(1, round_half_up(self.fraction * len(clients)))
        first = (round - 1) * count
        return [clients[(first + i) % len(clients)] for i in range(count)]


class FederationState(msgspec.Struct):
    """The rounds done and the global model after them."""

    round: int = 0
    params: Tensors | None = None


class Rounds(rc.Role):
    """What the coordinator and its extensions share: a routine after each round, to be extended with `super()`."""

    async def after_round(self, round: int, params: Tensors) -> None: ...


class Coordinator(Rounds):
    """Runs the rounds."""

    model: Model = rc.element()
    selector: ClientSelector = rc.one()
    aggregator: Aggregator = rc.one()
    trainers: rc.Group[Trainer] = rc.many()
    state = rc.State(FederationState)

    def __init__(self, rounds: int, quorum: float = 1.0, deadline_s: float | None = None) -> None:
        self.rounds, self.quorum, self.deadline_s = rounds, quorum, deadline_s

    @rc.task(resumable=True)
    async def run(self) -> None:
        params = self.state.params or self.model.parameters()
        while self.state.round < self.rounds:
            await self.safe_point()
            params = await self.round(self.state.round + 1, params)
            self.state = FederationState(self.state.round + 1, params)

    async def round(self, round: int, params: Tensors) -> Tensors:
        chosen = self.trainers.only(await self.selector.select(round, list(self.trainers)))
        patient = chosen.within(quorum=float(self.quorum), deadline_s=self.deadline_s)
        updates = list((await patient.call(Trainer.train, params, round)).values())
        params = await self.aggregator.aggregate(updates)
        self.log(round=round, clients=len(updates), train_loss=sum(u.loss for u in updates) / len(updates))
        await self.after_round(round, params)
        return params


class Tester(Rounds):
    """Extends the coordinator: tests the global model on its own data after each round."""

    model: Model = rc.element()
    test_data: Dataset = rc.element()

    async def after_round(self, round: int, params: Tensors) -> None:
        score = await self.compute(self.model.evaluate, params, self.test_data)
        self.log(round=round, accuracy=score.accuracy, loss=score.loss)
        await super().after_round(round, params)


class ClientTester(Rounds):
    """Extends the coordinator: has every trainer test the global model on its data, and weights what they say."""

    trainers: rc.Group[Trainer] = rc.many()

    async def after_round(self, round: int, params: Tensors) -> None:
        score = weighted_metrics((await self.trainers.call(Trainer.evaluate, params)).values())
        self.log(round=round, client_accuracy=score.accuracy, client_loss=score.loss)
        await super().after_round(round, params)


def round_half_up(value: float) -> int:
    """Return the nearest whole number, halves up (Python rounds them to even)."""
    return int(value + 0.5)


def app(
    model: AnyModel,
    data: str | Dataset | Sequence[Dataset],
    *,
    rounds: int = 30,
    fraction: float = 1.0,
    epochs: int = 1,
    batch_size: int = 32,
    lr: float = 0.1,
    test: str | Dataset | None = None,
    clients: int | None = None,
    partition: str = "iid",
    quorum: float = 1.0,
    deadline_s: float | None = None,
    seed: int | None = None,
) -> rc.App:
    """Build an application for `rc.run` from a model and data.

    Args:
        model: an `nn.Module` or its class, or anything that is a `rolecall.learn.Model`.
        data: a data set for each client; or one, or the name of one, which `partition` splits among `clients` (10).
        test: what the global model is tested on after each round; by default the test part of a named data set.
        fraction: the share of clients that train in a round; `quorum` and `deadline_s` say when a round goes on without
            the slowest of them.
    """
    shares, tested = client_data(data, partition, clients), test_element(data, test)
    coordinator = rc.RoleSpec(
        Coordinator,
        options={"rounds": rounds, "quorum": quorum, "deadline_s": deadline_s},
        elements={"model": model_element(model)} | ({"test_data": tested} if tested else {}),
        extensions=[Tester] if tested else [ClientTester],
    )
    trainer_options = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    server = {
        "coordinator": coordinator,
        "selector": rc.RoleSpec(RandomSelector, options={"fraction": fraction}),
        "aggregator": rc.RoleSpec(Aggregator),
    }
    clients_roles = {
        f"client{number}": {
            "trainer": rc.RoleSpec(
                Trainer, options=trainer_options, elements={"model": model_element(model), "data": share}
            )
        }
        for number, share in enumerate(shares, 1)
    }
    return rc.App(
        name="fedavg",
        parameters={"rounds": rounds},
        nodes={"server": rc.Node(), f"client[1-{len(shares)}]": rc.Node()},
        roles={"server": server, **clients_roles},
        relationships={"server": {"trainers": "client*/trainer"}},
        start="server/coordinator.run",
        seed=seed,
    )
