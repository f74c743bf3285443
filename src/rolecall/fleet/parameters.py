"""The parameters of an application: what `--set` overrides, and what `${a.b}` stands for.

A text that is nothing but `${rounds}` becomes the parameter itself, with its type; inside a longer text the
parameter is written out. Parameters may refer to each other. `$$` keeps a dollar sign from meaning anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from rolecall.core.errors import ConfigError, nearest
from rolecall.fleet import yaml_tree
from rolecall.fleet.marks import KeyPath, Marks
from rolecall.fleet.shapes import shown

__all__ = ("Parameters", "overridden")

_REFERENCE = re.compile(r"\$\$|\$\{([^{}]*)\}")
_BUILT_IN = ("ordinal", "count", "node", "role", "seed")


# ---------------------------------------------------------------------------------------------- overriding


def overridden(parameters: dict[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    """Return the parameters with overrides such as `data.dataset=digits`, whose values are YAML.

    Raises:
        ConfigError: an override is malformed, names no parameter, or is of another kind than the parameter.
    """
    tree: dict[str, Any] = _copied(parameters)
    for text in sets:
        where = f"--set {text}"
        name, equals, source = text.partition("=")
        if not equals or not name.strip():
            raise ConfigError(where, f"found {text!r}, expected NAME=VALUE", hint=_known(tree))
        value = yaml_tree.read(source, where).tree
        _assign(tree, name.strip().split("."), value, where, source)
    return tree


def _copied(value: Any) -> Any:
    return {key: _copied(item) for key, item in value.items()} if isinstance(value, dict) else value


def _assign(tree: dict[str, Any], keys: list[str], value: Any, where: str, source: str) -> None:
    level: Any = tree
    for depth, key in enumerate(keys):
        if not isinstance(level, dict) or key not in level:
            name = ".".join(keys[: depth + 1])
            hint = nearest(name, names(tree)) + _known(tree)
            raise ConfigError(where, f"there is no parameter {name!r}", hint=hint)
        if depth == len(keys) - 1:
            level[key] = _fitting(level[key], value, where, source)
        level = level[key]


def _fitting(old: Any, new: Any, where: str, source: str) -> Any:
    """Return a new value of a parameter if it is of the kind of the old one."""
    if isinstance(old, dict) and not _is_form(old):
        return _group(old, new, where)
    if isinstance(old, str) and not isinstance(new, (dict, list)) and "${" not in old:
        return new if isinstance(new, str) else source.strip()
    plain = (bool, int, float, list)
    if not isinstance(old, plain) or (isinstance(new, (dict, str)) and "$" in str(new)):
        return new
    number = _is_number(old)
    fits = _is_number(new) if number else isinstance(new, type(old))
    if not fits:
        expected = "a number" if number else "true or false" if isinstance(old, bool) else "a list"
        raise ConfigError(where, f"found {shown(new)}, expected {expected}, as the default {old!r} is")
    return new


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _group(old: dict[str, Any], new: Any, where: str) -> dict[str, Any]:
    if not isinstance(new, dict):
        raise ConfigError(where, f"found {shown(new)}, but this is a group of parameters", hint=_known(old))
    for key in new:
        if key not in old:
            hint = nearest(str(key), old) + _known(old)
            raise ConfigError(where, f"there is no parameter {key!r} in it", hint=hint)
    return {key: _fitting(item, new[key], where, str(new[key])) if key in new else item for key, item in old.items()}


def _known(tree: dict[str, Any]) -> str:
    listed = list(names(tree))
    return f" The parameters are: {', '.join(listed)}" if listed else " The application has no parameters"


def names(tree: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all parameters."""
    for key, value in tree.items():
        if isinstance(value, dict) and value and not _is_form(value):
            yield from names(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def _is_form(value: dict[Any, Any]) -> bool:
    return any(isinstance(key, str) and key.startswith("$") for key in value)


# -------------------------------------------------------------------------------------------- substituting


class Parameters:
    """Replaces references to parameters."""

    def __init__(self, tree: dict[str, Any], marks: Marks) -> None:
        self.tree, self.marks = tree, marks
        self.open: list[str] = []

    def resolved(self) -> dict[str, Any]:
        """Return the parameters themselves, references among them replaced."""
        found: dict[str, Any] = self.replaced(self.tree, ("parameters",))
        return found

    def replaced(self, value: Any, path: KeyPath) -> Any:
        """Return a tree with the references in its keys and texts replaced.

        Other objects stay, and so does a list or dict with nothing to replace in it: it may be an element
        that other code holds too.
        """
        if isinstance(value, str):
            return self.text(value, path)
        if isinstance(value, dict):
            found = self.mapping(value, path)
            same = len(found) == len(value) and all(found.get(key, found) is item for key, item in value.items())
            return value if same else found
        if type(value) is list:
            items = [self.replaced(item, (*path, index)) for index, item in enumerate(value)]
            return value if all(new is old for new, old in zip(items, value, strict=True)) else items
        return value

    def mapping(self, value: dict[Any, Any], path: KeyPath) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        for old, item in value.items():
            key = str(self.text(old, (*path, old))) if isinstance(old, str) else old
            if key in found:
                raise self.marks.error((*path, old), f"with its parameters the key is {key!r}, as another is")
            if key != old:
                self.marks = self.marks.moved({(*path, key): (*path, old)})
            found[key] = self.replaced(item, (*path, old if isinstance(old, (str, int)) else str(old)))
        return found

    def text(self, text: str, path: KeyPath) -> Any:
        whole = _REFERENCE.fullmatch(text)
        if whole and whole[1] is not None:
            return self.parameter(whole[1].strip(), path)
        return _REFERENCE.sub(lambda found: self._inside(found, path), text)

    def _inside(self, found: re.Match[str], path: KeyPath) -> str:
        if found[1] is None:
            return "$$"  # stays escaped: `values` reads the text next
        value = self.parameter(found[1].strip(), path)
        if isinstance(value, (dict, list)) or value is None:
            raise self.marks.error(path, f"{found[0]} is {shown(value)} and cannot stand inside a text")
        return ("true" if value else "false") if isinstance(value, bool) else str(value)

    def parameter(self, name: str, path: KeyPath) -> Any:
        if name in self.open:
            chain = " -> ".join((*self.open[self.open.index(name) :], name))
            raise self.marks.error(path, f"the parameters refer to each other in a circle: {chain}")
        value: Any = self.tree
        for key in name.split("."):
            if not isinstance(value, dict) or key not in value:
                raise self._unknown(name, path)
            value = value[key]
        self.open.append(name)
        try:
            return self.replaced(value, ("parameters", *name.split(".")))
        finally:
            self.open.pop()

    def _unknown(self, name: str, path: KeyPath) -> ConfigError:
        if name in _BUILT_IN:
            return self.marks.error(path, f"there is no parameter {name!r}", f"Write ${name} for the built-in value")
        return self.marks.error(
            path, f"there is no parameter {name!r}", nearest(name, names(self.tree)) + _known(self.tree)
        )
