"""How much memory a value takes, roughly and quickly: what bounds a mailbox."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
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
    return _MEASURES.get(type(value), _other)(value, _LEVELS)


def _size(value: Any, levels: int) -> int:
    return _MEASURES.get(type(value), _other)(value, levels)


def _small(value: Any, levels: int) -> int:
    return _SMALL


def _sized(value: Any, levels: int) -> int:
    return _SMALL + len(value)


def _array(value: Any, levels: int) -> int:
    return _SMALL + int(value.nbytes)


def _items(value: Any, levels: int) -> int:
    if not levels or not value:
        return _SMALL
    sample = [_size(item, levels - 1) for item in islice(value, _SAMPLE)]
    return _SMALL + sum(sample) * len(value) // len(sample)


def _pairs(value: Any, levels: int) -> int:
    if not levels or not value:
        return _SMALL
    sample = [_size(k, levels - 1) + _size(v, levels - 1) for k, v in islice(value.items(), _SAMPLE)]
    return _SMALL + sum(sample) * len(value) // len(sample)


def _fields(value: Any, levels: int) -> int:
    if not levels:
        return _SMALL
    kind: Any = type(value)
    names: Iterable[str] = getattr(kind, "__struct_fields__", getattr(kind, "__dataclass_fields__", ()))
    return _SMALL + sum(_size(getattr(value, name, None), levels - 1) for name in names)


_Measure = Callable[[Any, int], int]

_MEASURES: dict[type, _Measure] = {
    **dict.fromkeys((type(None), bool, int, float), _small),
    **dict.fromkeys((str, bytes, bytearray, memoryview), _sized),
    **dict.fromkeys((Tensors, np.ndarray), _array),
    **dict.fromkeys((tuple, list, set, frozenset), _items),
    dict: _pairs,
}

_BASES: tuple[tuple[type, _Measure], ...] = (
    (msgspec.Struct, _fields),
    (str, _sized),
    (bytes, _sized),
    (Tensors, _array),
    (np.ndarray, _array),
    (np.generic, _array),
    (Mapping, _pairs),
    (Sequence, _items),
    (Set, _items),
)


def _other(value: Any, levels: int) -> int:
    """Measure what is not exactly of one of the common types, such as a role id or a struct."""
    for base, measure in _BASES:
        if isinstance(value, base):
            return measure(value, levels)
    return (_array if is_torch(value) else _fields)(value, levels)
