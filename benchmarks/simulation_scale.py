"""How many messages a second a simulation delivers, how much memory a node takes, and how both grow with the nodes.

    python benchmarks/simulation_scale.py                 # 100, 1,000 and 10,000 nodes, 100 rounds
    python benchmarks/simulation_scale.py --nodes 10000   # those only

Each node hosts a role with four neighbours in a random regular graph. In each round it emits a message of 1 kB to its
neighbours, and goes on when it has one from each of them. Links, handshakes, heartbeats and acknowledgements are all
there; only the messages count. One core, in virtual time, over the fast seam and a network where everything takes 5 to
6 ms, so that 100 rounds are about half a second; making nodes and links is not timed.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import pathlib
import subprocess
import sys
import time
from dataclasses import dataclass

from rich.console import Console

import rolecall as rc
from rolecall.core.topologies import neighbours
from rolecall.runtime.instance import Hosting, RoleInstance
from rolecall.runtime.node import NodeOptions
from rolecall.runtime.relations import Target
from rolecall.sim.network import Network, Path
from rolecall.sim.simulate import simulate, virtual_loop
from rolecall.sim.world import Place, World

MESSAGE_BYTES = 1_000
NEIGHBOURS = 4
WARM_UP_ROUNDS = 3
TOGETHER = 200  # nodes that start at the same time

DELIVERIES_MIN = 25_000
NODE_KB_MAX = 50
GROWTH_MAX = 2.2


class Neighbour(rc.Role):
    """Exchanges messages with its neighbours, round by round."""

    others: rc.Group[Neighbour] = rc.many()
    said = rc.Topic(bytes)

    async def setup(self) -> None:
        """Listen to the neighbours from the beginning."""
        self.heard = self.others.subscribe(Neighbour.said)
        await self.heard.__aenter__()

    async def exchange(self, rounds: int) -> int:
        """Emit and take; return how many messages were taken."""
        message, taken = bytes(MESSAGE_BYTES), 0
        for _ in range(rounds):
            await self.said.emit(message)
            taken += len(await self.heard.collect(self.others))
        return taken


@dataclass(frozen=True)
class Result:
    """What was measured with so many nodes."""

    nodes: int
    deliveries: int
    took_s: float
    virtual_s: float
    node_kb: float

    @property
    def a_second(self) -> float:
        """Deliveries a second of one core."""
        return self.deliveries / self.took_s

    @property
    def each_us(self) -> float:
        """Microseconds for each delivery."""
        return 1e6 * self.took_s / self.deliveries


def resident_bytes() -> int:
    """Return the memory that this process has at the moment."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def measured(nodes: int, rounds: int) -> Result:
    """Exchange messages in a world of its own, and return how that went."""

    async def main() -> Result:
        loop = virtual_loop()
        assert loop is not None
        graph_of(nodes)  # what making graphs takes is not the nodes'
        gc.collect()
        before = resident_bytes()
        network = Network(default=Path(latency_s=0.005, jitter_s=0.001))
        async with World(loop, network) as world:
            roles = await populated(world, nodes)
            await exchanged(world, roles, WARM_UP_ROUNDS)
            gc.collect()
            taken = (resident_bytes() - before) / nodes / 1_000
            gc.freeze()
            began_s, virtual_s = time.process_time(), loop.now_s()
            deliveries = await exchanged(world, roles, rounds)
            return Result(nodes, deliveries, time.process_time() - began_s, loop.now_s() - virtual_s, taken)

    return simulate(main, order="fifo")


def graph_of(nodes: int) -> dict[str, list[str]]:
    """Return who the neighbours of each role are."""
    names = [f"node{number}/peer" for number in range(nodes)]
    return neighbours(f"regular({NEIGHBOURS})", names, 1)


async def populated(world: World, nodes: int) -> list[RoleInstance]:
    """Fill a world with nodes that know their neighbours."""
    graph = graph_of(nodes)
    roles = []
    for name in graph:
        role = rc.RoleId(name)
        options = NodeOptions(relationships={"others": Target(tuple(graph[name]))})
        place = Place(name=role.home, options=options, hostings=[Hosting(id=role, role_class=Neighbour)])
        roles += (await world.open(place)).host({})
    for begin in range(0, nodes, TOGETHER):  # one by one, heartbeats would take longer than all the rest
        await asyncio.wait([world.loop.create_task(world.start(role)) for role in roles[begin : begin + TOGETHER]])
    return roles


async def exchanged(world: World, roles: list[RoleInstance], rounds: int) -> int:
    """Have all nodes exchange so many rounds of messages; return how many were delivered."""
    loop = world.loop
    tasks = [loop.create_task(role.role.exchange(rounds), context=loop.context(role.id.home)) for role in roles]
    await asyncio.wait(tasks)
    return sum(task.result() for task in tasks)


def in_a_process_of_its_own(nodes: int, rounds: int) -> Result:
    """Measure without what an earlier measurement has left behind."""
    command = [sys.executable, __file__, "--nodes", str(nodes), "--rounds", str(rounds), "--raw"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return Result(int(out[0]), int(out[1]), *map(float, out[2:]))


def report(results: list[Result]) -> bool:
    """Print what was measured; return whether all is within its bounds."""
    say = Console(highlight=False, soft_wrap=True).print
    say(f"{'nodes':>8} {'deliveries':>12} {'a second':>10} {'us each':>8} {'kB a node':>10} {'virtual s':>10}")
    for result in results:
        say(
            f"{result.nodes:8,} {result.deliveries:12,} {result.a_second:10,.0f} {result.each_us:8.1f} "
            f"{result.node_kb:10.1f} {result.virtual_s:10.2f}"
        )
    last, growth = results[-1], results[-1].each_us / results[0].each_us
    say(f"\n{last.nodes:,} nodes: {last.a_second:,.0f} deliveries a second (at least {DELIVERIES_MIN:,})")
    say(f"{last.nodes:,} nodes: {last.node_kb:.1f} kB a node (at most {NODE_KB_MAX})")
    if len(results) > 1:
        say(f"cost of a delivery from {results[0].nodes:,} nodes on: {growth:.2f} times (at most {GROWTH_MAX})")
    return last.a_second >= DELIVERIES_MIN and last.node_kb <= NODE_KB_MAX and growth <= GROWTH_MAX


def main() -> int:
    """Measure and print; return 1 where a bound is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--nodes", type=int, nargs="*", default=[100, 1_000, 10_000])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--raw", action="store_true", help=argparse.SUPPRESS)
    told = parser.parse_args()
    if told.raw:
        result = measured(told.nodes[0], told.rounds)
        Console(highlight=False, soft_wrap=True).print(
            f"{result.nodes} {result.deliveries} {result.took_s} {result.virtual_s} {result.node_kb}"
        )
        return 0
    return 0 if report([in_a_process_of_its_own(nodes, told.rounds) for nodes in told.nodes]) else 1


if __name__ == "__main__":
    sys.exit(main())
