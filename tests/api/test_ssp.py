"""A stale synchronous parallel parameter server: nobody runs more than a few steps ahead of the slowest."""

from __future__ import annotations

import anyio
import msgspec
import numpy as np
import pytest

import rolecall as rc
from rolecall.runtime.native import Native

# --------------------------------------------------------------------------------------------- the algorithm


class Quadratic:
    """Pulls towards a point."""

    def __init__(self, center: float) -> None:
        self.center = center

    def gradient(self, params: rc.Tensors) -> rc.Tensors:
        return rc.Tensors({"x": params["x"] - self.center})


class ServerState(msgspec.Struct):
    params: rc.Tensors = rc.Tensors({"x": np.zeros(3)})
    pushes: int = 0
    widest: int = 0


class Server(rc.Role):
    """Holds the parameters and every worker's clock (Ho et al. 2013); slack 0 is bulk synchronous."""

    workers: rc.Group[Worker] = rc.many()
    state = rc.State(ServerState)

    def __init__(self, slack: int) -> None:
        self.slack, self.clocks, self.ticked = slack, dict[rc.RoleId, int](), anyio.Condition()

    async def setup(self) -> None:
        self.clocks = dict.fromkeys(self.workers, 0)

    @rc.service(concurrent=True)
    async def pull(self) -> rc.Tensors:
        mine = self.clocks[rc.caller()]
        async with self.ticked:
            while mine - min(self.clocks.values()) > self.slack:
                await self.ticked.wait()
        self.state.widest = max(self.state.widest, mine - min(self.clocks.values()))
        return self.state.params

    @rc.service
    async def push(self, change: rc.Tensors) -> None:
        self.state.params = self.state.params + change
        self.state.pushes += 1
        self.clocks[rc.caller()] += 1
        await self.tick()

    @workers.on_leave
    async def forget(self, who: rc.RoleId) -> None:
        del self.clocks[who]
        await self.tick()

    async def tick(self) -> None:
        async with self.ticked:
            self.ticked.notify_all()


class Worker(rc.Role):
    """Pulls, computes and pushes at its own pace."""

    model: Quadratic = rc.element()
    server: Server = rc.one()

    def __init__(self, steps: int, pace: int) -> None:
        self.steps, self.pace = steps, pace

    async def main(self) -> None:
        for step in range(self.steps):
            params = await self.server.pull()
            gradient = await self.compute(self.model.gradient, params)
            for _ in range(self.pace):
                await anyio.sleep(0.0)
            await self.server.push(-0.05 * gradient)
            self.log(step=step)


# ------------------------------------------------------------------------------------------- what must hold

STEPS = 30


class Failing(Worker):
    """Fails after five steps."""

    async def main(self) -> None:
        self.steps = 5
        await super().main()
        raise RuntimeError("out of memory")


class Leaving(Worker):
    """Asks to be taken out after five steps."""

    manager: Manager = rc.one()

    async def main(self) -> None:
        self.steps = 5
        await super().main()
        await self.manager.leaving.put(self.id)
        await anyio.sleep_forever()


class Manager(rc.Role):
    """Takes roles out of the application that ask for it."""

    leaving = rc.Inbox(rc.RoleId)
    node: Native = rc.one("managed")

    async def main(self) -> None:
        await self.node.stop(await self.leaving.take())


def application(slack: int, paces: list[int], last: type[Worker] = Worker) -> rc.App:
    """A server and workers of different pace, the last of them of another class."""
    *paces, last_pace = paces
    workers = {f"gpu{i}": {"worker": spec(Worker, i, pace)} for i, pace in enumerate(paces)}
    workers[f"gpu{len(paces)}"] = {"worker": spec(last, len(paces), last_pace)}
    return rc.App(
        name="ssp",
        nodes={"ps": rc.Node()} | dict.fromkeys(workers, rc.Node()),
        roles={"ps": {"server": rc.RoleSpec(Server, {"slack": slack})}} | workers,
        relationships={"ps": {"workers": "gpu*/worker"}, "gpu*": {"server": "ps/server"}},
    )


def spec(role_class: type[Worker], center: int, pace: int) -> rc.RoleSpec:
    model = rc.ElementSpec(Quadratic, options={"center": center})
    return rc.RoleSpec(role_class, {"steps": STEPS, "pace": pace}, {"model": model}, on_failure="continue")


def managed(app: rc.App, who: str) -> rc.App:
    """Add a manager that may stop the worker of one node."""
    roles = {**app.roles, "ps": {**app.roles["ps"], "manager": rc.RoleSpec(Manager)}}
    relationships = {
        **app.relationships,
        who: {"manager": "ps/manager"},
        "ps/manager": {"managed": rc.Later(f"{who}/node")},
    }
    return msgspec.structs.replace(app, roles=roles, relationships=relationships)


@pytest.mark.parametrize("slack", [0, 1, 3])
async def test_nobody_runs_further_ahead_than_the_slack(slack: int) -> None:
    history = await rc.run(application(slack, [0, 2, 7, 40]), checked=True)
    state = history.states[rc.RoleId("ps/server")]
    assert state.widest == slack, "the fast workers did not use the slack"
    assert state.pushes == 4 * STEPS
    np.testing.assert_allclose(state.params["x"], 1.5, atol=0.3)


async def test_without_slack_the_parameters_are_those_of_a_serial_run() -> None:
    history = await rc.run(application(0, [0, 5, 9]), checked=True)
    x = 0.0
    for _ in range(STEPS):
        x -= 0.05 * sum(x - center for center in range(3))
    np.testing.assert_allclose(history.states[rc.RoleId("ps/server")].params["x"], x, rtol=1e-12)


async def test_a_worker_that_leaves_does_not_hold_up_the_others() -> None:
    with anyio.fail_after(20):
        history = await rc.run(managed(application(2, [0, 1, 0], Leaving), "gpu2"), checked=True)
    assert history.states[rc.RoleId("ps/server")].pushes == 2 * STEPS + 5


async def test_a_worker_that_fails_does_not_hold_up_the_others() -> None:
    with anyio.fail_after(20):
        history = await rc.run(application(2, [0, 1, 0], Failing), checked=True)
    assert history.states[rc.RoleId("ps/server")].pushes == 2 * STEPS + 5
