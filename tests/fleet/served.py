"""Two real nodes with an adder each, looked after through the port on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, cast

import anyio

import rolecall as rc
from rolecall.core.records import Observer
from rolecall.core.relationships import many
from rolecall.fleet.deployment import Deployment
from rolecall.fleet.gate import Gate
from rolecall.fleet.journal import Journal
from rolecall.fleet.management import Management
from rolecall.fleet.node_role import NodeRole
from rolecall.runtime.directory import NATIVE, Directory
from rolecall.runtime.instance import Hosting
from rolecall.runtime.node import Node, NodeOptions
from rolecall.runtime.relations import Target

NAMES = ("n1", "n2")


class Operator(rc.Role):
    nodes: rc.Group[NodeRole] = many()


APP = rc.App(
    name="adding",
    nodes={name: rc.Node() for name in NAMES},
    roles={name: {"adder": rc.RoleSpec("managed_roles:Adder")} for name in NAMES},
).expanded()


@asynccontextmanager
async def managed(deployed: Deployment) -> AsyncIterator[Management]:
    """Open the nodes."""
    directory = Directory()
    own = {NATIVE: {"manager": Target(("desk/operator",))}}
    observers: list[Observer] = []

    def observe(record: Any) -> None:
        for observer in observers:
            observer(record)

    async with AsyncExitStack() as stack:
        for name in NAMES:
            options = NodeOptions(role_relationships=own)
            native = (NodeRole, {"app": APP})
            node = await stack.enter_async_context(Node(name, directory, options, [observe], native=native))
            for hosting in deployed.hostings[name]:
                await node.host(hosting).start()
        known = {"operator": {"nodes": Target(tuple(f"{name}/node" for name in NAMES))}}
        desk = await stack.enter_async_context(Node("desk", directory, NodeOptions(role_relationships=known)))
        operator = desk.host(Hosting(id=rc.RoleId("desk/operator"), role_class=Operator))
        await operator.start()

        def native_of(name: str) -> NodeRole:
            return cast(Operator, operator.role).nodes[rc.RoleId(f"{name}/node")]

        yield Management(lambda: APP.name, lambda: NAMES, native_of, observers=observers, stop=anyio.Event())


@asynccontextmanager
async def served(deployed: Deployment) -> AsyncIterator[tuple[Management, str, bytes]]:
    async with managed(deployed) as management:
        journal = Journal()
        management.observers.append(journal.record)
        gate = Gate(lambda: management, journal, "adding")
        async with gate.open() as address:
            yield management, address, gate.secret
