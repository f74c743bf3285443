"""Federated averaging (McMahan et al. 2017, algorithm 1).

A coordinator has some of the trainers train the global model on their own data in each round; the average of what
comes back, weighted by samples, is the next global model. Each responsibility is a role of its own, so that a variant
changes one of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import rolecall as rc
from rolecall.architectures.roles import (
    ClientSelector,
    ClientTester,
    CollectiveAggregator,
    Coordinator,
    CyclicSelector,
    FederationState,
    RandomSelector,
    Rounds,
    Tester,
    Trainer,
)
from rolecall.architectures.workloads import AnyModel, client_data, federation, model_element, test_element
from rolecall.learn import Dataset, Rule, ServerOptimizer

__all__ = (
    "Aggregator",
    "ClientSelector",
    "ClientTester",
    "Coordinator",
    "CyclicSelector",
    "FederationState",
    "RandomSelector",
    "Rounds",
    "Tester",
    "Trainer",
    "app",
)

Aggregator = CollectiveAggregator


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
    rule: Rule | None = None,
    optimizer: ServerOptimizer | None = None,
    seed: int | None = None,
) -> rc.App:
    """Build an application for `rc.run` from a model and data.

    Args:
        model: an `nn.Module` or its class, or anything that is a `rolecall.learn.Model`.
        data: a data set for each client; or one, or the name of one, which `partition` splits among `clients` (10).
        test: what the global model is tested on after each round; by default the test part of a named data set.
        fraction: the share of clients that train in a round; `quorum` and `deadline_s` say when a round goes on without
            the slowest of them.
        rule: what makes one model of many, such as `Median()`; the mean weighted by samples by default.
        optimizer: what the server makes of that, such as `FedAdam()`; by default it is the next model.
    """
    shares, tested = client_data(data, partition, clients), test_element(data, test)
    coordinator = rc.RoleSpec(
        Coordinator,
        options={"rounds": rounds, "quorum": quorum, "deadline_s": deadline_s},
        elements={"model": model_element(model)} | ({"test_data": tested} if tested else {}),
        extensions=[Tester] if tested else [ClientTester],
    )
    given = {"rule": rule, "optimizer": optimizer}
    server = {
        "coordinator": coordinator,
        "selector": rc.RoleSpec(RandomSelector, options={"fraction": fraction}),
        "aggregator": rc.RoleSpec(
            Aggregator, elements={name: rc.ElementSpec(value=value) for name, value in given.items() if value}
        ),
    }
    options = {"epochs": epochs, "batch_size": batch_size, "lr": lr}
    trainers = [
        rc.RoleSpec(Trainer, options=options, elements={"model": model_element(model), "data": share})
        for share in shares
    ]
    return federation("fedavg", server, trainers, rounds, seed)
