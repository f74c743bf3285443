"""The federated architectures against serial loops that know nothing of rolecall: same seed, same parameters."""

from __future__ import annotations

from typing import Any

import anyio
import numpy as np
import pytest
from msgspec import structs

import rolecall as rc
from rolecall.architectures import fedavg, fedprox, fedsgd, hfl
from rolecall.architectures.roles import GradientTrainer
from rolecall.core.errors import ConfigError
from rolecall.learn import MLP, ArrayDataset, BadUpdate, FedAdam, Gradient, Median, Update

from . import serial_federated as serial


def data(shards: list[tuple[Any, Any]]) -> list[ArrayDataset]:
    return [ArrayDataset(x, y, 3) for x, y in shards]


def same(history: rc.History, expected: dict[str, Any]) -> None:
    assert history.final is not None
    assert list(history.final) == list(expected)
    for name, value in expected.items():
        assert np.allclose(history.final[name], value, rtol=0, atol=1e-12), name


def test_fedavg(net: Any, shards: list[tuple[Any, Any]]) -> None:
    app = fedavg.app(net, data(shards), rounds=4, fraction=0.5, epochs=2, batch_size=5, lr=0.3, seed=7)
    history = rc.run_sync(app, checked=True)
    same(history, serial.fedavg(net, shards, seed=7, rounds=4, count=2, epochs=2, size=5, lr=0.3))


def test_fedavg_with_one_client_is_plain_training(net: Any, shards: list[tuple[Any, Any]]) -> None:
    app = fedavg.app(net, data(shards[:1]), rounds=1, epochs=3, batch_size=4, lr=0.2, seed=5)
    seed = serial.seed_for(5, "client1/trainer", "fit", 1)
    same(rc.run_sync(app), serial.trained(net, serial.of(net), shards[0], epochs=3, size=4, lr=0.2, seed=seed))


def test_fedprox(net: Any, shards: list[tuple[Any, Any]]) -> None:
    app = fedprox.app(net, data(shards), mu=0.5, rounds=3, epochs=2, batch_size=5, lr=0.3, seed=7)
    history = rc.run_sync(app, checked=True)
    same(history, serial.fedavg(net, shards, seed=7, rounds=3, count=4, epochs=2, size=5, lr=0.3, mu=0.5))


def test_fedprox_without_its_term_is_fedavg(net: Any, shards: list[tuple[Any, Any]]) -> None:
    plain, near = (
        rc.run_sync(build(net, data(shards), rounds=2, seed=3, **options))
        for build, options in ((fedavg.app, {}), (fedprox.app, {"mu": 0.0}))
    )
    assert plain.digest == near.digest


@pytest.mark.parametrize("size", [None, 4])
def test_fedsgd(net: Any, shards: list[tuple[Any, Any]], size: int | None) -> None:
    app = fedsgd.app(net, data(shards), rounds=9, fraction=0.75, batch_size=size, lr=0.3, seed=7)
    history = rc.run_sync(app, checked=True)
    same(history, serial.fedsgd(net, shards, seed=7, rounds=9, count=3, size=size, lr=0.3))


def test_fedsgd_with_all_data_is_gradient_descent(net: Any, shards: list[tuple[Any, Any]]) -> None:
    history = rc.run_sync(fedsgd.app(net, data(shards), rounds=6, lr=0.4, seed=1))
    whole = tuple(np.concatenate(part) for part in zip(*shards, strict=True))
    params = serial.of(net)
    for _ in range(6):
        gradient = serial.loss_gradient(net, params, whole, np.arange(len(whole[1])))
        params = {name: value - 0.4 * gradient[name] for name, value in params.items()}
    same(history, params)


def test_hfl(net: Any, shards: list[tuple[Any, Any]]) -> None:
    app = hfl.app(net, data(shards), cells=2, rounds=3, steps=3, batch_size=4, lr=0.3, seed=7)
    history = rc.run_sync(app, checked=True)
    cells = [shards[:2], shards[2:]]
    same(history, serial.hfl(net, cells, seed=7, rounds=3, steps=3, size=4, lr=0.3))


