"""From an expanded application to what nodes host: classes imported, relationships resolved for each role."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from rolecall.core.declarations import combined, declarations
from rolecall.core.ids import RoleId
from rolecall.core.patterns import matches, natural_key
from rolecall.core.topologies import neighbours
from rolecall.fleet.app import Alias, App, ElementSpec, Later, Node, RoleSpec, Topology
from rolecall.fleet.importing import load
from rolecall.fleet.marks import Marks
from rolecall.fleet.relations import relationships_of
from rolecall.fleet.structure import role_ids
from rolecall.fleet.values import imported
from rolecall.runtime.directory import NATIVE
from rolecall.runtime.elements import ElementSource
from rolecall.runtime.instance import Hosting
from rolecall.runtime.relations import Target

__all__ = ("Deployment", "deployment", "one_more")


class Deployment(msgspec.Struct, frozen=True):
    """What each node of an application hosts, and the relationships of each role there, by the name of the role."""

    app: App
    hostings: dict[str, list[Hosting]]
    relationships: dict[str, dict[str, dict[str, Target]]]


def deployment(app: App, nodes: Iterable[str] | None = None) -> Deployment:
    """Import and resolve an expanded application, or what of it is on some nodes.

    Raises:
        ConfigError: a class or factory cannot be imported.
        DeclarationError: a role class is declared in a way that cannot work.
    """
    graphs = _Graphs(app)
    hostings, relationships = {}, {}
    for node in app.nodes if nodes is None else nodes:
        roles = app.roles.get(node, {})
        hostings[node] = [_hosting(app, node, name, spec) for name, spec in roles.items()]
        relationships[node] = {name: graphs.relationships(RoleId(f"{node}/{name}")) for name in (*roles, NATIVE)}
    return Deployment(app, hostings, relationships)


def one_more(app: App, role: RoleId, spec: RoleSpec) -> tuple[Hosting, dict[str, Target]]:
    """Import and resolve a role that an expanded application gets while it runs.

    Its relationships are those that the patterns of the application give to a role of its name.

    Raises:
        ConfigError: its name cannot be used, or something cannot be imported.
        DeclarationError: its class is declared in a way that cannot work.
    """
    alone = App(name=app.name, nodes={role.home: Node()}, roles={role.home: {role.name: spec}})
    alone.__dict__["marks"] = Marks(f"assign {role}")
    expanded = alone.expanded(seed=app.seed)
    search = msgspec.structs.replace(expanded, import_from=app.import_from)
    search.__dict__["marks"] = Marks(f"assign {role}")
    hosting = _hosting(search, role.home, role.name, expanded.roles[role.home][role.name])
    return hosting, _Graphs(app).relationships(role)


# ---------------------------------------------------------------------------------------------- roles


def _hosting(app: App, node: str, name: str, spec: RoleSpec) -> Hosting:
    path = ("roles", node, name)
    search = tuple(app.import_from)
    base = load(spec.class_, app.marks.where((*path, "class")), search)
    extensions = tuple(load(e, app.marks.where((*path, "extensions")), search) for e in spec.extensions)
    role_class = combined(base, extensions)
    declarations(role_class)
    elements = {slot: _source(app, (*path, "elements", slot), slot, e) for slot, e in spec.elements.items()}
    options = imported(spec.options, app.marks.where((*path, "options")), search)
    return Hosting(id=RoleId.of(node, name), role_class=role_class, options=options, elements=elements)


def _source(app: App, path: tuple[str, ...], slot: str, spec: ElementSpec) -> ElementSource:
    where, search = app.marks.where(path), tuple(app.import_from)
    return ElementSource(
        make=_maker(where, spec, search),
        options=imported(spec.options, where, search),
        initialize=load(spec.initialize, where, search) if spec.initialize is not None else None,
        shared=repr((slot, spec)) if spec.share == "node" else None,
        save=spec.save,
        restore=spec.restore,
    )


def _maker(where: str, spec: ElementSpec, search: tuple[str, ...]) -> Any:
    if spec.value is not msgspec.UNSET:
        return lambda: spec.value
    return load(spec.class_ if spec.class_ is not None else spec.factory, where, search)


# ---------------------------------------------------------------------------------------------- relationships


class _Graphs:
    """The topologies of an application, each drawn once over the roles there are at the start."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._roles = sorted(role_ids(app), key=natural_key)
        self._drawn: dict[Topology, Mapping[str, list[str]]] = {}

    def relationships(self, role: RoleId) -> dict[str, Target]:
        """Return whom each relationship of a role names."""
        return {name: self._target(role, target) for name, (_, target) in relationships_of(self._app, role).items()}

    def _target(self, role: RoleId, target: str | list[str] | Topology | Alias | Later) -> Target:
        if isinstance(target, Topology):
            return Target(tuple(self._graph(target).get(role, ())))
        if isinstance(target, Alias):
            return Target(alias=target.alias)
        if isinstance(target, Later):
            return Target((target.later,))
        return Target((target,) if isinstance(target, str) else tuple(target))

    def _graph(self, topology: Topology) -> Mapping[str, list[str]]:
        if topology not in self._drawn:
            members = [role for role in self._roles if matches(topology.of, role)]
            self._drawn[topology] = neighbours(topology.topology, members, self._app.seed or 0)
        return self._drawn[topology]
