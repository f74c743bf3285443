"""Selectors, configurators, loaders, organizers, monitors and attackers."""

from __future__ import annotations

from typing import Any

import anyio
import anyio.lowlevel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

import rolecall as rc
from rolecall.architectures import fedavg, fedsgd
from rolecall.architectures.roles import (
    Attacker,
    Configuring,
    DataReport,
    EpochsByData,
    FastestSelector,
    Loader,
    LossSelector,
    Monitor,
    Organizer,
    Stalled,
    Trainer,
    TrainingTimeProber,
)
from rolecall.architectures.roles.organizing import balanced
from rolecall.core.errors import ConfigError
from rolecall.learn import MLP, ArrayDataset, Update, load

SIZES = (30, 10, 20, 5)


def shares() -> list[ArrayDataset]:
    random = np.random.default_rng(3)
    return [ArrayDataset(random.normal(size=(n, 4)).astype(np.float32), np.arange(n) % 3, 3) for n in SIZES]


def federation(rounds: int = 3, **options: Any) -> rc.App:
    return fedavg.app(
        rc.ElementSpec(MLP, options={"inputs": 4, "classes": 3}), shares(), rounds=rounds, seed=7, **options
    )


def changed(app: rc.App, node: str, role: str, **changes: Any) -> rc.App:
    roles = {name: dict(of) for name, of in app.roles.items()}
    for name in [name for name in roles if name.startswith(node)]:
        roles[name][role] = structs.replace(roles[name][role], **changes)
    return structs.replace(app, roles=roles)


def added(app: rc.App, node: str, **specs: rc.RoleSpec) -> rc.App:
    return structs.replace(app, roles={**app.roles, node: {**app.roles[node], **specs}})


def trained_in(history: rc.History) -> dict[int, list[str]]:
    """Return who trained in which round."""
    found: dict[int, list[str]] = {}
    for metric in history.metrics:
        if "trained" in metric.values:
            found.setdefault(int(metric.values["round"]), []).append(metric.role.partition("/")[0])
    return {round: sorted(who) for round, who in found.items()}


# ---------------------------------------------------------------------------------------------- selectors


def test_by_loss_takes_those_that_never_trained_and_then_the_worst() -> None:
    class Fixed(Trainer):
        """Reports a loss of its own: the more data, the higher."""

        async def fitted(self, params: rc.Tensors, step: Any, seed: int) -> Update:
            return Update(params, len(self.data), loss=float(len(self.data)))

    app = changed(federation(rounds=4), "client", "trainer", class_=Fixed)
    app = added(app, "server", selector=rc.RoleSpec(LossSelector, options={"fraction": 0.5}))
    history = rc.run_sync(app, checked=True)
    worst = ["client1", "client3"]
    assert trained_in(history) == {1: ["client1", "client2"], 2: ["client3", "client4"], 3: worst, 4: worst}


def test_the_fastest_are_those_whose_probe_was_quickest() -> None:
    class Slow(TrainingTimeProber):
        @rc.task
        async def probe(self) -> float:
            return {"client1": 0.4, "client2": 0.1, "client3": 0.3, "client4": 0.2}[self.id.home]

    app = changed(federation(), "client", "trainer", extensions=[Slow])
    app = added(app, "server", selector=rc.RoleSpec(FastestSelector, options={"fraction": 0.5}))
    history = rc.run_sync(app)
    assert trained_in(history) == {round: ["client2", "client4"] for round in (1, 2, 3)}


def test_a_probe_measures_an_epoch_and_leaves_the_result_alone() -> None:
    app = changed(federation(rounds=1), "client", "trainer", extensions=[TrainingTimeProber])
    app = added(app, "server", selector=rc.RoleSpec(FastestSelector))
    assert rc.run_sync(app).digest == rc.run_sync(federation(rounds=1)).digest


def test_a_share_of_nobody() -> None:
    with pytest.raises(ConfigError, match="LossSelector: fraction is 0"):
        LossSelector(0)


# ---------------------------------------------------------------------------------------------- settings and data


def configured() -> rc.App:
    app = changed(federation(rounds=2), "client", "trainer", extensions=[Loader])
    app = changed(app, "server", "coordinator", extensions=[Configuring])
    return added(app, "server", configurator=rc.RoleSpec(EpochsByData, options={"samples": 60, "most": 5}))


def test_a_configurator_gives_each_client_its_epochs() -> None:
    history = rc.run_sync(configured(), checked=True)
    read = {m.role.partition("/")[0]: m.values["trained"] for m in history.metrics if "trained" in m.values}
    assert read == {"client1": 60, "client2": 50, "client3": 60, "client4": 25}


