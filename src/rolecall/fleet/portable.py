"""An expanded application as plain data that other processes can take, and what a node lets others have imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from rolecall.core.errors import ConfigError
from rolecall.core.factories import factories
from rolecall.fleet.app import App, Node, RoleSpec
from rolecall.fleet.app_file import written
from rolecall.fleet.importing import load
from rolecall.fleet.marks import KeyPath, Marks
from rolecall.fleet.shapes import app_of

__all__ = ("ImportPolicy", "modules", "portable", "portable_role", "received")

_ELSEWHERE = "Put it into a module of its own and name it in the application, or run with the engine `local`"


class ImportPolicy(msgspec.Struct, frozen=True):
    """What the operator of a node lets others have imported there.

    `packages` are names of modules, each with all below it; `directories` are where modules may be looked up. When
    `strict`, what a name leads to must also have been made in these packages: `mine:os.system` is not of `mine`.
    """

    packages: tuple[str, ...] = ("rolecall",)
    directories: tuple[str, ...] = ()
    strict: bool = False

    def check(self, tree: dict[str, Any], node: str, source: str | None = None) -> None:
        """Raise `ConfigError` where an application names something for a node that may not be imported there.

        `source` is how the message names the application.
        """
        marks = Marks(source or f"app {tree.get('name')!r}")
        for path, name in _references(tree, node):
            if not self._allows(name):
                raise marks.error(
                    path,
                    f"node {node!r} does not import {name!r}, only {', '.join(self.packages)} and what is in them",
                    "Whoever starts the node decides that",
                )
        for directory in tree.get("import_from", ()):
            if directory not in self.directories:
                raise marks.error(("import_from",), f"node {node!r} does not import from {directory!r}")

    def check_origins(self, tree: dict[str, Any], node: str, source: str | None = None) -> None:
        """Import what is named for a node, and raise `ConfigError` where it comes from elsewhere."""
        if not self.strict:
            return
        marks = Marks(source or f"app {tree.get('name')!r}")
        for path, name in _references(tree, node):
            found = load(name, marks.where(path))
            origin = getattr(found, "__module__", None)
            if ":" in name and (not isinstance(origin, str) or not self._includes(origin)):
                whence = f"was made in {origin}" if origin else "is a module, or of unknown origin"
                raise marks.error(
                    path,
                    f"{name!r} {whence}, and node {node!r} takes only what is of {', '.join(self.packages)}",
                    "Whoever starts the node decides that",
                )

    def _allows(self, name: str) -> bool:
        module, colon, _ = name.partition(":")
        return self._includes(module) if colon else name in factories()

    def _includes(self, module: str) -> bool:
        return any(module == package or module.startswith(f"{package}.") for package in self.packages)


def portable(app: App) -> dict[str, Any]:
    """Return an expanded application as plain data.

    Raises:
        ConfigError: it holds something that lives in this process only; the message names its key.
    """
    tree: dict[str, Any] = written(app)
    for path, what in _live(tree, ()):
        raise app.marks.error(path, f"it is {what}, which other processes cannot get", _ELSEWHERE)
    for path, name in _references(tree):
        _check_findable(name, path, app.marks)
    return tree


def portable_role(spec: RoleSpec) -> RoleSpec:
    """Return a role as `portable` makes data of it; raises as that does."""
    alone = App(name="assign", nodes={"node": Node()}, roles={"node": {"role": spec}})
    alone.__dict__["marks"] = Marks("assign")
    return app_of(portable(alone), Marks("assign")).roles["node"]["role"]


def received(tree: dict[str, Any]) -> App:
    """Return the application that `portable` made data of; raise `ConfigError` for data that is none."""
    name = tree.get("name")
    app = app_of(tree, Marks(f"app {name!r}"))
    if not app.is_expanded:
        raise ConfigError(f"app {name!r}", "it is not expanded", hint="Send what `App.expanded()` returns")
    return app


def modules(tree: dict[str, Any]) -> list[str]:
    """Return the modules that an application names, each once, in the order they are named."""
    names = (name for _, name in _references(tree) if ":" in name)
    return list(dict.fromkeys(name.partition(":")[0] for name in names))


# ---------------------------------------------------------------------------------------------- walking


def _references(tree: dict[str, Any], node: str | None = None) -> Iterator[tuple[KeyPath, str]]:
    """Yield the names of objects that a node, or any, imports, with their keys."""
    for home, roles in tree.get("roles", {}).items():
        if node in (None, home):
            for name, spec in roles.items():
                yield from _of_role(spec, ("roles", home, name))
    started = tree.get("start") or ()
    for index, call in enumerate(started if isinstance(started, list) else [started]):
        if isinstance(call, dict) and (node is None or call.get("call", "").startswith(f"{node}/")):
            yield from _imports(call.get("with"), ("start", index, "with"))


def _of_role(spec: dict[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    yield from _named(spec, path)
    for index, name in enumerate(spec.get("extensions", ())):
        yield (*path, "extensions", index), name
    for slot, element in spec.get("elements", {}).items():
        yield from _named(element, (*path, "elements", slot))


def _named(spec: dict[str, Any], path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield the names that a role or an element has in common: what it is made by, and what is in its options."""
    for key in ("class", "factory", "initialize"):
        if isinstance(spec.get(key), str):
            yield (*path, key), spec[key]
    yield from _imports(spec.get("options"), (*path, "options"))


def _imports(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, dict) and set(value) == {"$import"}:
        yield path, str(value["$import"])
        return
    for inner, item in _items(value, path):
        yield from _imports(item, inner)


def _live(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yield what live objects there were, with their keys."""
    if isinstance(value, dict) and set(value) == {"$live"}:
        yield path, str(value["$live"])
        return
    for inner, item in _items(value, path):
        yield from _live(item, inner)


def _items(value: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict):
        yield from (((*path, key), item) for key, item in value.items())
    elif isinstance(value, list):
        yield from (((*path, index), item) for index, item in enumerate(value))


def _check_findable(name: str, path: KeyPath, marks: Marks) -> None:
    """Raise for a module that is here and that no import finds, as other processes would import it."""
    top = name.partition(":")[0].partition(".")[0]
    if (
        ":" not in name
        or top not in sys.modules
        or any(finder.find_spec(top, None) is not None for finder in sys.meta_path)
    ):
        return
    problem = f"the module {top} of {name} was made in this process, and others do not find it"
    raise marks.error(path, problem, _ELSEWHERE)
