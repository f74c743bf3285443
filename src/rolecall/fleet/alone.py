"""A node's part of an application without a conductor: for those who deploy to single nodes, in any language."""

from __future__ import annotations

from typing import Any

import anyio

from rolecall.core.ids import RoleId
from rolecall.fleet.agent import Agent, Order, Roster
from rolecall.fleet.portable import received

__all__ = ("deploy_alone",)


async def deploy_alone(agent: Agent, name: str, application: dict[str, Any]) -> list[RoleId]:
    """Have the roles that an expanded application has on the node `name` imported and started; return their ids.

    `agent` stands for the agent of that node. Where one role cannot be set up, all are stopped again.

    Raises:
        ConfigError: the application is wrong, or names what the node does not import.
        LifecycleError: there is an application already.
        RolecallError: whatever setting a role up raised.
    """
    app = received(application)
    deployed = await agent.deploy(Order(application=application, alone=True))
    try:
        contacts = {home: node.address for home, node in app.nodes.items() if node.address is not None and home != name}
        others = {home: [RoleId.of(home, role) for role in app.roles.get(home, ())] for home in contacts}
        await agent.bind(Roster(others, contacts))
        for one in deployed:
            await agent.set_up(one.role)
        for one in deployed:
            if one.has_main:
                _ = await agent.run_main.start(one.role)  # its failure ends the role, and is told in the log
    except BaseException:
        with anyio.CancelScope(shield=True):
            await agent.finish()
        raise
    return [one.role for one in deployed]
