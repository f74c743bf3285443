"""From the tree of an application file to its structs and back.

Each reader takes a value and its key path; what it cannot take, it reports with file, line, key, what was
found, what was expected and the nearest valid name. Text that still refers to a parameter passes for
anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from rolecall.core.errors import ConfigError, nearest
from rolecall.fleet.app import (
    After,
    Alias,
    App,
    Between,
    Call,
    ElementSpec,
    Later,
    Limits,
    Node,
    Preset,
    RoleSpec,
    Topology,
)
from rolecall.fleet.marks import KeyPath, Marks

__all__ = ("app_of", "role_of", "shown", "tree_of")

Reader = Callable[[Any, KeyPath, Marks], Any]

_STRUCTS = (After, Alias, App, Between, Call, ElementSpec, Later, Limits, Node, Preset, RoleSpec, Topology)
_BESIDE = {App: ("include",)}  # keys of the file that are gone by now
_TYPE_NAMES = {
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}


def app_of(tree: Any, marks: Marks) -> App:
    """Return the application that a tree stands for; raise `ConfigError` where it does not fit."""
    app: App = _app(tree, (), marks)
    app.__dict__["marks"] = marks
    return app


def role_of(tree: Any, marks: Marks) -> RoleSpec:
    """Return the role that a tree stands for, as under `roles:`; raise `ConfigError` where it does not fit."""
    role: RoleSpec = _role(tree, (), marks)
    return role


def tree_of(app: App) -> dict[str, Any]:
    """Return an application as dicts and lists under the keys of the file; other values stay."""
    tree: dict[str, Any] = _tree(app)
    return tree


def _tree(value: Any) -> Any:
    if isinstance(value, _STRUCTS):
        fields = ((field, getattr(value, field.name)) for field in msgspec.structs.fields(type(value)))
        return {
            field.encode_name: content if field.name == "value" else _tree(content)  # an element's own object
            for field, content in fields
            if not _is_default(field, content)
        }
    if isinstance(value, dict):
        return {key: _tree(content) for key, content in value.items()}
    if type(value) in (list, tuple):  # a named tuple is an object of the user's
        return [_tree(content) for content in value]
    return value


def _is_default(field: msgspec.structs.FieldInfo, value: Any) -> bool:
    if field.default_factory is not msgspec.NODEFAULT:
        return isinstance(value, (dict, list, Limits)) and value == field.default_factory()
    return value is field.default or (isinstance(value, (str, bool)) and value == field.default)


def shown(value: Any) -> str:
    """Return a value as a message shows what was found."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        keys = ", ".join(map(str, list(value)[:4]))
        return f"a mapping ({keys}{', ...' if len(value) > 4 else ''})" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, (str, int, float)):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    return f"an object of type {type(value).__qualname__}"


# ------------------------------------------------------------------------------------------ readers of parts


