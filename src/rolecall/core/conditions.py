"""Conditions on events, checked where the event is emitted: `where={"loss__lt": 0.1}`."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from rolecall.core.errors import DeclarationError, nearest

__all__ = ("Condition", "attribute", "compile_conditions")

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

Condition = Callable[[Any], bool]


class attribute(msgspec.Struct, frozen=True):
    """A value in a condition that is read from the subscribing role when it subscribes."""

    name: str


def compile_conditions(where: Mapping[str, Any], item_type: Any, subscriber: object, place: str) -> Condition:
    """Return a predicate over events.

    A key is a field, fields of fields joined by `__`, and at the end an operator: `eq` (default), `ne`, `lt`,
    `le`, `gt`, `ge`, `contains`, `in`. Fields of a `msgspec.Struct` are checked now.

    Raises:
        DeclarationError: a field that the events do not have; `place` names the subscription.
    """
    tests = [_test(key, wanted, item_type, subscriber, place) for key, wanted in where.items()]
    return lambda item: all(test(item) for test in tests)


def _test(key: str, wanted: Any, item_type: Any, subscriber: object, place: str) -> Condition:
    path, op = _split(key)
    _check_field(path[0], item_type, key, place)
    value = getattr(subscriber, wanted.name) if isinstance(wanted, attribute) else wanted
    compare = _OPERATORS[op]
    return lambda item: compare(_reach(item, path), value)


def _split(key: str) -> tuple[list[str], str]:
    path = key.split("__")
    return (path[:-1], path[-1]) if len(path) > 1 and path[-1] in _OPERATORS else (path, "eq")


def _check_field(field: str, item_type: Any, key: str, place: str) -> None:
    fields = getattr(item_type, "__struct_fields__", None)
    if fields is not None and field not in fields:
        raise DeclarationError(
            place, f"condition {key!r}: {item_type.__name__} has no field {field!r}.{nearest(field, fields)}"
        )


def _reach(item: Any, path: list[str]) -> Any:
    for name in path:
        item = item[name] if isinstance(item, Mapping) else getattr(item, name)
    return item
