"""One small application, under faults that the seed draws; and what must be so at the end of any of its runs."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.sim.schedule import Schedule
from rolecall.sim.simulate import virtual_loop
from rolecall.sim.swarm import Swarm

from .contract_roles import LEDGER, Called, Caller, Reader

SEEDS = 200 if os.environ.get("ROLECALL_SOAK") else 4
ACTIVE_S = 4.0
CUTS = Swarm(kinds={"cut": 3, "one_way": 2, "silence": 2}, longest_s=0.8, faults=10)
"""Connections break and stall, but no clock and no process does anything odd; no link is given up."""
CUT_S = 0.8
PATIENCE_S = 90.0
"""How long the scripts may take; those that wait in vain take for ever."""
CRASHES = Swarm(
    kinds={"cut": 2, "one_way": 1, "silence": 1, "pause": 1, "slow": 1, "crash": 3, "reset": 3}, longest_s=1.5, faults=8
)
"""Links survive, processes do not."""
PROFILES: Sequence[str | Swarm] = ("gentle", CRASHES, "network", "everything")

property_of = pytest.mark.simulation(seeds=SEEDS)
both_seams = pytest.mark.parametrize("seam", ["fast", "grpc"])


def profile(seed: int) -> str | Swarm:
    """Return the faults of a seed: a quarter of them are such that nobody may notice anything."""
    return PROFILES[seed % len(PROFILES)]


def app(callers: str = "ac", called: str = "b", readers: str = "") -> rc.App:
    """Return the application: a letter for each node, and a role on it."""
    roles: dict[str, dict[str, rc.RoleSpec]] = {}
    for names, name, role in ((callers, "caller", Caller), (called, "called", Called), (readers, "reader", Reader)):
        for node in names:
            roles.setdefault(node, {})[name] = rc.RoleSpec(class_=role)
    relationships: dict[str, dict[str, Any]] = {
        node: {"called": f"{called[0]}/called", "group": "*/called", "peers": "*/caller"} for node in callers
    }
    for node in called:
        relationships.setdefault(node, {})["further"] = f"{called[-1]}/called"
    for node in readers:
        relationships.setdefault(node, {})["callers"] = "*/caller"
    return rc.App(
        name="contract",
        nodes={name: rc.Node(device="edge") for name in sorted({*callers, *called, *readers})},
        roles=roles,
        relationships=relationships,
        on_failure="continue",
    )


Script = Callable[[Any], Awaitable[None]]


@asynccontextmanager
async def running(
    scripts: dict[str, Script],
    *,
    seam: Any = "fast",
    faults: str | Swarm | Schedule | None = None,
    spare: Iterable[str] = (),
    wait: bool = True,
    **shape: str,
) -> AsyncIterator[Any]:
    """Run scripts in the callers of the nodes they are for; afterwards see that nothing is left of it.

    Unless told not to `wait`, see before that all of them have ended, and nobody waits for anybody.
    """
    LEDGER.clear()
    LEDGER.scripts = {f"{node}/caller": script for node, script in scripts.items()}
    options: dict[str, Any] = {"faults": faults} if isinstance(faults, Schedule) else {"swarm": faults}
    async with rc.simulation(app(**shape), seam=seam, swarm_s=ACTIVE_S, spare=spare, **options) as sim:
        yield sim
        if wait:
            with anyio.fail_after(PATIENCE_S):
                await sim.finished()
        if wait and not shape.get("readers"):  # a subscription is answered as long as it lasts
            await require_idle(sim)
    await require_nothing_left(sim)


async def run(scripts: dict[str, Script], **options: Any) -> None:
    """Run scripts until all of them have ended."""
    async with running(scripts, **options):
        pass


async def require_idle(sim: Any) -> None:
    """Raise unless, some seconds after the end of all scripts, nobody waits for anybody."""
    with anyio.move_on_after(40):  # for a call of an idempotent channel somebody waits 30 s
        while sim.world.explain():  # noqa: ASYNC110 - time is virtual
            await anyio.sleep(0.5)
    assert sim.world.explain() == []


async def require_nothing_left(sim: Any) -> None:
    """Raise if there are tasks, connections, links or timers after the end of a simulation."""
    loop = virtual_loop()
    assert loop is not None
    await anyio.sleep(10)
    own, lives = asyncio.current_task(), sim.world.lives.values()
    left = {
        "tasks": [f"{task.get_name()}: {task.get_coro()}" for task in asyncio.all_tasks() if task is not own],
        "connections": [f"{connection.a} - {connection.b}" for connection in sim.world.courier.connections],
        "links": [link for life in lives for link in life.links.exchange.links.items()],
        "timers": list(map(repr, loop.agenda.timers.pending())),
    }
    assert not any(left.values()), left


def rng(sim_seed: int, *of: object) -> random.Random:
    """Return a generator for the load of a seed."""
    return random.Random(f"load {sim_seed} {of}")


class Fates:
    """How the calls of a test have ended: by message, a result or an error."""

    def __init__(self) -> None:
        self.of: dict[int, Any] = {}
        self.sent: list[tuple[str, str, int]] = []

    async def call(self, me: Any, channel: str, n: int, *arguments: Any) -> None:
        """Make a call; keep how it ends. Nothing happens between taking note of it and making it."""
        self.sent.append((str(me.id), channel, n))
        try:
            self.of[n] = await getattr(me.called, channel)(str(me.id), n, *arguments)
        except rc.RolecallError as error:
            self.of[n] = error

    def effects_agree(self, channel: str, *, at_least_once: bool = False) -> None:
        """Raise unless each message took effect as often as its end says."""
        for n, fate in self.of.items():
            effects = len(LEDGER.of(channel, n))
            if not isinstance(fate, Exception):
                assert fate == n
                assert effects >= 1 if at_least_once else effects == 1, f"{n} took effect {effects} times"
            elif isinstance(fate, rc.RoleLost):
                assert effects <= (9 if at_least_once else fate.effect != "none"), f"{n} took effect: {fate!r}"
            else:
                raise AssertionError(f"{n} ended by {fate!r}")
