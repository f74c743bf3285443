"""From an application as it is written to the one that runs: no ranges, no parameters, no presets.

In this order: parameters are replaced, everywhere; ranges of nodes become nodes; the roles of a pattern are
given to each node that matches; presets are merged below the roles; values are settled node by node; starts
become calls.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from rolecall.core.errors import nearest
from rolecall.core.ids import RoleId
from rolecall.core.patterns import expand_range, is_pattern, select
from rolecall.fleet import importing, structure
from rolecall.fleet.app import App, Call, ElementSpec, Node, Preset, RoleSpec, Target, Topology
from rolecall.fleet.app_file import merged
from rolecall.fleet.marks import KeyPath, Marks
from rolecall.fleet.parameters import Parameters, overridden
from rolecall.fleet.shapes import app_of, shown, tree_of
from rolecall.fleet.values import Place, resolved
from rolecall.runtime.directory import NATIVE

__all__ = ("expanded",)

SEED_LIMIT = 2**63


def expanded(app: App, sets: Sequence[str], seed: int | None) -> App:
    """Return what runs; see `App.expanded`."""
    if app.is_expanded:
        return _again(app, sets, seed)
    written = _substituted(app, sets)
    result = _Expansion(written, _seed(written, seed)).app()
    structure.check(result)
    return result


def _again(app: App, sets: Sequence[str], seed: int | None) -> App:
    if sets:
        raise app.marks.error(
            (), f"it is expanded already, so `--set {sets[0]}` has no effect", "Run what it was made from"
        )
    return app if seed is None else _with_marks(msgspec.structs.replace(app, seed=_seed(app, seed)), app.marks)


def _with_marks(app: App, marks: Marks) -> App:
    app.__dict__["marks"] = marks
    return app


def _substituted(app: App, sets: Sequence[str]) -> App:
    """Return the application with its parameters overridden and put in, and its shape checked again."""
    tree = tree_of(app)
    parameters = Parameters(overridden(dict(app.parameters), sets), app.marks)
    ready = {key: parameters.replaced(value, (key,)) for key, value in tree.items() if key != "parameters"}
    return app_of({**ready, "parameters": parameters.resolved()}, parameters.marks)


def _seed(app: App, given: int | None) -> int:
    seed = app.seed if given is None else given
    if seed is None:
        return secrets.randbelow(2**31)
    if not 0 <= seed < SEED_LIMIT:
        raise app.marks.error(("seed",), f"found {shown(seed)}, expected a whole number from 0 to 2**63 - 1")
    return seed


class _Expansion:
    """One expansion of one application, whose parameters are replaced already."""

    def __init__(self, app: App, seed: int) -> None:
        self.written, self.seed, self.marks = app, seed, app.marks
        self.moves: dict[KeyPath, KeyPath] = {}

    def app(self) -> App:
        """Return the expanded application, its marks pointing to where things were written."""
        nodes = self.nodes()
        roles = self.roles(nodes)
        self.refuse_idle_presets(roles)
        expanded = msgspec.structs.replace(
            self.written,
            nodes=nodes,
            roles=roles,
            relationships=self.relationships(),
            presets={},
            start=self.calls(roles),
            seed=self.seed,
            import_from=self.directories(),
            is_expanded=True,
        )
        return _with_marks(expanded, self.marks.moved(self.moves))

    # ------------------------------------------------------------------------------------------------ nodes

    def nodes(self) -> dict[str, Node]:
        """Return a node for each name of each range, in the order of the file."""
        found: dict[str, Node] = {}
        keys: dict[str, str] = {}
        for key, node in self.written.nodes.items():
            names = self.names(key)
            for ordinal, name in enumerate(names):
                if name in keys:
                    raise self.marks.error(("nodes", key), f"the node {name!r} is also made by {keys[name]!r}")
                keys[name] = key
                found[name] = self.node(node, Place(name, "", ordinal, len(names), self.seed), ("nodes", key))
                self.moves["nodes", name] = ("nodes", key)
        return found

    def names(self, key: str) -> list[str]:
        """Return the nodes that a key makes."""
        if "*" in key or "?" in key:
            raise self.marks.error(("nodes", key), "nodes are named one by one or by a range", "Write client[1-10]")
        try:
            names = expand_range(key)
            for name in names:
                RoleId.of(name, NATIVE)
        except ValueError as error:
            raise self.marks.error(("nodes", key), str(error)) from None
        return names

    def node(self, node: Node, place: Place, path: KeyPath) -> Node:
        """Return a node with its properties settled."""
        settled: dict[str, Any] = {}
        for name in Node.__struct_fields__:
            value = resolved(getattr(node, name), place, (*path, name), self.marks, ("nodes", name))
            if value is not None and not isinstance(value, str):
                raise self.marks.error((*path, name), f"found {shown(value)}, expected text")
            settled[name] = value
        return Node(**settled)

    # ------------------------------------------------------------------------------------------------ roles

    def roles(self, nodes: dict[str, Node]) -> dict[str, dict[str, RoleSpec]]:
        """Return the roles of each node that has some, in the order of the nodes."""
        found: dict[str, dict[str, RoleSpec]] = {node: {} for node in nodes}
        for key, specs in self.written.roles.items():
            matched = self.matched(key, nodes)
            for ordinal, node in enumerate(matched):
                for name, spec in specs.items():
                    self.refuse_second(key, node, name)
                    place = Place(node, f"{node}/{name}", ordinal, len(matched), self.seed)
                    found[node][name] = self.role(spec, place, ("roles", key, name))
                    self.moves["roles", node, name] = ("roles", key, name)
        return {node: roles for node, roles in found.items() if roles}

    def matched(self, key: str, nodes: dict[str, Node]) -> list[str]:
        """Return the nodes that a key of `roles` stands for, in natural order."""
        path = ("roles", key)
        try:
            found = select(key, nodes)
            missing = [] if "*" in key or "?" in key else [name for name in expand_range(key) if name not in nodes]
        except ValueError as error:
            raise self.marks.error(path, str(error)) from None
        if missing and is_pattern(key) and found:
            raise self.marks.error(path, f"there is no node {missing[0]!r}", structure.few("nodes", list(nodes)))
        if not found:
            problem = f"no node matches {key!r}" if is_pattern(key) else f"there is no node {key!r}"
            raise self.marks.error(
                path, problem, structure.near(key, list(nodes)) + structure.few("nodes", list(nodes))
            )
        return found

    def refuse_second(self, key: str, node: str, name: str) -> None:
        """Raise for a name that cannot be used, or that another key gives to a role of this node."""
        path = ("roles", key, name)
        try:
            RoleId.of(node, name)
        except ValueError as error:
            raise self.marks.error(path, str(error)) from None
        if name == NATIVE:
            raise self.marks.error(path, f"every node has a role {name!r} of its own", "Take another name")
        other = self.moves.get(("roles", node, name))
        if other is not None:
            raise self.marks.error(
                path,
                f"the role {name!r} on the node {node!r} is there already, from {self.marks.where(other)}",
                "Give one of them another name",
            )

    def role(self, spec: RoleSpec, place: Place, path: KeyPath) -> RoleSpec:
        """Return a role with its preset merged in and its values settled."""
        class_ = _reference(spec.class_)
        preset = self.preset(class_, place, path)
        extensions = [_reference(extension) for extension in (*preset.extensions, *spec.extensions)]
        return RoleSpec(
            class_,
            options=merged(preset.options, self.options(spec, place, path)),
            elements=self.elements(preset, spec, place, path),
            extensions=list(dict.fromkeys(extensions)),
            on_failure=spec.on_failure or preset.on_failure,
        )

    def options(self, spec: RoleSpec | Preset | ElementSpec, place: Place, path: KeyPath, *key: str) -> dict[str, Any]:
        """Return options with their values settled; `key` is the element they belong to."""
        settled: dict[str, Any] = resolved(dict(spec.options), place, (*path, "options"), self.marks, (*key, "options"))
        return settled

    def preset(self, class_: Any, place: Place, path: KeyPath) -> Preset:
        """Return what every role of a class gets, settled for one."""
        for key, preset in self.written.presets.items():
            if key == class_:
                self.trace(preset, ("presets", key), ("roles", place.node, path[-1]))
                return msgspec.structs.replace(preset, options=self.options(preset, place, ("presets", key)))
        return Preset()

    def refuse_idle_presets(self, roles: dict[str, dict[str, RoleSpec]]) -> None:
        """Raise for a preset that no role is of, unless it was included: files to include may serve many."""
        used = {str(spec.class_) for names in roles.values() for spec in names.values()}
        for key in self.written.presets:
            mark = self.marks.mark(("presets", key))
            if key not in used and (mark is None or mark.file == self.marks.source):
                hint = nearest(key, used) + structure.few("classes", sorted(used))
                raise self.marks.error(("presets", key), "no role is of this class", hint)

    def trace(self, preset: Preset, written: KeyPath, role: KeyPath) -> None:
        """Keep that what comes from a preset was written there."""
        for part in ("options", "elements"):
            for name in getattr(preset, part):
                self.moves.setdefault((*role, part, name), (*written, part, name))

    def elements(self, preset: Preset, spec: RoleSpec, place: Place, path: KeyPath) -> dict[str, ElementSpec]:
        """Return the elements of a role: the preset's, under the role's own."""
        found: dict[str, ElementSpec] = {}
        for name in (*preset.elements, *spec.elements):
            if name not in found:
                below, above = preset.elements.get(name), spec.elements.get(name)
                whole = _merged_element(below or ElementSpec(), above or ElementSpec())
                found[name] = self.element(whole, place, name, (*path, "elements", name))
        return found

    def element(self, spec: ElementSpec, place: Place, name: str, path: KeyPath) -> ElementSpec:
        """Return an element with its values settled."""
        self.check_source(spec, path)
        texts = {key: getattr(spec, key) for key in ("save", "restore") if getattr(spec, key) is not None}
        settled = {key: str(resolved(text, place, (*path, key), self.marks)) for key, text in texts.items()}
        return msgspec.structs.replace(
            spec,
            class_=_reference(spec.class_),
            factory=_reference(spec.factory),
            initialize=_reference(spec.initialize),
            options=self.options(spec, place, path, "elements", name),
            **settled,
        )

    def check_source(self, spec: ElementSpec, path: KeyPath) -> None:
        """Raise unless exactly one thing says what the element is made of."""
        sources = _sources(spec)
        if not sources:
            hint = "Write `class: module:ClassName` or `factory: module:name`"
            raise self.marks.error(path, "nothing says what this element is made of", hint)
        if len(sources) > 1:
            raise self.marks.error(path, f"found {' and '.join(sources)}, expected exactly one of them")
        if sources == ["value"] and spec.options:
            raise self.marks.error((*path, "options"), "a value takes no options", "Use class or factory")

    # -------------------------------------------------------------------------------------- the application

    def relationships(self) -> dict[str, dict[str, Target]]:
        """Return the relationships, whose patterns stay; files of topologies get their whole path."""
        return {
            key: {name: self.target(target) for name, target in targets.items()}
            for key, targets in self.written.relationships.items()
        }

    def target(self, target: Target) -> Target:
        """Return a relationship that means the same from any directory."""
        if isinstance(target, Topology) and target.topology.startswith("file(") and target.topology.endswith(")"):
            return msgspec.structs.replace(target, topology=f"file({self.absolute(target.topology[5:-1].strip())})")
        return target

    def absolute(self, path: str) -> str:
        """Return a path that leads on from the directory of the application's file."""
        return str(Path(self.marks.directory or ".", path).resolve())

    def directories(self) -> list[str]:
        """Return where the modules of the roles are looked up: beside the file, and where it says."""
        own = [str(importing.home_of(Path(self.marks.directory, "_"))[0])] if self.marks.directory else []
        return list(dict.fromkeys((*own, *map(self.absolute, self.written.import_from))))

    def calls(self, roles: dict[str, dict[str, RoleSpec]]) -> list[str | Call] | None:
        """Return the calls that start the application, one for each role that a pattern stands for."""
        start = self.written.start
        if start is None:
            return None
        ids = [f"{node}/{name}" for node, names in roles.items() for name in names]
        items = start if isinstance(start, list) else [start]
        found: list[str | Call] = []
        for index, item in enumerate(items):
            path: KeyPath = ("start", index) if isinstance(start, list) else ("start",)
            for call in self.call(item, ids, path):
                self.moves["start", len(found)] = path
                found.append(call)
        return found

    def call(self, item: str | Call, ids: list[str], path: KeyPath) -> list[str | Call]:
        """Return the calls that one item of `start` stands for."""
        call = Call(item) if isinstance(item, str) else item
        structure.check_call(call, self.marks, path)
        try:
            matched = select(call.role, ids) if is_pattern(call.role) else [call.role]
        except ValueError as error:
            raise self.marks.error(path, str(error)) from None
        if not matched:
            raise self.marks.error(path, f"no role matches {call.role!r}", structure.few("roles", ids))
        found: list[str | Call] = []
        for ordinal, role in enumerate(matched):
            place = Place(role.partition("/")[0], role, ordinal, len(matched), self.seed)
            arguments = resolved(dict(call.with_), place, (*path, "with"), self.marks, ("with",))
            name = f"{role}.{call.channel}"
            found.append(Call(name, arguments) if arguments else name)
        return found


