"""Which roles there are, which node holds each, and who wants to know when that changes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rolecall.core.errors import ConfigError, RoleLost, UnknownRole
from rolecall.core.ids import RoleId
from rolecall.core.on_use import OnUse
from rolecall.core.patterns import is_pattern, matches, natural_key

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance
    from rolecall.runtime.node import Node
    from rolecall.runtime.remote import RemoteRole

__all__ = ("NATIVE", "Directory")

NATIVE = "node"


class Directory:
    """The binding of role ids to the instances of this process."""

    __slots__ = ("_bulk", "_gone_", "_instances", "_remotes", "_selected_", "closing", "nodes")

    _gone = OnUse(dict[RoleId, RoleLost])
    _selected = OnUse(dict[str, tuple[RoleId, ...]])

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self._instances: dict[RoleId, RoleInstance] = {}
        self._remotes: dict[RoleId, RemoteRole] = {}
        self._bulk = False
        self.closing = False
        """Set when all roles end together: nobody is told of the others any more."""

    def __iter__(self) -> Iterator[RoleInstance]:
        return iter(list(self._instances.values()))

    def add(self, instance: RoleInstance) -> None:
        """Bind a role id.

        Raises:
            ConfigError: the id is taken.
        """
        if instance.id in self._instances:
            raise ConfigError(str(instance.id), "there is already a role of this name", hint="Choose another name")
        self._instances[instance.id] = instance
        self._gone.pop(instance.id, None)
        self._changed()

    def remove(self, instance: RoleInstance) -> None:
        """Forget the binding; remember that there was one, so that callers learn what happened."""
        if self._instances.get(instance.id) is instance:
            del self._instances[instance.id]
            self._gone.pop(instance.id, None)  # so that the last to go comes last
            self._gone[instance.id] = instance.lost_error("none")
            self._changed()

    def get(self, role: RoleId) -> RoleInstance | None:
        """Return the instance, or None."""
        return self._instances.get(role)

    def find(self, role: RoleId) -> RoleInstance:
        """Return the instance.

        Raises:
            RoleLost: there was one, and it has ended.
            UnknownRole: there never was one.
        """
        instance = self._instances.get(role)
        if instance is not None:
            return instance
        gone = self._gone.get(role)
        if gone is not None:
            raise gone.copied()
        raise UnknownRole(role, self.roles)

    @property
    def roles(self) -> list[RoleId]:
        """The living roles, here and on other nodes."""
        return [*self._instances, *(role for role, remote in self._remotes.items() if remote.listed)]

    def remote(self, role: RoleId) -> RemoteRole | None:
        """Return what stands for a role that lives on another node, None for any other."""
        return self._remotes.get(role) if self._remotes else None

    def add_remote(self, remote: RemoteRole) -> None:
        """Take note of a role on another node."""
        self._remotes[remote.id] = remote
        self._gone.pop(remote.id, None)
        self._changed()

    def remove_remote(self, remote: RemoteRole, error: RoleLost) -> None:
        """Forget a role on another node; remember that there was one."""
        if self._remotes.get(remote.id) is remote:
            del self._remotes[remote.id]
            self._gone[remote.id] = error
            self._changed()

    def loss(self, role: RoleId) -> RoleLost | None:
        """Return the error for a role that has ended, None for one that lives or is not known."""
        gone = self._gone.get(role)
        return gone.copied() if gone is not None and not self._alive(role) else None

    def last_loss(self, patterns: Sequence[str]) -> RoleLost | None:
        """Return the error for the role that ended last among those that matched, None if there was none."""
        for role in reversed(self._gone):
            if not self._alive(role) and any(matches(pattern, role) for pattern in patterns):
                return self._gone[role].copied()
        return None

    def select(self, patterns: Sequence[str]) -> tuple[RoleId, ...]:
        """Return the living roles that match, each once: patterns in natural order, names as given."""
        chosen: dict[RoleId, None] = {}
        for pattern in patterns:
            chosen.update(dict.fromkeys(self._matching(pattern)))
        return tuple(chosen)

    @contextlib.contextmanager
    def bulk(self) -> Iterator[None]:
        """Announce many changes as one."""
        self._bulk = True
        try:
            yield
        finally:
            self._bulk = False
            self._changed()

    def _matching(self, pattern: str) -> tuple[RoleId, ...]:
        if not is_pattern(pattern):
            role = RoleId(pattern)
            known = self._instances.get(role) or self.remote(role)
            return (known.id,) if known is not None else ()
        found = self._selected.get(pattern)
        if found is None:
            native = pattern.endswith(f"/{NATIVE}")
            names = [r for r in self.roles if (r.name != NATIVE or native) and matches(pattern, r)]
            found = self._selected[pattern] = tuple(sorted(names, key=natural_key))
        return found

    def _alive(self, role: RoleId) -> bool:
        return role in self._instances or role in self._remotes

    def _changed(self) -> None:
        self._selected.clear()
        if not self._bulk and not self.closing:
            for instance in self:
                instance.relations.refresh()
