"""The nodes of a run, or a single standing node, as those see them who operate them: the same on every engine."""

from __future__ import annotations

from collections.abc import Callable, Container, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import anyio

from rolecall.core.errors import ConfigError, nearest
from rolecall.core.ids import RoleId
from rolecall.core.records import Observer

if TYPE_CHECKING:
    from rolecall.fleet.app import App
    from rolecall.fleet.node_role import NodeRole

__all__ = ("Management", "OnManagement", "require_joiner")


class Management:
    """Reaches the native role of each node there is; for the event loop of the run alone.

    `observers` get every record that comes after they were added. Setting `stop` ends the run in good order, or the
    standing node. `audit` is called with what is done from outside: the event, and who, what and why by name.
    """

    def __init__(
        self,
        application: Callable[[], str | None],
        names: Callable[[], Sequence[str]],
        native: Callable[[str], NodeRole],
        *,
        observers: list[Observer],
        stop: anyio.Event,
        join: Callable[[str], Coroutine[Any, Any, None]] | None = None,
        deploy: Callable[[dict[str, Any]], Coroutine[Any, Any, list[RoleId]]] | None = None,
        audit: Callable[..., None] = lambda event, **what: None,
    ) -> None:
        self._application, self._names, self._native, self._join = application, names, native, join
        self._deploy = deploy
        self.observers, self.stop, self.audit = observers, stop, audit

    @property
    def application(self) -> str | None:
        """The name of the application that runs, if one does."""
        return self._application()

    @property
    def names(self) -> list[str]:
        """The nodes there are now."""
        return list(self._names())

    def node(self, name: str) -> NodeRole:
        """Return the native role of a node, to call its services.

        Raises:
            ConfigError: there is no such node.
        """
        names = self.names
        if name not in names:
            raise ConfigError(
                f"node {name!r}",
                f"there is no such node.{nearest(name, names)}",
                hint=f"The nodes are: {', '.join(names) or 'none'}",
            )
        return self._native(name)

    def home(self, role: str) -> NodeRole:
        """Return the native role of the node that a role is on; raises as `node` does."""
        return self.node(role.partition("/")[0])

    async def deploy(self, application: dict[str, Any]) -> list[RoleId]:
        """Start what an expanded application has on the only node there is, as plain data; return the roles.

        Raises:
            ConfigError: the nodes here are those of a run already.
            LifecycleError: the node has an application.
            RolecallError: whatever kept a role from being set up; none is there then.
        """
        if self._deploy is None:
            where, problem = f"application {application.get('name')!r}", "the nodes here are those of a run"
            raise ConfigError(where, problem, hint="Deploy to a node that `rolecall node` runs, or assign roles")
        return await self._deploy(application)

    async def join(self, name: str) -> None:
        """Start a node that the application has as `join: later`; return when its roles are ready.

        Raises:
            ConfigError: there is no such node, it is there already, or who operates it has to start it.
        """
        if self._join is None:
            raise ConfigError(f"node {name!r}", "it is not started from here", hint="Start it with `rolecall node`")
        await self._join(name)


def require_joiner(app: App, name: str, there: Container[str]) -> None:
    """Raise `ConfigError` unless a node of an application may join now."""
    if name not in app.nodes:
        later = [found for found, node in app.nodes.items() if node.join == "later"]
        raise ConfigError(
            f"node {name!r}",
            f"the application has no such node.{nearest(name, app.nodes)}",
            hint=f"Those that may join are: {', '.join(later) or 'none'}",
        )
    if name in there:
        raise ConfigError(f"node {name!r}", "it is there already")


OnManagement = Callable[[Management], None]
