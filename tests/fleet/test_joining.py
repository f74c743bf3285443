"""Clients that come while federated averaging is under way are selected, on every engine that starts nodes itself."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import numpy as np
import pytest

import rolecall as rc
from rolecall.architectures import fedavg
from rolecall.core.errors import ConfigError
from rolecall.core.records import LogLine, Metric, Record
from rolecall.fleet.management import Management


def federated(rounds: int) -> rc.App:
    """Return federated averaging of two clients, with a third that may come."""
    model = rc.ElementSpec("rolecall.learn.models:LogisticRegression", options={"dataset": "digits"})
    data = rc.ElementSpec(
        factory="rolecall.learn.data:shard",
        options={"dataset": "digits", "partition": "iid", "index": "$ordinal", "of": "$count"},
    )
    return rc.App(
        name="joining",
        seed=3,
        nodes={"server": rc.Node(), "client[1-2]": rc.Node(), "client3": rc.Node(join="later")},
        roles={
            "server": {
                "coordinator": rc.RoleSpec(fedavg.Coordinator, options={"rounds": rounds}, elements={"model": model}),
                "selector": rc.RoleSpec(fedavg.RandomSelector),
                "aggregator": rc.RoleSpec(fedavg.Aggregator),
            },
            "client*": {"trainer": rc.RoleSpec(fedavg.Trainer, elements={"model": model, "data": data})},
        },
        relationships={"server": {"trainers": "client*/trainer"}},
        start="server/coordinator.run",
    )


class Joiner:
    """Has the third client join after the first round, and ends the run after a round with three."""

    def __init__(self) -> None:
        self.stop, self.begun = anyio.Event(), anyio.Event()
        self.clients: list[int] = []
        self.lines: list[str] = []
        self.management: Management | None = None

    def record(self, record: Record) -> None:
        if isinstance(record, LogLine):
            self.lines.append(f"{record.source}: {record.text}")
        if isinstance(record, Metric) and "clients" in record.values:
            self.clients.append(int(record.values["clients"]))
            self.begun.set()
            if self.clients[-1] == 3:
                self.stop.set()

    def take(self, management: Management) -> None:
        self.management = management

    async def join(self) -> None:
        await self.begun.wait()
        assert self.management is not None
        await self.management.join("client3")
        with pytest.raises(ConfigError, match="node 'client3': it is there already"):
            await self.management.join("client3")
        with pytest.raises(ConfigError, match=r"no such node\. Did you mean 'client3'"):
            await self.management.join("client4")


@pytest.mark.parametrize("engine", ["local", "processes"])
async def test_a_client_that_comes_later_is_selected(engine: str) -> None:
    joiner, ended = Joiner(), list[rc.History]()

    async def run() -> None:
        options: dict[str, Any] = {"observers": [joiner.record], "stop": joiner.stop, "on_management": joiner.take}
        ended.append(await rc.run(federated(100_000), engine=engine, **options))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(joiner.join)
        tasks.start_soon(run)
    assert joiner.clients[0] == 2 and joiner.clients[-1] == 3
    assert "client3: has joined: trainer" in joiner.lines
    final = ended[0].final
    assert final is not None and all(np.isfinite(final[name]).all() for name in final)


@pytest.mark.simulation
@pytest.mark.parametrize("seam", ["fast", "grpc"])
async def test_a_client_that_comes_later_in_virtual_time_is_selected(seam: Any) -> None:
    async with rc.simulation(federated(6), seed=3, seam=seam) as sim:

        def clients() -> list[float | int | str]:
            return [metric.values["clients"] for metric in sim.metrics if "clients" in metric.values]

        await sim.until(clients)
        joined_s = sim.time_s
        await sim.join("client3")
        assert joined_s <= sim.time_s < joined_s + 1
        with pytest.raises(ConfigError, match="node 'client3': it is there already"):
            await sim.join("client3")
        with pytest.raises(ConfigError, match=r"no such node\. Did you mean 'client3'"):
            await sim.join("client4")
        await sim.finished()
        assert len(clients()) == 6 and clients()[0] == 2 and clients()[-1] == 3
        assert [event.node for event in sim.events if event.kind == "join"] == ["client3"]


@pytest.mark.may_block("simulated nodes read their data on the loop of the simulation")
async def test_a_simulated_run_is_managed_on_the_loop_of_the_simulation() -> None:
    clients: list[int] = []
    tasks: list[asyncio.Task[None]] = []

    def record(record: Record) -> None:
        if isinstance(record, Metric) and "clients" in record.values:
            clients.append(int(record.values["clients"]))

    def managed(management: Management) -> None:
        async def join() -> None:
            begun = anyio.Event()
            management.observers.append(lambda found: begun.set() if isinstance(found, Metric) else None)
            await begun.wait()
            await management.join("client3")

        tasks.append(asyncio.get_running_loop().create_task(join()))

    history = await rc.run(federated(6), engine="sim", observers=[record], on_management=managed)
    assert tasks[0].done() and tasks[0].exception() is None
    assert clients[0] == 2 and clients[-1] == 3 and history.status == "ok"


async def test_without_joiners_all_is_as_if_they_were_not_named() -> None:
    history = await rc.run(federated(1))
    assert history.last("clients") == 2


def test_what_starts_must_be_there() -> None:
    app = rc.App(name="x", nodes={"a": rc.Node(), "b": rc.Node(join="later")}, roles={"b": {"r": rc.RoleSpec("m:R")}})
    wrong = rc.App(name="x", nodes=app.nodes, roles=app.roles, start="b/r.run")
    with pytest.raises(ConfigError, match="the node 'b' joins later, so its roles are not there when"):
        wrong.expanded()
    with pytest.raises(ConfigError, match="all of them join later"):
        rc.App(name="x", nodes={"b": rc.Node(join="later")}).expanded()
    with pytest.raises(ConfigError, match=r"nodes\.b\.join: found 'latter', expected 'start' or 'later'"):
        rc.App(name="x", nodes={"b": rc.Node(join="latter")}).expanded()  # type: ignore[arg-type]
