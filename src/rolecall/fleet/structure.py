"""What can be said of an expanded application without importing anything: that its names lead somewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence

from rolecall.core import topologies
from rolecall.core.errors import ConfigError, nearest
from rolecall.core.patterns import is_pattern, matches, select
from rolecall.fleet.app import After, Alias, App, Call, Later, Limits, Target, Topology
from rolecall.fleet.marks import KeyPath, Marks
from rolecall.fleet.modelling import check_models
from rolecall.fleet.relations import applies, relationships_of, strength
from rolecall.runtime.directory import NATIVE

__all__ = ("calls", "check", "check_call", "few", "first_nodes", "near", "role_ids")

_APP_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_. \-]{0,99}")
_CALL = re.compile(r"[^/\s]+/[^/\s]+\.[A-Za-z_]\w*")


def role_ids(app: App) -> list[str]:
    """Return the ids of the roles of an expanded application, in the order of its nodes."""
    return [f"{node}/{name}" for node, roles in app.roles.items() for name in roles]


def first_nodes(app: App) -> list[str]:
    """Return the nodes that an expanded application starts with: those that do not join later."""
    return [name for name, node in app.nodes.items() if node.join == "start"]


def calls(app: App) -> list[Call]:
    """Return the calls that start an expanded application."""
    items = app.start if isinstance(app.start, list) else [] if app.start is None else [app.start]
    return [Call(item) if isinstance(item, str) else item for item in items]


def check(app: App) -> None:
    """Raise `ConfigError` where an expanded application names a node, role or topology that is not."""
    if not _APP_NAME.fullmatch(app.name):
        raise app.marks.error(
            ("name",), f"found {app.name!r}, expected up to 100 letters, digits, spaces, '_', '-' and '.'"
        )
    if isinstance(app.until, After) and not 0 < app.until.seconds < float("inf"):
        raise app.marks.error(("until", "seconds"), f"found {app.until.seconds}, expected a time above 0")
    _check_limits(app)
    _check_nodes(app)
    check_models(app)
    for index, call in enumerate(calls(app)):
        _check_started(app, call, ("start", index))
    _Relationships(app).check()


def _check_limits(app: App) -> None:
    for name in Limits.__struct_fields__:
        value = getattr(app.limits, name)
        if value is not None and value < 1:
            raise app.marks.error(("limits", name), f"found {value}, expected at least 1")


def _check_nodes(app: App) -> None:
    """A file may say that it is expanded and have been changed by hand since."""
    for node in app.roles:
        if node not in app.nodes:
            raise app.marks.error(("roles", node), f"there is no node {node!r}", nearest(node, app.nodes))
    if app.nodes and not first_nodes(app):
        raise app.marks.error(("nodes",), "all of them join later, so there is none to start with")


def check_call(call: Call, marks: Marks, path: KeyPath) -> None:
    """Raise unless a call has the form `node/role.channel`."""
    if not _CALL.fullmatch(call.call):
        raise marks.error(path, f"found {call.call!r}, expected node/role.channel, such as server/coordinator.run")


def _check_started(app: App, call: Call, path: KeyPath) -> None:
    check_call(call, app.marks, path)
    ids = role_ids(app)
    if call.role not in ids and call.role not in _natives(app):
        raise app.marks.error(path, f"there is no role {call.role!r}", nearest(call.role, ids) + few("roles", ids))
    home = call.role.partition("/")[0]
    if app.nodes[home].join == "later":
        problem = f"the node {home!r} joins later, so its roles are not there when the application starts"
        raise app.marks.error(path, problem, "Let it be there from the start, or give the role a main routine")


def _natives(app: App) -> set[str]:
    return {f"{node}/{NATIVE}" for node in app.nodes}


def near(pattern: str, names: Sequence[str]) -> str:
    """Return the name nearest to a wrong one, and for a pattern the nearest pattern that would match."""
    if not is_pattern(pattern):
        return nearest(pattern, names)
    head, slash, _ = pattern.partition("/")
    beside = {f"{head}/{name.partition('/')[2]}" for name in names if slash and matches(head, name.partition("/")[0])}
    return nearest(pattern, sorted(beside) or sorted({re.sub(r"[0-9]+", "*", name) for name in names}))


def few(what: str, names: Sequence[str]) -> str:
    """Return a sentence that lists names, the first of them when there are many."""
    more = f", ... ({len(names)})" if len(names) > 8 else ""
    return f" The {what} are: {', '.join(names[:8])}{more}" if names else f" There are no {what}"


class _Relationships:
    """The checks of the relationships of one application."""

    def __init__(self, app: App) -> None:
        self.app, self.marks = app, app.marks
        self.ids = role_ids(app)
        self.natives = sorted(_natives(app))

    def check(self) -> None:
        """Look at each relationship."""
        for key, targets in self.app.relationships.items():
            held_by = self.holders(key)
            for name, target in targets.items():
                path = ("relationships", key, name)
                self.target(target, path)
                self.refuse_rival(key, name, held_by)
                if isinstance(target, Alias):
                    self.alias(key, name, held_by)
                if isinstance(target, Topology):
                    self.topology(target, key, held_by, path)

    def holders(self, key: str) -> list[str]:
        """Return the roles that have the relationships under a key, which must stand for something."""
        path = ("relationships", key)
        if "/" in key:
            what, names, found = "role", self.ids, self.matching(key, path)
        else:
            what, names = "node", list(self.app.nodes)
            found = self.matching(key, path, names)
        if not found:
            problem = f"no {what} matches {key!r}" if is_pattern(key) else f"there is no {what} {key!r}"
            raise self.marks.error(path, problem, near(key, names) + few(f"{what}s", names))
        return [role for role in self.ids if applies(key, role)]

    def matching(self, pattern: str, path: KeyPath, names: Sequence[str] | None = None) -> list[str]:
        """Return what matches; the nodes' own roles only where they are asked for by name."""
        known = self.natives if pattern.endswith(f"/{NATIVE}") else self.ids
        try:
            return select(pattern, known if names is None else names)
        except ValueError as error:
            raise self.marks.error(path, str(error)) from None

    def target(self, target: Target, path: KeyPath) -> None:
        """Raise where a relationship leads to no role."""
        if isinstance(target, Later):
            self.pattern(target.later, (*path, "later"), needed=False)
        elif isinstance(target, list):
            for index, item in enumerate(target):
                self.pattern(item, (*path, index))
        elif isinstance(target, str):
            self.pattern(target, path)

    def pattern(self, pattern: str, path: KeyPath, *, needed: bool = True) -> list[str]:
        """Return the roles that a pattern stands for; raise where it must have some and has none."""
        if pattern.count("/") != 1:
            hint = f"Write {pattern}/NAME" if "/" not in pattern else ""
            raise self.marks.error(path, f"found {pattern!r}, expected node/role, such as client*/trainer", hint)
        found = self.matching(pattern, path)
        if needed and not found:
            problem = f"no role matches {pattern!r}" if is_pattern(pattern) else f"there is no role {pattern!r}"
            hint = near(pattern, self.ids) + few("roles", self.ids)
            raise self.marks.error(path, problem, f"{hint}. If it comes later, write {{later: {pattern}}}")
        return found

    def refuse_rival(self, key: str, name: str, held_by: Sequence[str]) -> None:
        """Raise where two keys, equally strong, give one role two meanings of a relationship."""
        for other, targets in self.app.relationships.items():
            if other == key or name not in targets or strength(other) != strength(key):
                continue
            role = next((role for role in held_by if applies(other, role)), None)
            if role is not None:
                raise self.marks.error(
                    ("relationships", key, name),
                    f"{role} has the relationship {name!r} from {other!r} as well",
                    "Write it under one of the two, or under the name of the role",
                )

    def alias(self, key: str, name: str, held_by: Sequence[str]) -> None:
        """Raise where an alias leads nowhere, or back to itself."""
        path = ("relationships", key, name, "alias")
        for role in held_by:
            configured = relationships_of(self.app, role)
            seen = [name]
            while isinstance(target := configured.get(seen[-1], ("", ""))[1], Alias):
                if target.alias in seen:
                    circle = " -> ".join((*seen, target.alias))
                    raise self.marks.error(path, f"the aliases of {role} lead in a circle: {circle}")
                seen.append(target.alias)
            beside = f"{role.partition('/')[0]}/{seen[-1]}"
            if seen[-1] not in configured and beside not in self.ids:
                hint = nearest(seen[-1], configured) + few("relationships", list(configured))
                raise self.marks.error(path, f"{role} has no relationship {seen[-1]!r}", hint)

    def topology(self, target: Topology, key: str, held_by: Sequence[str], path: KeyPath) -> None:
        """Raise where a graph cannot be made, or has no place for those who should know their neighbours."""
        members = self.pattern(target.of, (*path, "of"))
        try:
            topologies.neighbours(target.topology, members, self.app.seed or 0)
        except ConfigError as error:
            raise self.marks.error((*path, "topology"), str(error)) from None
        strangers = [role for role in held_by if role not in set(members)]
        if strangers and ("/" in key or len(strangers) == len(held_by)):
            hint = f"Give the relationship to the members: {target.of}: {{...}}"
            raise self.marks.error(path, f"{strangers[0]} is not among {target.of}, so it has no neighbours", hint)
