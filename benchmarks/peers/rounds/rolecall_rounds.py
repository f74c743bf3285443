"""rolecall: federated averaging as it comes, on the engine `processes`."""

from __future__ import annotations

import itertools

from peers.rounds.work import BATCH_SIZE, CLIENTS, LR, lenet, share, test_share

import rolecall as rc
from rolecall.architectures.fedavg import Aggregator, Coordinator, RandomSelector, Tester, Trainer


def rounds(count: int) -> list[float]:
    """Run so many rounds after a first one, and return the seconds of each."""
    history = rc.run_sync(application(count + 1), engine="processes")
    ends_s = [metric.time_s for metric in history.metrics if "accuracy" in metric.values]
    return [end - begin for begin, end in itertools.pairwise(ends_s)]


def application(count: int) -> rc.App:
    """Return the application: a server and ten clients, all of whom train in every round."""
    model = rc.ElementSpec(factory=lenet)
    coordinator = rc.RoleSpec(
        Coordinator,
        options={"rounds": count},
        elements={"model": model, "test_data": rc.ElementSpec(factory=test_share)},
        extensions=[Tester],
    )
    server = {
        "coordinator": coordinator,
        "selector": rc.RoleSpec(RandomSelector, options={"fraction": 1.0}),
        "aggregator": rc.RoleSpec(Aggregator),
    }
    data = rc.ElementSpec(factory=share, options={"index": "$ordinal"})
    options = {"epochs": 1, "batch_size": BATCH_SIZE, "lr": LR}
    trainer = rc.RoleSpec(Trainer, options=options, elements={"model": model, "data": data})
    return rc.App(
        name="rounds",
        nodes={"server": rc.Node(), f"client[1-{CLIENTS}]": rc.Node()},
        roles={"server": server, "client*": {"trainer": trainer}},
        relationships={"server": {"trainers": "client*/trainer"}},
        start="server/coordinator.run",
        seed=1,
    )
