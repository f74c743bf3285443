"""The role that every node carries: its status, its roles and what changes among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import msgspec

from rolecall.core.channels import service
from rolecall.core.context import CURRENT, chain
from rolecall.core.errors import LifecycleError, UnknownRole
from rolecall.core.ids import RoleId
from rolecall.core.role import Role
from rolecall.core.topics import Topic

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance
    from rolecall.runtime.node import Node

__all__ = ("Native", "RoleStatus")


class RoleStatus(msgspec.Struct, frozen=True):
    """The status of a role."""

    role: RoleId
    status: str


class Native(Role):
    """The management of a node, as a role: `<node>/node`.

    Open to the members of the relationship `manager` only.
    """

    changed = Topic(RoleStatus)

    @service(allow="manager")
    async def roles(self) -> list[RoleStatus]:
        """Return the roles of the node with their status."""
        return [RoleStatus(instance.id, instance.status.value) for instance in self._node.instances]

    @service(allow="manager", concurrent=True)
    async def pause(self, role: RoleId) -> None:
        """Pause a role; returns when nothing of it runs."""
        instance = self._instance(role)
        waiting = self._waiting(instance)
        if waiting is not None:
            raise LifecycleError(f"{role} cannot be paused by a call for which its own handler {waiting} waits.")
        await instance.pause()

    @service(allow="manager")
    async def resume(self, role: RoleId) -> None:
        """Let a paused role take work again."""
        await self._instance(role).resume()

    @service(allow="manager", concurrent=True)
    async def stop(self, role: RoleId) -> None:
        """Stop a role; returns when it has stopped, or at once to a handler of the role itself."""
        instance = self._instance(role)
        if self._waiting(instance) is not None:
            self._node.stop_soon(instance)
        else:
            await instance.stop()

    def role_ended(self, instance: RoleInstance) -> None:
        """Take note that a role of the process has ended; for nodes that tell others."""

    @property
    def _node(self) -> Node:
        # The one role that knows which runtime hosts it: it is part of that runtime.
        return cast("RoleInstance", self._host).node

    def _instance(self, role: RoleId) -> RoleInstance:
        if role == self.id:
            raise LifecycleError(f"{role} is the node's own role; it lives as long as the node.")
        found: dict[RoleId, RoleInstance] = {instance.id: instance for instance in self._node.instances}
        if role not in found:
            raise UnknownRole(role, found)
        return found[role]

    @staticmethod
    def _waiting(instance: RoleInstance) -> str | None:
        """Return which handler of a role waits for the current call, if one does."""
        handlers = {id(call) for call in instance.running}
        return next((call.where for call in chain(CURRENT.get()) if id(call) in handlers), None)