def test_hfl_with_one_cell_is_fedsgd_with_equal_weights(net: Any, shards: list[tuple[Any, Any]]) -> None:
    alike = [(x[:8], y[:8]) for x, y in shards]
    whole = {"batch_size": None, "lr": 0.3, "seed": 4}
    cell = rc.run_sync(hfl.app(net, data(alike), cells=1, rounds=2, steps=3, **whole))  # type: ignore[arg-type]
    flat = rc.run_sync(fedsgd.app(net, data(alike), rounds=6, **whole))  # type: ignore[arg-type]
    assert cell.final is not None and flat.final is not None
    assert cell.final.allclose(flat.final, rtol=0, atol=1e-12)


def test_hfl_needs_a_device_for_each_cell(net: Any, shards: list[tuple[Any, Any]]) -> None:
    with pytest.raises(ConfigError, match=r"hfl: 5 cells for 4 devices. Give each cell a device"):
        hfl.app(net, data(shards), cells=5)


# ---------------------------------------------------------------------------------------------- aggregation


def test_a_server_optimizer_makes_the_step(net: Any, shards: list[tuple[Any, Any]]) -> None:
    app = fedavg.app(net, data(shards), rounds=3, batch_size=5, lr=0.3, optimizer=FedAdam(lr=0.1, tau=0.01), seed=7)
    history = rc.run_sync(app, checked=True)
    x, m, v = serial.of(net), 0.0, 0.01**2
    for round in range(1, 4):
        models = [
            serial.trained(
                net, x, shard, epochs=1, size=5, lr=0.3, seed=serial.seed_for(7, f"client{k}/trainer", "fit", round)
            )
            for k, shard in enumerate(shards, 1)
        ]
        flat = np.concatenate([value.ravel() for value in x.values()])
        average = serial.mean(models, [len(y) for _, y in shards])
        change = np.concatenate([value.ravel() for value in average.values()]) - flat
        m, v = 0.9 * m + 0.1 * change, 0.99 * v + 0.01 * change**2
        flat = flat + 0.1 * m / (np.sqrt(v) + 0.01)
        ends = np.cumsum([value.size for value in x.values()])[:-1]
        x = {n: part.reshape(x[n].shape) for n, part in zip(x, np.split(flat, ends), strict=True)}
    same(history, x)


def test_a_robust_rule_bears_a_client_that_lies(net: Any, shards: list[tuple[Any, Any]]) -> None:
    app = fedavg.app(net, data(shards), rounds=2, rule=Median(), seed=7)
    robust = rc.run_sync(with_trainer(app, "client2", Liar))
    assert robust.final is not None and np.abs(robust.final.flat).max() < 100
    fooled = rc.run_sync(with_trainer(fedavg.app(net, data(shards), rounds=2, seed=7), "client2", Liar))
    assert fooled.final is not None and np.abs(fooled.final.flat).max() > 1e3


# ---------------------------------------------------------------------------------------------- what goes wrong


class Liar(fedavg.Trainer):
    async def fitted(self, params: rc.Tensors, step: Any, seed: int) -> Update:
        return Update(params + 1e6, len(self.data), 0.1)


class Broken(fedavg.Trainer):
    async def fitted(self, params: rc.Tensors, step: Any, seed: int) -> Update:
        return Update(params * float("nan"), len(self.data), 0.1)


class Other(fedavg.Trainer):
    async def fitted(self, params: rc.Tensors, step: Any, seed: int) -> Update:
        return Update(rc.Tensors({"w": np.zeros(2)}), len(self.data), 0.1)


class Leaving(fedavg.Trainer):
    async def fitted(self, params: rc.Tensors, step: Any, seed: int) -> Update:
        self.leave()
        return await super().fitted(params, step, seed)


def with_trainer(app: rc.App, node: str, trainer: type[fedavg.Trainer]) -> rc.App:
    roles = dict(app.roles)
    roles[node] = {"trainer": structs.replace(roles[node]["trainer"], class_=trainer)}
    return structs.replace(app, roles=roles)


