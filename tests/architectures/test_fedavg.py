from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

import rolecall as rc
from rolecall.architectures import fedavg
from rolecall.core.randomness import seed_for
from rolecall.learn import MLP, ArrayDataset, Update, shard, test_set, weighted_mean

PACKAGED = Path(fedavg.__file__).with_suffix(".yaml")


def small(rounds: int = 2, **changes: object) -> rc.App:
    options = {"rounds": rounds, "clients": 3, "partition": "dirichlet(0.5)", "batch_size": 64, "seed": 7}
    return fedavg.app(MLP, "digits", **{**options, **changes})  # type: ignore[arg-type]


def test_equals_a_serial_reference_bit_for_bit() -> None:
    history = rc.run_sync(small(fraction=0.67, epochs=2), checked=True)
    model_seed, data_seed = seed_for(7, "element", "model"), seed_for(7, "element", "data")
    model = MLP(seed=model_seed)
    params = model.parameters()
    for round in (1, 2):
        select = np.random.Generator(np.random.PCG64(seed_for(7, "server/selector", "select", round)))
        updates: list[Update] = []
        for index in sorted(select.choice(3, 2, replace=False)):
            data = shard("digits", "dirichlet(0.5)", int(index), 3, data_seed)
            seed = seed_for(7, f"client{index + 1}/trainer", "fit", round)
            updates.append(model.fit(params, data, epochs=2, batch_size=64, lr=0.1, seed=seed))
        params = weighted_mean(updates)

    assert history.final == params
    assert history.last("accuracy") == model.evaluate(params, test_set("digits")).accuracy


def test_one_client_is_plain_training() -> None:
    history = rc.run_sync(small(rounds=1, clients=1, partition="iid"), checked=True)
    model = MLP(seed=seed_for(7, "element", "model"))
    data = shard("digits", "iid", 0, 1, seed_for(7, "element", "data"))
    seed = seed_for(7, "client1/trainer", "fit", 1)
    assert history.final == model.fit(model.parameters(), data, batch_size=64, seed=seed).params


async def test_a_seed_gives_one_digest_and_another_seed_another() -> None:
    first, again = await rc.run(small()), await rc.run(small(), checked=True)
    other = await rc.run(small(), seed=8)
    assert first.digest == again.digest != other.digest


def test_the_packaged_application_learns_and_runs_again_from_its_expanded_form(tmp_path: Path) -> None:
    history = rc.run_sync(PACKAGED, seed=1, sets=["rounds=2"])
    history.app.save(tmp_path / "app.yaml")
    again = rc.run_sync(tmp_path / "app.yaml")
    assert again.digest == history.digest
    assert [r for r, _ in history.curve("accuracy")] == [1.0, 2.0]


def test_the_cyclic_selector_changes_who_trains_and_nothing_else() -> None:
    app = rc.App.load(PACKAGED).expanded(["rounds=2", "fraction=0.2"], seed=1)
    selector = rc.RoleSpec(fedavg.CyclicSelector, options={"fraction": 0.2})
    roles = {**app.roles, "server": {**app.roles["server"], "selector": selector}}
    history = rc.run_sync(msgspec.structs.replace(app, roles=roles), checked=True)
    trained = {m.role: m.values["clients"] for m in history.metrics if "clients" in m.values}
    assert trained == {"server/coordinator": 2}


async def test_the_cyclic_selector_takes_everybody_in_turn() -> None:
    cyclic = fedavg.CyclicSelector(0.2)
    clients = [rc.RoleId(f"client{i}/trainer") for i in range(1, 11)]
    rounds = [await cyclic.select(round, clients) for round in range(1, 6)]
    assert [client for chosen in rounds for client in chosen] == clients


def test_clients_evaluate_and_their_metrics_are_weighted() -> None:
    parts = list(_parts([10, 30]))
    history = rc.run_sync(fedavg.app(MLP, parts, rounds=1, seed=3), checked=True)
    assert history.final is not None
    model = MLP()
    scores = [model.evaluate(history.final, part) for part in parts]
    expected = (scores[0].accuracy * 10 + scores[1].accuracy * 30) / 40
    assert history.last("client_accuracy") == pytest.approx(expected)


def test_both_ways_of_testing_can_extend_one_coordinator() -> None:
    app = small(rounds=1).expanded()
    coordinator = app.roles["server"]["coordinator"]
    both = msgspec.structs.replace(coordinator, extensions=[fedavg.Tester, fedavg.ClientTester])
    roles = {**app.roles, "server": {**app.roles["server"], "coordinator": both}}
    history = rc.run_sync(msgspec.structs.replace(app, roles=roles), checked=True)
    assert history.last("accuracy") is not None
    assert history.last("client_accuracy") is not None


def test_a_round_goes_on_without_a_client_that_fails_where_a_quorum_allows_it() -> None:
    class Broken(fedavg.Trainer):
        async def train(self, params: rc.Tensors, round: int) -> Update:
            raise rc.Refused("not today")

    app = small(rounds=1, quorum=0.6).expanded()
    spec = msgspec.structs.replace(app.roles["client2"]["trainer"], class_=Broken)
    history = rc.run_sync(msgspec.structs.replace(app, roles={**app.roles, "client2": {"trainer": spec}}))
    assert history.last("clients") == 2

    strict = small(rounds=1).expanded()
    strict = msgspec.structs.replace(strict, roles={**strict.roles, "client2": {"trainer": spec}})
    with pytest.raises(rc.ApplicationFailed, match="client2/trainer: Refused: not today"):
        rc.run_sync(strict)


def test_accepts_a_torch_module_and_shards_in_memory() -> None:
    from torch import nn

    class Net(nn.Sequential):
        def __init__(self) -> None:
            super().__init__(nn.Flatten(), nn.Linear(64, 10))

    history = rc.run_sync(fedavg.app(Net, list(_parts([40, 40])), rounds=2, seed=1, test=next(_parts([20]))))
    assert len(history.curve("accuracy")) == 2


def _parts(sizes: list[int]) -> Iterator[ArrayDataset]:
    whole = shard("digits", "iid", 0, 1, 0)
    start = 0
    for size in sizes:
        yield whole.subset(range(start, start + size))
        start += size
