"""Conditions on events, checked where the event is emitted: `where={"loss__lt": 0.1}`."""

from __future__ import annotations

import operator
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from rolecall.core.annotations import type_name
from rolecall.core.errors import DeclarationError, nearest

__all__ = ("Conditions", "attribute", "check_conditions", "compile_conditions")

_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "contains": operator.contains,
    "in": lambda value, options: value in options,
}
_PLAIN = (bool, int, float, str, bytes, type(None))
_WITHOUT_FIELDS = f"has no fields; the operators are {', '.join(_OPERATORS)}"

Test = Callable[[Any], bool]


class attribute(msgspec.Struct, frozen=True):
    """A value in a condition that is read from the subscribing role when it subscribes."""

    name: str


def compile_conditions(where: Mapping[str, Any], item_type: Any, subscriber: object, place: str) -> Conditions:
    """Return a predicate over events: whether all of `where` holds.

    A key is a field, or fields of fields joined by `__`, and at the end an operator: `eq` (default), `ne`,
    `lt`, `le`, `gt`, `ge`, `contains` (the field holds the value) or `in` (the value holds the field). The
    predicate raises what the comparison does.

    Raises:
        DeclarationError: a field that the events do not have, or an attribute that the subscriber does not
            have; `place` names the subscription.
    """
    check_conditions(where, item_type, place)
    return Conditions({key: _wanted(key, wanted, subscriber, place) for key, wanted in where.items()})


class Conditions:
    """Conditions with their values, ready to be checked; `where` is what travels to another node."""

    def __init__(self, where: Mapping[str, Any]) -> None:
        self.where = where
        self._tests = [_test(key, wanted) for key, wanted in where.items()]

    def __call__(self, item: Any) -> bool:
        return all(test(item) for test in self._tests)


def check_conditions(where: Mapping[str, Any], item_type: Any, place: str) -> None:
    """Raise `DeclarationError` for a field that events of the type do not have, as far as the types tell."""
    for key in where:
        _check_path(_split(key)[0], item_type, key, place)


def _test(key: str, value: Any) -> Test:
    path, op = _split(key)
    compare = _OPERATORS[op]
    return lambda item: bool(compare(_reach(item, path), value))


def _wanted(key: str, wanted: Any, subscriber: object, place: str) -> Any:
    if not isinstance(wanted, attribute):
        return wanted
    if not hasattr(subscriber, wanted.name):
        known = nearest(wanted.name, (name for name in dir(subscriber) if not name.startswith("_")))
        problem = f"condition {key!r}: {type_name(type(subscriber))} has no attribute {wanted.name!r}.{known}"
        raise DeclarationError(place, problem)
    return getattr(subscriber, wanted.name)


def _split(key: str) -> tuple[list[str], str]:
    path = key.split("__")
    return (path[:-1], path[-1]) if len(path) > 1 and path[-1] in _OPERATORS else (path, "eq")


def _reach(item: Any, path: list[str]) -> Any:
    for name in path:
        item = item[name] if isinstance(item, Mapping) else getattr(item, name)
    return item


# --------------------------------------------------------------------------------------------- checking names


def _check_path(path: list[str], kind: Any, key: str, place: str) -> None:
    """Follow a path through the types of fields, up to one that does not tell."""
    for name in path:
        known = _without_none(kind)
        fields = _fields(known)
        if fields is None:
            return
        if name not in fields:
            raise DeclarationError(place, f"condition {key!r}: {type_name(known)} {_lacking(name, fields)}")
        kind = fields[name]


def _lacking(name: str, fields: Mapping[str, Any]) -> str:
    if not fields:
        return f"{_WITHOUT_FIELDS}.{nearest(name, _OPERATORS)}"
    return f"has no field {name!r}.{nearest(name, fields)}"


def _fields(kind: Any) -> Mapping[str, Any] | None:
    """Return the fields of a type with their types; None where anything may be there."""
    if kind in _PLAIN:
        return {}
    names = getattr(kind, "__struct_fields__", None) or getattr(kind, "__dataclass_fields__", None)
    if names is None or not isinstance(kind, type):
        return None
    try:
        hints = typing.get_type_hints(kind)
    except NameError:  # a class local to a function: its fields are known by name alone
        hints = {}
    return {name: hints.get(name, Any) for name in names}


def _without_none(kind: Any) -> Any:
    """Return the one other type of `X | None`."""
    if typing.get_origin(kind) not in (typing.Union, types.UnionType):
        return kind
    others = [member for member in typing.get_args(kind) if member is not type(None)]
    return others[0] if len(others) == 1 else Any