def small(net: Any, shards: list[tuple[Any, Any]], **options: Any) -> rc.App:
    return fedavg.app(net, data(shards), rounds=2, seed=7, **options)


@pytest.mark.parametrize(
    ("trainer", "problem"),
    [
        (Broken, r"client2/trainer: its update cannot be averaged: tensor '0.weight' holds values that are infinite"),
        (Other, r"client2/trainer: its update cannot be averaged: .*expected '0.weight'.*found 'w'"),
    ],
)
def test_an_update_that_cannot_be_averaged_ends_the_run_by_name(
    net: Any, shards: list[tuple[Any, Any]], trainer: type[fedavg.Trainer], problem: str
) -> None:
    with pytest.raises(rc.ApplicationFailed, match=problem) as caught:
        rc.run_sync(with_trainer(small(net, shards), "client2", trainer))
    assert isinstance(caught.value.__cause__, BadUpdate)


def test_or_is_left_out_where_the_application_says_so(net: Any, shards: list[tuple[Any, Any]]) -> None:
    app = with_trainer(small(net, shards), "client2", Broken)
    server = dict(app.roles["server"])
    server["aggregator"] = structs.replace(server["aggregator"], options={"bad": "drop"})
    history = rc.run_sync(structs.replace(app, roles={**app.roles, "server": server}))
    models, params = [], serial.of(net)
    for round in (1, 2):
        keep = [k for k in range(4) if k != 1]
        seeds = {k: serial.seed_for(7, f"client{k + 1}/trainer", "fit", round) for k in keep}
        models = [serial.trained(net, params, shards[k], epochs=1, size=32, lr=0.1, seed=seeds[k]) for k in keep]
        params = serial.mean(models, [len(shards[k][1]) for k in keep])
    same(history, params)
    assert [m.values["left_out"] for m in history.metrics if "left_out" in m.values] == ["client2/trainer"] * 2


def test_an_empty_shard_is_an_error_that_names_the_client(net: Any, shards: list[tuple[Any, Any]]) -> None:
    empty = (np.zeros((0, 5)), np.zeros(0, np.int64))
    with pytest.raises(rc.ApplicationFailed, match=r"client2/trainer: .*the data set is empty"):
        rc.run_sync(small(net, [shards[0], empty, shards[2]]))


def test_a_client_that_is_gone_is_an_error_by_name_or_left_out_by_quorum(
    net: Any, shards: list[tuple[Any, Any]]
) -> None:
    with pytest.raises(rc.ApplicationFailed, match=r"client2/trainer: RoleLost"):
        rc.run_sync(with_trainer(small(net, shards), "client2", Leaving))
    history = rc.run_sync(with_trainer(small(net, shards, quorum=0.75), "client2", Leaving))
    assert [m.values["clients"] for m in history.metrics if "clients" in m.values] == [3, 3]


class Going(rc.Role):
    @rc.service
    async def go(self) -> None:
        self.leave()


class GoingTrainer(Going, fedavg.Trainer): ...


class GoingGradientTrainer(Going, GradientTrainer): ...


class Dismissing(fedavg.RandomSelector):
    """Has the second client leave once it is chosen."""

    trainers: rc.Group[Going] = rc.many()

    async def setup(self) -> None:
        self.gone = anyio.Event()

    @trainers.on_leave
    async def note(self, trainer: rc.RoleId) -> None:
        self.gone.set()

    @rc.service
    async def select(self, round: int, clients: list[rc.RoleId]) -> list[rc.RoleId]:
        chosen = await super().select(round, clients)
        if round == 2:
            await self.trainers.at(1).go()
            await self.gone.wait()
        return chosen


