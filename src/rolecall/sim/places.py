"""Who is where in a world: each node has a directory of its own, and asks the world only when it needs to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING

from rolecall.core.errors import RoleLost, UnknownRole
from rolecall.core.ids import RoleId
from rolecall.core.on_use import OnUse
from rolecall.core.patterns import is_pattern, matches
from rolecall.runtime.directory import Directory

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance
    from rolecall.runtime.remote import RemoteRole
    from rolecall.sim.world import World

__all__ = ("Directories", "WorldDirectory")


class WorldDirectory(Directory):
    """What one node knows of the roles of a world: those it has asked for."""

    __slots__ = ("_asked_", "_node", "_world")

    _asked = OnUse(dict[str, None])

    def __init__(self, world: World, node: str) -> None:
        super().__init__()
        self._world, self._node = world, node

    def add(self, instance: RoleInstance) -> None:
        super().add(instance)
        self._world.homes[instance.id] = self._node
        self._world.ended.pop(instance.id, None)

    def remote(self, role: RoleId) -> RemoteRole | None:
        found = self._remotes.get(role)
        if found is None and role not in self._instances and role not in self._gone:
            home = self._world.homes.get(role)
            if home is not None and home != self._node:
                self._bind(role, home, listed=False)
                found = self._remotes.get(role)
            elif home is None and role in self._world.ended:
                self._gone[role] = self._world.ended[role].copied()
        return found

    def loss(self, role: RoleId) -> RoleLost | None:
        self.remote(role)
        return super().loss(role)

    def _matching(self, pattern: str) -> tuple[RoleId, ...]:
        if pattern not in self._asked:
            self._asked[pattern] = None
            if is_pattern(pattern):
                for role, home in self._world.matching(pattern):
                    if home != self._node and role not in self._gone:
                        self._bind(role, home, listed=True)
        return super()._matching(pattern)

    def _alive(self, role: RoleId) -> bool:
        return role in self._instances or self.remote(role) is not None

    def _bind(self, role: RoleId, home: str, *, listed: bool) -> None:
        """Have a role known here, without a word to the roles: what they ask for now they are told now."""
        known = self._remotes.get(role)
        if known is not None:
            known.listed = known.listed or listed
            return
        bulk, self._bulk = self._bulk, True
        try:
            self._world.bind(self._node, role, home, listed=listed)
        finally:
            self._bulk = bulk

    def introduce(self, role: RoleId, home: str) -> None:
        """Have the roles here know of one that is new, or there again, if any has asked for the like."""
        listed = any(is_pattern(asked) and matches(asked, role) for asked in self._asked)
        if listed or role in self._asked or role in self._gone:
            self._world.bind(self._node, role, home, listed=listed)


class Directories:
    """All roles of a world, as if in one directory."""

    def __init__(self, nodes: Callable[[], Iterator[Directory]]) -> None:
        self._nodes = nodes

    def __iter__(self) -> Iterator[RoleInstance]:
        return (instance for directory in self._nodes() for instance in directory)

    def get(self, role: RoleId) -> RoleInstance | None:
        """Return the instance, or None."""
        return next((found for directory in self._nodes() if (found := directory.get(role)) is not None), None)

    def find(self, role: RoleId) -> RoleInstance:
        """Return the instance; raise `RoleLost` for one that has ended, and `UnknownRole` for one there never was."""
        found = self.get(role)
        if found is not None:
            return found
        losses = [loss for directory in self._nodes() if (loss := directory.loss(role)) is not None]
        raise losses[0] if losses else UnknownRole(role, [instance.id for instance in self])

    def loss(self, role: RoleId) -> RoleLost | None:
        """Return the error for a role that has ended, None for one that lives or is not known."""
        found = (directory.loss(role) for directory in self._nodes())
        return None if self.get(role) is not None else next((loss for loss in found if loss is not None), None)

    def bulk(self) -> AbstractContextManager[object]:
        """Announce many changes as one."""
        stack = ExitStack()
        for directory in self._nodes():
            stack.enter_context(directory.bulk())
        return stack

    @property
    def closing(self) -> bool:
        """Whether all roles end together."""
        return any(directory.closing for directory in self._nodes())

    @closing.setter
    def closing(self, value: bool) -> None:
        for directory in self._nodes():
            directory.closing = value
