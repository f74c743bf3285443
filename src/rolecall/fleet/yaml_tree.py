"""Read and write YAML as plain trees: bounded, with the line of every key, and without YAML's old surprises.

The document is composed into PyYAML's nodes and turned into dicts, lists and scalars here, so that no tag can
make a Python object. Plain scalars mean what YAML 1.2 says: `1e-3` is a number, `no` and `12:30` are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import yaml

from rolecall.core.errors import ConfigError
from rolecall.fleet.marks import KeyPath, Mark, dotted

__all__ = ("Document", "dump", "read")

BYTES_LIMIT = 64 * 2**20
DEPTH_LIMIT = 40
COPIES_LIMIT = 100_000  # values that aliases repeat: ten lines can stand for a billion
DIGITS_LIMIT = 100

_FOLDED = re.compile("[\r\x85\u2028\u2029\ufeff]")
_TAG = "tag:yaml.org,2002:"
_FORMS = {
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+0123456789."),
    ),
}


class Document(NamedTuple):
    """What a YAML text holds, and the place of every key and item in it."""

    tree: Any
    places: dict[KeyPath, Mark]


class _Loader(yaml.SafeLoader):
    """Composes nodes to a bounded depth, and resolves plain scalars as YAML 1.2 does."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > DEPTH_LIMIT:
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            problem = f"it is nested more than {DEPTH_LIMIT} deep"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something else than text, and writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def text(self, data: str) -> yaml.ScalarNode:
        """Quote text with line ends that YAML would fold, so that they are written as escapes."""
        style = '"' if _FOLDED.search(data) else None
        return self.represent_scalar(_TAG + "str", data, style=style)


_Dumper.add_representer(str, _Dumper.text)
for _name, (_regex, _first) in _FORMS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_regex})\Z"), _first)
_Loader.add_implicit_resolver(_TAG + "merge", re.compile(r"<<\Z"), ["<"])


def read(text: str, source: str) -> Document:
    """Return what a YAML text holds; `source` names it in messages.

    Raises:
        ConfigError: it is not YAML, is too large or too deep, has a key twice, or uses a tag.
    """
    if len(text) > BYTES_LIMIT:
        raise ConfigError(source, f"it has {len(text):,} characters, more than the {BYTES_LIMIT:,} allowed")
    try:
        node = yaml.compose(text, Loader=_Loader)
    except yaml.YAMLError as error:
        raise _unreadable(source, error) from None
    builder = _Builder(source)
    tree = None if node is None else builder.build(node, ())
    return Document(tree, builder.places)


def dump(tree: Any) -> str:
    """Return a tree of dicts, lists and scalars as YAML, keys in their order."""
    text: str = yaml.dump(tree, Dumper=_Dumper, sort_keys=False, default_flow_style=None, width=110, allow_unicode=True)
    return text


def _unreadable(source: str, error: yaml.YAMLError) -> ConfigError:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    where = f"{source}:{mark.line + 1}" if mark else source
    problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
    hint = ""
    if "'\\t'" in problem:
        hint = "Indent with spaces; YAML allows no tabs"
    elif "mapping values are not allowed" in problem:
        hint = "Put text that has a colon in it into quotes, and check the indentation"
    elif "single document" in str(getattr(error, "context", "")):
        problem = "there is a second document after `---`"
    return ConfigError(where, f"this is not readable as YAML: {problem}", hint=hint)


class _Builder:
    """Turns nodes into plain values, and keeps where each was written."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.places: dict[KeyPath, Mark] = {}
        self.copies = 0
        self.built: set[int] = set()
        self.inside: set[int] = set()

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        self.copies += id(node) in self.built
        self.built.add(id(node))
        if self.copies > COPIES_LIMIT:
            raise self.error(node, path, f"aliases repeat more than {COPIES_LIMIT:,} values")
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if node.tag not in (_TAG + "map", _TAG + "seq"):
            raise self.tagged(node, path)
        if id(node) in self.inside:
            raise self.error(node, path, "an alias stands inside what it refers to, so it never ends")
        if len(path) > DEPTH_LIMIT:
            raise self.error(node, path, f"it is nested more than {DEPTH_LIMIT} deep")
        self.inside.add(id(node))
        value = self.sequence(node, path) if isinstance(node, yaml.SequenceNode) else self.mapping(node, path)
        self.inside.discard(id(node))
        return value

    def sequence(self, node: yaml.SequenceNode, path: KeyPath) -> list[Any]:
        for index, item in enumerate(node.value):
            self.mark(item, (*path, index))
        return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]

    def mapping(self, node: yaml.Node, path: KeyPath) -> dict[Any, Any]:
        found: dict[Any, Any] = {}
        lines: dict[Any, int] = {}
        merges: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if key_node.tag == _TAG + "merge":
                merges.append(value_node)
                continue
            key = self.key(key_node, path)
            if key in found:
                raise self.error(key_node, path, f"the key {key!r} is here twice, first in line {lines[key]}")
            lines[key] = key_node.start_mark.line + 1
            inner = (*path, key if isinstance(key, int) and not isinstance(key, bool) else str(key))
            self.mark(key_node, inner)
            found[key] = self.build(value_node, inner)
        for merged in self.merged(merges, path):
            found = {**merged, **found}
        return found

    def merged(self, nodes: list[yaml.Node], path: KeyPath) -> Iterator[dict[Any, Any]]:
        """Yield what `<<: *anchor` brings in, the strongest first."""
        for node in nodes:
            for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
                value = self.build(item, path) if isinstance(item, yaml.MappingNode) else None
                if not isinstance(value, dict):
                    raise self.error(item, path, "`<<` merges a mapping or a list of mappings")
                yield value

    def key(self, node: yaml.Node, path: KeyPath) -> Any:
        if not isinstance(node, yaml.ScalarNode):
            raise self.error(node, path, "a key must be text or a number, not a collection")
        return self.scalar(node, path)

    def scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        kind = node.tag.removeprefix(_TAG)
        text = node.value
        if kind == "str":
            return text
        if kind == "merge":
            raise self.error(node, path, "`<<` has no meaning here")
        if kind not in _FORMS:
            raise self.tagged(node, path)
        if not re.fullmatch(_FORMS[kind][0], text):
            raise self.error(node, path, f"{text!r} cannot be read as the !!{kind} it is said to be")
        if len(text) > DIGITS_LIMIT:
            raise self.error(node, path, f"a number of {len(text)} digits is too long", "Put it into quotes")
        return _SCALARS[kind](text)

    def mark(self, node: yaml.Node, path: KeyPath) -> None:
        self.places.setdefault(path, Mark(self.source, node.start_mark.line + 1))

    def tagged(self, node: yaml.Node, path: KeyPath) -> ConfigError:
        tag = node.tag.replace(_TAG, "!!")
        advice = "Write plain YAML: nothing in it can make Python objects"
        if "include" in tag:
            advice = "Files are included by the key `include: [other.yaml]` at the top"
        return self.error(node, path, f"the tag {tag} is not supported", advice)

    def error(self, node: yaml.Node, path: KeyPath, problem: str, hint: str = "") -> ConfigError:
        where = f"{self.source}:{node.start_mark.line + 1}"
        return ConfigError(f"{where}: {dotted(path)}" if path else where, problem, hint=hint)


def _whole(text: str) -> int:
    return int(text, 0) if text[:2] in ("0x", "0o") else int(text)


def _real(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


_SCALARS = {
    "null": lambda _: None,
    "bool": lambda text: text.lower() == "true",
    "int": _whole,
    "float": _real,
}
