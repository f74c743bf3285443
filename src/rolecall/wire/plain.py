"""Values as JSON knows them, for people and for programs in any language; not meant to be read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from rolecall.core.errors import RolecallError
from rolecall.core.tensors import Tensors
from rolecall.wire.codec import decode, encode

__all__ = ("as_json",)

ARRAY_MAX = 64
"""Arrays with more values than these are described, not listed."""


def as_json(value: Any) -> Any:
    """Return a value that could travel between nodes as None, bool, int, float, str, list or dict.

    Structs become dicts; `Tensors` and large arrays become descriptions, such as "float32 [784, 10]". What cannot
    travel becomes its `repr`.
    """
    try:
        return _plain(decode(encode(value)))
    except RolecallError:
        return repr(value)


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Tensors():
            return {spec.name: str(spec) for spec in value.spec}
        case Mapping():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case _:
            return _array(value) if hasattr(value, "dtype") else msgspec.to_builtins(value)


def _array(value: Any) -> Any:
    if value.size > ARRAY_MAX:
        return f"{value.dtype} {list(value.shape)}"
    return _plain(value.tolist())