def _merged_element(below: ElementSpec, above: ElementSpec) -> ElementSpec:
    """Return an element's own specification over that of a preset.

    Where it says in another way what the element is made of, the preset's options were not meant for it.
    """
    sources = _sources(above)
    same = all(getattr(below, _field(name)) == getattr(above, _field(name)) for name in sources)
    if sources and not same:
        below = msgspec.structs.replace(below, class_=None, factory=None, value=msgspec.UNSET, options={})
    changes = {
        name: getattr(above, name)
        for name, default in zip(ElementSpec.__struct_fields__, _ELEMENT_DEFAULTS, strict=True)
        if getattr(above, name) != default and name != "options"
    }
    return msgspec.structs.replace(below, **changes, options=merged(below.options, above.options))


_ELEMENT_DEFAULTS = [getattr(ElementSpec(), name) for name in ElementSpec.__struct_fields__]


def _field(key: str) -> str:
    return "class_" if key == "class" else key


def _sources(spec: ElementSpec) -> list[str]:
    """Return the keys that say what an element is made of."""
    given = {"class": spec.class_ is not None, "factory": spec.factory is not None}
    return [key for key, there in {**given, "value": spec.value is not msgspec.UNSET}.items() if there]


def _reference(value: Any) -> Any:
    """Return the name of a class or callable where it has one, so that the file says the same."""
    return value if value is None or isinstance(value, str) else importing.reference(value) or value
