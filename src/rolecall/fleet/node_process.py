"""What runs in the process of a node: the node itself, its links, and its agent."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, cast

import anyio
import msgspec

from rolecall.core.ids import RoleId
from rolecall.fleet.agent import Agent, managed_by
from rolecall.fleet.portable import ImportPolicy
from rolecall.fleet.reports import Logged
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.event_loop import run_on_loop
from rolecall.runtime.links import Links
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.watchdog import Watchdog
from rolecall.wire.exchange import ExchangeLimits

__all__ = ("ENTRY", "NodeConfig", "joined", "main")

ENTRY: Final = "rolecall.fleet.node_process:main"


class NodeConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What the process of a node is told by the one that starts it; never by its command line, which others can see.

    `address` is where its conductor listens, `conductor` the id of that role; `log_levels` are those of the loggers
    that have one in the process that starts it.
    """

    name: str
    secret: bytes
    conductor: str
    address: str
    policy: ImportPolicy
    limits: ExchangeLimits
    log_levels: dict[str, int] = {}


def main(config: bytes) -> int:
    """Run a node until its conductor is done with it; return the exit code."""
    told = msgspec.msgpack.decode(config, type=NodeConfig)
    run_on_loop(_run, told)
    return 0


async def _run(config: NodeConfig) -> None:
    async with joined(config) as (node, over):
        _relay_logs(node, config.log_levels)
        with Watchdog(lambda blockage: node.say("warning", blockage.task, str(blockage))):
            await over.wait()


@asynccontextmanager
async def joined(config: NodeConfig) -> AsyncIterator[tuple[Node, anyio.Event]]:
    """Open a node with an agent and join its conductor; the event is set when the conductor is gone."""
    conductor = RoleId(config.conductor)
    options = NodeOptions(role_relationships={NATIVE: {"manager": managed_by(conductor, {})}})
    native = (Agent, {"conductor": conductor, "policy": config.policy})
    over = anyio.Event()

    def lost(peer: str, why: str) -> None:
        if peer == conductor.home:
            over.set()

    async with Node(config.name, options=options, native=native) as node:
        agent = cast(Agent, node.native.role)
        async with Links(
            node, secret=config.secret, on_lost=lost, limits=config.limits, on_unknown=agent.reach
        ) as links:
            agent.links = links
            links.network.bind(conductor, conductor.home, listed=False)
            await links.exchange.listen()
            await links.exchange.dial(config.address, conductor.home)
            yield node, over


class _Relay(logging.Handler):
    """Has what is logged in this process reported."""

    def __init__(self, node: Node) -> None:
        super().__init__()
        self._node, self._agent = node, cast(Agent, node.native.role)

    def emit(self, record: logging.LogRecord) -> None:
        """Report a record; from any thread."""
        try:
            logged = Logged(record.name, record.levelno, self.format(record))
        except Exception:
            self.handleError(record)
        else:
            self._node.on_loop(self._agent.report, logged)


def _relay_logs(node: Node, levels: dict[str, int]) -> None:
    logging.getLogger().handlers[:] = [_Relay(node)]
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