@given(st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), min_size=1, max_size=12), st.data())
def test_groups_are_of_equal_size_and_hold_everyone(labels: list[list[int]], data: st.DataObject) -> None:
    groups = data.draw(st.integers(1, len(labels)))
    found = balanced([DataReport(sum(each), each) for each in labels], groups)
    assert sorted(at for group in found for at in group) == list(range(len(labels)))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_groups_look_alike() -> None:
    reports = [DataReport(10, [10, 0]), DataReport(10, [10, 0]), DataReport(10, [0, 10]), DataReport(10, [0, 10])]
    assert [sorted({at // 2 for at in group}) for group in balanced(reports, 2)] == [[0, 1], [0, 1]]
    with pytest.raises(ConfigError, match="Organizer: 5 groups of 4 clients"):
        balanced(reports, 5)


def test_an_organizer_asks_the_clients_what_they_hold() -> None:
    class Asking(rc.Extension):
        organizer: Organizer = rc.one()

        async def main(self) -> None:
            for group in await self.organizer.organize(2):
                self.log(group=" ".join(group))

    app = changed(federation(rounds=1), "client", "trainer", extensions=[Loader])
    app = changed(app, "server", "coordinator", extensions=[Asking])
    history = rc.run_sync(added(app, "server", organizer=rc.RoleSpec(Organizer)), checked=True)
    groups = [str(m.values["group"]).split() for m in history.metrics if "group" in m.values]
    assert sorted(who for group in groups for who in group) == [f"client{n}/trainer" for n in (1, 2, 3, 4)]
    assert [len(group) for group in groups] == [2, 2]


# ---------------------------------------------------------------------------------------------- watching


class Stuck(Trainer):
    """Stands still in its second round until somebody notices."""

    monitor: Monitor = rc.one()

    async def fitted(self, params: rc.Tensors, step: Any, seed: int) -> Update:
        if self._done == 1 and self.id.home == "client2":
            async with self.monitor.stalled.subscribe() as noticed:
                await noticed.take()
        return await super().fitted(params, step, seed)


def watched(trainer: type[Trainer], **options: Any) -> rc.App:
    app = changed(federation(rounds=3), "client", "trainer", class_=trainer)
    app = added(app, "server", monitor=rc.RoleSpec(Monitor, options=options))
    known = {"client*": {"monitor": "server/monitor"}} if trainer is Stuck else {}
    return structs.replace(app, relationships={**app.relationships, **known})


@pytest.mark.timeout(10)
def test_a_monitor_says_whose_work_stands_still_while_its_heartbeat_lives() -> None:
    history = rc.run_sync(watched(Stuck, every_s=0.005, stall_s=0.02))
    assert {m.values["stalled"] for m in history.metrics if "stalled" in m.values} >= {"client2/trainer"}
    assert not [m for m in history.metrics if "silent" in m.values]
    assert trained_in(history)[3] == ["client1", "client2", "client3", "client4"]


def test_it_holds_the_newest_report_of_each_and_does_not_keep_the_run_going() -> None:
    class Asking(rc.Extension):
        monitor: Monitor = rc.one()

        async def after_round(self, round: int, params: rc.Tensors) -> None:
            while len(reports := await self.monitor.reports()) < 4 or any(r.round < round for r in reports.values()):
                await anyio.lowlevel.checkpoint()
            self.log(seen=",".join(str(report.samples) for _, report in sorted(reports.items())))

    app = changed(watched(Trainer), "server", "coordinator", extensions=[Asking])
    history = rc.run_sync(app)
    assert [m.values["seen"] for m in history.metrics if "seen" in m.values] == ["30,10,20,5"] * 3
    assert not [m for m in history.metrics if "stalled" in m.values]


@pytest.mark.simulation(seeds=2)
async def test_a_monitor_says_who_does_not_answer_and_who_has_stood_still_for_long(sim_seed: int) -> None:
    app = watched(Trainer, every_s=0.2, stall_s=2.0, answer_s=0.3)
    app = structs.replace(app, nodes={name: rc.Node(device="edge") for name in app.nodes})
    async with rc.simulation(app, seed=1) as sim:
        sim.at(0.01).slow("client3", 200).pause("client2", for_s=1.0)
        await sim.finished()
        found = {(kind, who) for m in sim.metrics for kind, who in m.values.items() if kind in ("silent", "stalled")}
    assert found == {("silent", "client2/trainer"), ("stalled", "client3/trainer")}


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ConfigError, match=r"Monitor: every_s=0"):
        Monitor(every_s=0)
    assert Stalled(rc.RoleId("a/b"), 1.0, 2).done == 2


# ---------------------------------------------------------------------------------------------- an attack


def test_an_attacker_that_reads_along_recovers_samples_and_labels() -> None:
    class Listening(rc.Extension):
        attacker: Attacker = rc.one()

        async def after_round(self, round: int, params: rc.Tensors) -> None:
            while len(await self.attacker.findings()) < 2 * round:
                await anyio.lowlevel.checkpoint()
            for victim, found in (await self.attacker.findings())[-2:]:
                data = {"client1/trainer": own[0], "client2/trainer": own[1]}[victim]
                errors = np.abs(data.x.reshape(len(data), -1) - found.x).max(axis=1)
                assert errors.min() < 1e-4 and data.y[errors.argmin()] == found.label
            await super().after_round(round, params)  # type: ignore[misc]

    digits = load("digits", "train")
    own = [digits.subset(range(at, at + 6)) for at in (0, 6)]
    app = fedsgd.app(MLP, own, rounds=3, batch_size=1, seed=7)
    app = changed(app, "server", "coordinator", extensions=[Listening])
    app = added(app, "server", attacker=rc.RoleSpec(Attacker))
    relationships = {"server": {**app.relationships["server"], "victims": "client*/trainer"}}
    history = rc.run_sync(structs.replace(app, relationships=relationships))
    assert len([m for m in history.metrics if "victim" in m.values]) == 6
