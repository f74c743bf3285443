"""From an expanded application to what nodes host: classes imported, relationships resolved per node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from rolecall.core.declarations import combined, declarations
from rolecall.core.ids import RoleId
from rolecall.core.patterns import matches, natural_key
from rolecall.core.topologies import neighbours
from rolecall.fleet.app import Alias, App, ElementSpec, Later, RoleSpec, Topology
from rolecall.fleet.importing import load
from rolecall.runtime.elements import ElementSource
from rolecall.runtime.instance import Hosting
from rolecall.runtime.relations import Target

__all__ = ("Deployment", "deployment")


class Deployment(msgspec.Struct, frozen=True):
    """What each node of an application hosts and knows."""

    app: App
    hostings: dict[str, list[Hosting]]
    relationships: dict[str, dict[str, Target]]
    role_relationships: dict[str, dict[str, dict[str, Target]]]


def deployment(app: App) -> Deployment:
    """Import and resolve an expanded application.

    Raises:
        ConfigError: a class or factory cannot be imported.
        DeclarationError: a role class is declared in a way that cannot work.
    """
    hostings = {
        node: [_hosting(app, node, name, spec) for name, spec in app.roles.get(node, {}).items()] for node in app.nodes
    }
    roles = sorted((h.id for found in hostings.values() for h in found), key=natural_key)
    by_node: dict[str, dict[str, Target]] = {node: {} for node in app.nodes}
    by_role: dict[str, dict[str, dict[str, Target]]] = {node: {} for node in app.nodes}
    for key, relations in app.relationships.items():
        for name, target in relations.items():
            if isinstance(target, Topology):
                _relate_topology(app, roles, key, name, target, by_role)
            else:
                _relate(roles, key, name, _target(target), by_node, by_role)
    return Deployment(app, hostings, by_node, by_role)


# ---------------------------------------------------------------------------------------------- roles


def _hosting(app: App, node: str, name: str, spec: RoleSpec) -> Hosting:
    where = f"roles.{node}.{name}"
    base = load(spec.class_, f"{where}.class", app.import_from)
    extensions = tuple(load(e, f"{where}.extensions", app.import_from) for e in spec.extensions)
    role_class = combined(base, extensions)
    declarations(role_class)
    elements = {slot: _source(app, f"{where}.elements.{slot}", slot, e) for slot, e in spec.elements.items()}
    return Hosting(id=RoleId.of(node, name), role_class=role_class, options=spec.options, elements=elements)


def _source(app: App, where: str, slot: str, spec: ElementSpec) -> ElementSource:
    make = _maker(app, where, spec)
    initialize = None
    if spec.initialize is not None:
        initialize = load(spec.initialize, f"{where}.initialize", app.import_from)
    shared = repr((slot, spec)) if spec.share == "node" else None
    return ElementSource(
        make=make, options=spec.options, initialize=initialize, shared=shared, save=spec.save, restore=spec.restore
    )


def _maker(app: App, where: str, spec: ElementSpec) -> Any:
    if spec.value is not msgspec.UNSET:
        return lambda: spec.value
    if spec.class_ is not None:
        return load(spec.class_, f"{where}.class", app.import_from)
    return load(spec.factory, f"{where}.factory", app.import_from)


# ---------------------------------------------------------------------------------------------- relationships


def _target(target: str | list[str] | Alias | Later) -> Target:
    if isinstance(target, Alias):
        return Target(alias=target.alias)
    if isinstance(target, Later):
        return Target((target.later,))
    return Target((target,) if isinstance(target, str) else tuple(target))


def _relate(
    roles: list[RoleId],
    key: str,
    name: str,
    target: Target,
    by_node: Mapping[str, dict[str, Target]],
    by_role: Mapping[str, dict[str, dict[str, Target]]],
) -> None:
    if "/" not in key:
        for node in by_node:
            if matches(key, node):
                by_node[node][name] = target
        return
    for role in roles:
        if matches(key, role):
            by_role[role.home].setdefault(role.name, {})[name] = target


def _relate_topology(
    app: App,
    roles: list[RoleId],
    key: str,
    name: str,
    topology: Topology,
    by_role: Mapping[str, dict[str, dict[str, Target]]],
) -> None:
    """Give each member of the graph its neighbours: the graph is drawn once, over the roles there are at the start."""
    members = [role for role in roles if matches(topology.of, role)]
    graph = neighbours(topology.topology, members, app.seed or 0)
    for role in members:
        if matches(key, role if "/" in key else role.home):
            by_role[role.home].setdefault(role.name, {})[name] = Target(tuple(graph[role]))