def _unsettled(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _of(type_: Any, expected: str = "") -> Reader:
    """Read what msgspec takes for a type."""

    def read(value: Any, path: KeyPath, marks: Marks) -> Any:
        if _unsettled(value):
            return value
        try:
            return msgspec.convert(value, type_)
        except msgspec.ValidationError as error:
            raise _invalid(str(error), value, path, marks, expected) from None

    return read


def _invalid(message: str, value: Any, path: KeyPath, marks: Marks, expected: str) -> ConfigError:
    """Translate what msgspec says: its `$[2].x` becomes part of the key path."""
    problem, _, place = message.partition(" - at `$")
    for key, index in re.findall(r"\.(\w+)|\[(\d+)\]", place):
        step: str | int = key or int(index)
        path, value = (*path, step), value[step]
    wanted = re.match(r"Expected `(.+?)`(?:, got|$)", problem)
    if not wanted and not expected:
        return marks.error(path, f"found {shown(value)}: {problem[:1].lower()}{problem[1:]}")
    names = " or ".join(_TYPE_NAMES.get(name, name) for name in wanted[1].split(" | ")) if wanted else ""
    return marks.error(path, f"found {shown(value)}, expected {expected or names}")


def _choice(*names: str) -> Reader:
    """Read one of a few words."""

    def read(value: Any, path: KeyPath, marks: Marks) -> Any:
        if _unsettled(value) or (isinstance(value, str) and value in names):
            return value
        expected = " or ".join(repr(name) for name in names)
        raise marks.error(path, f"found {shown(value)}, expected {expected}", nearest(str(value), names))

    return read


def _maybe(reader: Reader) -> Reader:
    """Read nothing (`null`), or what `reader` takes."""
    return lambda value, path, marks: None if value is None else reader(value, path, marks)


def _anything(value: Any, path: KeyPath, marks: Marks) -> Any:
    return value


def _named(what: str, form: str) -> Reader:
    """Read a class or callable, or its name."""

    def read(value: Any, path: KeyPath, marks: Marks) -> Any:
        if isinstance(value, dict) and set(value) == {"$live"}:
            raise live(value["$live"], path, marks)
        if callable(value) or (isinstance(value, str) and value.strip()):
            return value
        raise marks.error(path, f"found {shown(value)}, expected {what}", f"It is written {form}")

    return read


def live(what: object, path: KeyPath, marks: Marks) -> ConfigError:
    """Return the error for a marker that stands for an object which could not be written."""
    return marks.error(
        path,
        f"the file stands for an application made in Python, and this was a live object there ({what})",
        "Pass the object from Python: build the application with `rc.App` and run it with `rc.run`",
    )


def _value(value: Any, path: KeyPath, marks: Marks) -> Any:
    """Read an element's own value."""
    if isinstance(value, dict) and set(value) == {"$live"}:
        raise live(value["$live"], path, marks)
    return value


def _list_of(reader: Reader) -> Reader:
    """Read a list; a single item may stand for a list of one."""

    def read(value: Any, path: KeyPath, marks: Marks) -> Any:
        if isinstance(value, (list, tuple)):
            return [reader(item, (*path, index), marks) for index, item in enumerate(value)]
        return [reader(value, path, marks)]

    return read


def _dict_of(reader: Reader, what: str) -> Reader:
    """Read a mapping from names to what `reader` takes."""

    def read(value: Any, path: KeyPath, marks: Marks) -> Any:
        found = _mapping(value, path, marks, what)
        return {key: reader(content, (*path, key), marks) for key, content in found.items()}

    return read


def _mapping(value: Any, path: KeyPath, marks: Marks, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise marks.error(path, f"found {shown(value)}, expected {what}")
    for key in value:
        if not isinstance(key, str) or not key:
            raise marks.error(path, f"the key {key!r} is not text", f'Write "{key}"' if key else "Give it a name")
    return value


def _values(value: Any, path: KeyPath, marks: Marks) -> Any:
    """Read options: names to values of any kind."""
    found = _mapping(value, path, marks, "a mapping from names to values")
    _refuse_live(found, path, marks)
    return dict(found)


def _refuse_live(value: Any, path: KeyPath, marks: Marks) -> None:
    if isinstance(value, dict):
        if set(value) == {"$live"}:
            raise live(value["$live"], path, marks)
        for key, item in value.items():
            _refuse_live(item, (*path, key), marks)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_live(item, (*path, index), marks)


def _struct(type_: Any, what: str, **readers: Reader) -> Reader:
    """Read a mapping into a struct, each key by its reader."""
    fields = {field.encode_name: field for field in msgspec.structs.fields(type_)}

    def read(value: Any, path: KeyPath, marks: Marks) -> Any:
        if isinstance(value, type_):
            value = _tree(value)
        found = _mapping(value, path, marks, what)
        for key in found:
            if key not in fields:
                known = [*fields, *_BESIDE.get(type_, ())]
                hint = f"{nearest(key, known)} There are: {', '.join(known)}"
                raise marks.error((*path, key), f"unknown key {key!r} in {what}", hint)
        for key, field in fields.items():
            if field.required and key not in found:
                raise marks.error(path, f"the key {key!r} is missing in {what}", f"Write `{key}: ...`")
        return type_(
            **{fields[key].name: readers[fields[key].name](item, (*path, key), marks) for key, item in found.items()}
        )

    return read


# ----------------------------------------------------------------------------------------------- the structs

_text = _of(str)
_class_name = _named("a class", "module:ClassName")
_callable_name = _named("a callable", "module:name, or the name it was registered under")
_on_failure = _choice("fail", "continue")

_node = _struct(
    Node,
    "a node",
    device=_anything,
    network=_anything,
    address=_anything,
    host=_anything,
    join=_choice("start", "later"),
)

_element = _struct(
    ElementSpec,
    "an element",
    class_=_class_name,
    factory=_callable_name,
    value=_value,
    options=_values,
    initialize=_callable_name,
    share=_choice("role", "node"),
    save=_maybe(_text),
    restore=_maybe(_text),
)

_workload: dict[str, Reader] = {
    "options": _values,
    "elements": _dict_of(_element, "a mapping from names to elements"),
    "extensions": _list_of(_class_name),
    "on_failure": _maybe(_on_failure),
}

_role = _struct(RoleSpec, "a role", class_=_class_name, **_workload)
_preset = _struct(Preset, "a preset", **_workload)


def _kinds(what: str, kinds: Mapping[str, Reader], otherwise: Reader) -> Reader:
    """Read a mapping by the key that tells its kind, and anything else by `otherwise`."""

    def read(value: Any, path: KeyPath, marks: Marks) -> Any:
        tree = _tree(value)
        if not isinstance(tree, dict):
            return otherwise(value, path, marks)
        for key, reader in kinds.items():
            if key in tree:
                return reader(tree, path, marks)
        raise marks.error(path, f"found {shown(tree)}, expected {what}", nearest(next(iter(tree), ""), kinds))

    return read


_roles_text = _list_of(_of(str, "a role, a pattern of roles, or a list of them"))


def _members(value: Any, path: KeyPath, marks: Marks) -> Any:
    """Read roles and patterns; a single one stays single."""
    found = _roles_text(value, path, marks)
    return found if isinstance(value, (list, tuple)) else found[0]


_target = _kinds(
    "a role, a pattern, a list of them, {topology: ..., of: ...}, {alias: ...} or {later: ...}",
    {
        "topology": _struct(Topology, "a topology", topology=_text, of=_text),
        "alias": _struct(Alias, "an alias", alias=_text),
        "later": _struct(Later, "roles that come later", later=_text),
    },
    _members,
)

_call = _kinds(
    "a call: node/role.channel, or {call: node/role.channel, with: {...}}",
    {"call": _struct(Call, "a call", call=_text, with_=_values)},
    _of(str, "a call: node/role.channel, or {call: node/role.channel, with: {...}}"),
)


def _start(value: Any, path: KeyPath, marks: Marks) -> Any:
    return _list_of(_call)(value, path, marks) if isinstance(value, (list, tuple)) else _call(value, path, marks)


_until = _kinds(
    "'all-returned', 'stopped' or {seconds: 30}",
    {"seconds": _struct(After, "a time", seconds=_of(float))},
    _choice("all-returned", "stopped"),
)

_between = _struct(
    Between,
    "a path between nodes",
    between=_list_of(_text),
    network=_maybe(_text),
    latency_s=_maybe(_of(float)),
    jitter_s=_maybe(_of(float)),
    bandwidth_bps=_maybe(_of(float)),
    loss=_maybe(_of(float)),
)

_app = _struct(
    App,
    "an application",
    name=_text,
    parameters=_values,
    nodes=_dict_of(_node, "a mapping from names, such as client[1-10], to nodes"),
    roles=_dict_of(
        _dict_of(_role, "a mapping from names of roles to roles"),
        "a mapping from nodes, such as client*, to their roles",
    ),
    relationships=_dict_of(
        _dict_of(_target, "a mapping from names of relationships to roles"),
        "a mapping from nodes or roles, such as client*/gossip, to their relationships",
    ),
    presets=_dict_of(_preset, "a mapping from classes to presets"),
    start=_maybe(_start),
    until=_until,
    on_failure=_on_failure,
    seed=_maybe(_of(int)),
    limits=_struct(
        Limits,
        "the limits",
        mailbox_messages=_maybe(_of(int)),
        mailbox_bytes=_maybe(_of(int)),
        compute_threads=_maybe(_of(int)),
    ),
    paths=_list_of(_between),
    shape=_of(bool),
    import_from=_list_of(_text),
    is_expanded=_of(bool),
)
