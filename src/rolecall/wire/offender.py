"""Find the part of a value that cannot travel; this runs only once encoding has failed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from rolecall.core.annotations import type_name
from rolecall.core.errors import NotEncodable
from rolecall.core.tensors import Tensors
from rolecall.wire.arrays import Unencodable
from rolecall.wire.limits import DEFAULT_LIMITS

__all__ = ("FAILURES", "not_encodable")

FAILURES = (TypeError, ValueError, OverflowError, NotImplementedError, RecursionError)
"""What encoding raises for a value that cannot travel."""

_Attempt = Callable[[Any], object]


def not_encodable(value: Any, where: Callable[[str], str], attempt: _Attempt) -> NotEncodable:
    """Return the error that names the innermost part of `value` for which `attempt` fails.

    `where` makes a place from the path to that part, such as `.plan[2]`; the path is empty for `value`
    itself.
    """
    whole, path, reason = type_name(type(value)), "", _failure(value, attempt)
    for _ in range(DEFAULT_LIMITS.depth):
        for step, part in _parts(value):
            failure = _failure(part, attempt)
            if failure is not None:
                path, value, reason = path + step, part, failure
                break
        else:
            return NotEncodable(where(path), *_described(value, reason))
    advice = f"It is nested more than {DEFAULT_LIMITS.depth} deep, or contains itself"
    return NotEncodable(where(""), whole, advice)


def _failure(value: Any, attempt: _Attempt) -> Exception | None:
    try:
        attempt(value)
    except FAILURES as error:
        return error
    return None


def _described(value: Any, reason: Exception | None) -> tuple[str, str]:
    """Return what was found, and advice."""
    if isinstance(reason, Unencodable):
        return reason.found, reason.hint
    if isinstance(reason, OverflowError):
        return type_name(type(value)), "It does not fit in 64 bits: send it as text or as a float"
    return type_name(type(value)), f"The reason: {reason}"


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Tensors):
        return
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield f" (the key {key!r})", key
            yield f"[{key!r}]", item
    elif isinstance(value, list | tuple | set | frozenset):
        yield from ((f"[{i}]", item) for i, item in enumerate(value))
    else:
        names = (name for name in _field_names(value) if hasattr(value, name))
        yield from ((f".{name}", getattr(value, name)) for name in names)


def _field_names(value: Any) -> tuple[str, ...]:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    if dataclasses.is_dataclass(value):
        return tuple(field.name for field in dataclasses.fields(value))
    return tuple(each.name for each in getattr(type(value), "__attrs_attrs__", ()))
