"""How much memory a value takes, roughly and quickly: what bounds a mailbox."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import msgspec
import numpy as np

from rolecall.core.tensors import Tensors
from rolecall.wire.extensions import is_torch

__all__ = ("size_bytes",)

_SMALL = 16  # a number, a flag, None
_SAMPLE = 16  # items of a long collection that are looked at
_LEVELS = 4  # of collections inside one another


def size_bytes(value: Any) -> int:
    """Return about how many bytes `value` takes, exact for arrays and `Tensors`, without encoding it.

    Of a long collection only the first items are looked at, and of deep nesting only the first levels, so
    that it never takes more than some microseconds.
    """
    return _size(value, _LEVELS)


def _size(value: Any, levels: int) -> int:
    measure = _MEASURES.get(type(value))
    if measure is not None:
        return measure(value)
    if isinstance(value, str | bytes | bytearray | memoryview):
        return _SMALL + len(value)
    if isinstance(value, Tensors | np.ndarray | np.generic) or is_torch(value):
        return _SMALL + int(value.nbytes)
    return _SMALL + (_inside(value, levels - 1) if levels else 0)


_MEASURES: dict[type, Callable[[Any], int]] = {
    type(None): lambda _: _SMALL,
    bool: lambda _: _SMALL,
    int: lambda _: _SMALL,
    float: lambda _: _SMALL,
    str: lambda text: _SMALL + len(text),
    bytes: lambda data: _SMALL + len(data),
    Tensors: lambda tensors: _SMALL + tensors.nbytes,
    np.ndarray: lambda array: _SMALL + array.nbytes,
}


def _inside(value: Any, levels: int) -> int:
    if isinstance(value, dict | Mapping):
        sample = [_size(k, levels) + _size(v, levels) for k, v in islice(value.items(), _SAMPLE)]
        return _extrapolated(sample, len(value))
    if isinstance(value, tuple | list | set | frozenset | Sequence):
        return _extrapolated([_size(item, levels) for item in islice(value, _SAMPLE)], len(value))
    return sum(_size(getattr(value, name, None), levels) for name in _field_names(value))


def _field_names(value: Any) -> Iterable[str]:
    if isinstance(value, msgspec.Struct):
        return value.__struct_fields__
    return tuple(getattr(value, "__dataclass_fields__", ()))


def _extrapolated(sample: list[int], count: int) -> int:
    return sum(sample) * count // len(sample) if sample else 0