@pytest.mark.parametrize(("build", "trainer"), [(fedavg.app, GoingTrainer), (fedsgd.app, GoingGradientTrainer)])
def test_a_client_that_leaves_once_it_is_chosen_is_not_asked(
    net: Any, shards: list[tuple[Any, Any]], build: Any, trainer: type[rc.Role]
) -> None:
    app = build(net, data(shards), rounds=3, seed=7)
    roles = {
        node: {name: structs.replace(spec, class_=trainer) if name == "trainer" else spec for name, spec in its.items()}
        for node, its in app.roles.items()
    }
    roles["server"]["selector"] = structs.replace(roles["server"]["selector"], class_=Dismissing)
    history = rc.run_sync(structs.replace(app, roles=roles))
    assert [m.values["clients"] for m in history.metrics if "clients" in m.values] == [4, 3, 3]


def test_fedprox_says_which_models_it_takes() -> None:
    class Plain:
        def parameters(self) -> rc.Tensors:
            return rc.Tensors({"w": np.zeros(1)})

        def load(self, params: rc.Tensors) -> None: ...

        def fit(self, params: rc.Tensors, data: object, **options: Any) -> Update:
            return Update(params, 1, 0.0)

        def evaluate(self, params: rc.Tensors, data: object) -> None: ...

    with pytest.raises(rc.ElementError, match=r"Plain is no ProximalModel: it has no fit_proximal"):
        rc.run_sync(fedprox.app(Plain, [ArrayDataset([[1.0]], [0])]))
    with pytest.raises(ConfigError, match="mu is -1"):
        fedprox.ProximalTrainer(mu=-1)


# ---------------------------------------------------------------------------------------------- engines


@pytest.mark.parametrize("build", [fedprox.app, fedsgd.app, hfl.app])
def test_every_engine_gives_the_same_bits(build: Any) -> None:
    clients = {"clients": 2, "cells": 1} if build is hfl.app else {"clients": 2}
    app = build(MLP, "digits", rounds=1, partition="dirichlet(0.5)", seed=3, **clients)
    digests = {engine: rc.run_sync(app, engine=engine).digest for engine in ("local", "processes", "sim")}
    assert len(set(digests.values())) == 1, digests


# ---------------------------------------------------------------------------------------------- gradients


class NotANumber(GradientTrainer):
    async def batch(self, params: rc.Tensors, step: int) -> Gradient:
        found = await super().batch(params, step)
        return Gradient(found.values * float("nan"), found.samples, found.loss)


def with_broken(app: rc.App, node: str) -> rc.App:
    roles = dict(app.roles)
    roles[node] = {"trainer": structs.replace(roles[node]["trainer"], class_=NotANumber)}
    return structs.replace(app, roles=roles)


@pytest.mark.parametrize(("build", "node"), [(fedsgd.app, "client2"), (hfl.app, "device2")])
def test_a_gradient_that_is_no_number_is_never_averaged(
    net: Any, shards: list[tuple[Any, Any]], build: Any, node: str
) -> None:
    with pytest.raises(rc.ApplicationFailed, match=rf"{node}/trainer: its update cannot .* '0.weight'"):
        rc.run_sync(with_broken(build(net, data(shards), rounds=2, seed=7), node))


def test_or_it_is_left_out(net: Any, shards: list[tuple[Any, Any]]) -> None:
    app = with_broken(fedsgd.app(net, data(shards), rounds=3, lr=0.3, seed=7), "client4")
    server = {**app.roles["server"]}
    server["aggregator"] = structs.replace(server["aggregator"], options={"lr": 0.3, "bad": "drop"})
    history = rc.run_sync(structs.replace(app, roles={**app.roles, "server": server}))
    same(history, serial.fedsgd(net, shards[:3], seed=7, rounds=3, count=3, size=None, lr=0.3))


def test_a_device_that_is_gone_ends_the_run_by_name(net: Any, shards: list[tuple[Any, Any]]) -> None:
    class Gone(GradientTrainer):
        async def batch(self, params: rc.Tensors, step: int) -> Gradient:
            self.leave()
            return await super().batch(params, step)

    app = hfl.app(net, data(shards), rounds=2, seed=7)
    roles = {**app.roles, "device3": {"trainer": structs.replace(app.roles["device3"]["trainer"], class_=Gone)}}
    with pytest.raises(rc.ApplicationFailed, match=r"device3/trainer: RoleLost"):
        rc.run_sync(structs.replace(app, roles=roles))
