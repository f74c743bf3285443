"""What MessagePack does not know: arrays, `Tensors`, role ids and subclasses of plain types.

An array is left out of the MessagePack. In its place stands an extension that says its dtype and shape, and
which of the segments beside it has its bytes. The extension is recognised whatever type the receiver expects,
`Any` included.
"""

from __future__ import annotations

import sys
import threading
import typing
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec.msgpack import Ext

from rolecall.core.annotations import type_name
from rolecall.core.errors import RolecallError
from rolecall.core.tensors import Tensors, TensorSpec
from rolecall.wire.arrays import (
    STORAGE,
    Unencodable,
    aligned,
    array_from,
    check_shape,
    raw_bytes,
    raw_parts,
    widened,
)
from rolecall.wire.limits import DEFAULT_LIMITS, Malformed
from rolecall.wire.message import Message

__all__ = ("Segment", "dec_hook", "enc_hook", "ext_hook", "incoming", "outgoing")

Segment: typing.TypeAlias = bytes | memoryview

_TENSORS, _ARRAY = 1, 2  # codes of extensions; MessagePack itself has those below zero
_NUMPY = (np.ndarray, np.generic)
_UNWRAP: dict[type, typing.Callable[[Any], Any]] = {  # None and bool have no subclasses
    str: str.__str__,
    float: float.__float__,
    int: int.__int__,
    bytes: lambda value: bytes(memoryview(value)),
}


class _TensorsHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    first: int  # the segment of the first dtype; those of the others follow it
    spec: tuple[TensorSpec, ...]


class _ArrayHeader(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    segment: int
    dtype: str
    shape: tuple[int, ...]


_pack_header = msgspec.msgpack.Encoder().encode
_tensors_header = msgspec.msgpack.Decoder(_TensorsHeader)
_array_header = msgspec.msgpack.Decoder(_ArrayHeader)


# ---------------------------------------------------------------------------------- on the way out


class Outgoing(threading.local):
    """Where the hook leaves the bytes of the arrays it meets in the value that this thread is encoding."""

    segments: list[Segment] | None = None
    dtypes: list[str] | None = None  # of the segments after the first, where someone wants to know


outgoing = Outgoing()


def enc_hook(value: Any) -> Any:
    """Return what stands for `value` in the MessagePack; raise `Unencodable` where nothing can."""
    if isinstance(value, Tensors):
        return _packed_tensors(value)
    if isinstance(value, np.generic) and value.dtype.kind in "biuf" and value.dtype.itemsize <= 8:
        return value.item()
    if isinstance(value, _NUMPY) or is_torch(value):
        return _packed_array(value)
    for plain, unwrap in _UNWRAP.items():
        if isinstance(value, plain):
            return unwrap(value)
    raise Unencodable(type_name(type(value)))


def is_torch(value: object) -> bool:
    """Return whether `value` is a torch tensor; there is none where torch has not been imported."""
    tensor = getattr(sys.modules.get("torch"), "Tensor", None)
    return tensor is not None and isinstance(value, tensor)


def _packed_tensors(value: Tensors) -> Ext:
    # Empty Tensors have no segment, and then it does not matter which one they name.
    first = [_leave(dtype, raw) for dtype, raw in value.buffers()][:1] or [0]
    return Ext(_TENSORS, _pack_header(_TensorsHeader(first[0], value.spec)))


def _packed_array(value: Any) -> Ext:
    dtype, array = raw_parts(value)
    return Ext(_ARRAY, _pack_header(_ArrayHeader(_leave(dtype, raw_bytes(array)), dtype, array.shape)))


def _leave(dtype: str, raw: memoryview) -> int:
    """Put the bytes of an array beside the MessagePack, and return their place."""
    segments, dtypes = outgoing.segments, outgoing.dtypes
    if segments is None:
        raise RuntimeError("enc_hook works only within rolecall.wire.codec.pack")
    segments.append(raw)
    if dtypes is not None:
        dtypes.append(dtype)
    return len(segments) - 1


# ---------------------------------------------------------------------------------------------- on the way in


class Incoming(threading.local):
    """What a hook is to look at: msgspec has no other way to tell it."""

    message = Message((), DEFAULT_LIMITS)


incoming = Incoming()


def ext_hook(code: int, data: memoryview) -> Any:
    """Return the array or `Tensors` that an extension stands for; raise `Malformed` or `LimitExceeded`."""
    try:
        if code == _TENSORS:
            return _unpacked_tensors(*_tensors_parts(data))
        if code == _ARRAY:
            return _unpacked_array(_array_header.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"The header of an array is damaged: {error}.") from None
    raise Malformed(f"MessagePack extension {code} is not known here.")


def _tensors_parts(data: memoryview) -> tuple[_TensorsHeader, tuple[str, ...]]:
    return _known_header(bytes(data)) if len(data) < _CACHED_MAX else _checked_header(data)


def _checked_header(data: bytes | memoryview) -> tuple[_TensorsHeader, tuple[str, ...]]:
    """Return the header of `Tensors`, and the dtypes of its segments."""
    header = _tensors_header.decode(data)
    for entry in header.spec:
        check_shape(entry.dtype, entry.shape)
    return header, tuple(dict.fromkeys(entry.dtype for entry in header.spec))


# A model comes again and again with the same header. Long ones are left out: nobody shall fill our memory.
_known_header = lru_cache(maxsize=32)(_checked_header)
_CACHED_MAX = 8_192


def _unpacked_tensors(header: _TensorsHeader, dtypes: tuple[str, ...]) -> Tensors:
    _count_tensors(len(header.spec))
    buffers = [(dtype, aligned(dtype, _segment(header.first + i))) for i, dtype in enumerate(dtypes)]
    try:
        return Tensors.from_buffers(header.spec, buffers)
    except RolecallError as error:
        raise Malformed(f"Tensors arrived that do not fit together: {error}") from error


def _unpacked_array(header: _ArrayHeader) -> npt.NDArray[Any]:
    _count_tensors(1)
    array = array_from(header.dtype, header.shape, _segment(header.segment))
    if header.dtype != "bfloat16":
        return array
    array = widened(array)
    array.flags.writeable = False
    incoming.message.bfloat16 += (array,)
    return array


def _count_tensors(more: int) -> None:
    message = incoming.message
    message.tensors += more
    message.limits.check("tensors", message.tensors)


def _segment(index: int) -> Segment:
    segments = incoming.message.segments
    if not 0 < index < len(segments):
        raise Malformed(f"An array should be in segment {index}, but there are {len(segments)} (from 0).")
    return segments[index]


# ---------------------------------------------------------------------------------- into declared types


def dec_hook(hint: Any, found: Any) -> Any:
    """Return `found` as `hint`, a type that msgspec does not know; raise `TypeError` if it is not of it."""
    if type(found) is hint:
        return found
    target = typing.get_origin(hint) or hint
    if not isinstance(target, type):
        return found  # a TypeVar: nothing to check it by
    if getattr(target, "_is_protocol", False) and not getattr(target, "_is_runtime_protocol", False):
        raise TypeError(f"{type_name(target)} is a Protocol without @runtime_checkable, and cannot be checked")
    if issubclass(target, np.ndarray):
        return _as_array(hint, target, found)
    if issubclass(target, np.generic):
        return _as_scalar(target, found)
    if isinstance(found, target):
        return found
    if isinstance(found, np.ndarray) and target is getattr(sys.modules.get("torch"), "Tensor", None):
        return _as_torch(found)
    if any(issubclass(target, plain) and isinstance(found, plain) for plain in _UNWRAP):
        return typing.cast(Any, target)(found)
    raise _mismatch(hint, type_name(type(found)))


def _mismatch(hint: Any, found: str) -> TypeError:
    # In the words of msgspec, which adds where in the value it was.
    return TypeError(f"Expected `{type_name(hint)}`, got `{found}`")


def _as_array(hint: Any, target: type, found: Any) -> npt.NDArray[Any]:
    if not isinstance(found, np.ndarray) or not isinstance(found, target):
        raise _mismatch(hint, type_name(type(found)))
    kind = _declared_scalar(hint)
    if kind is not None and not issubclass(found.dtype.type, kind):
        raise _mismatch(hint, f"ndarray of {found.dtype}")
    return found


def _declared_scalar(hint: Any) -> type[np.generic] | None:
    """Return `numpy.float32` for `NDArray[numpy.float32]`, and nothing for an array of any dtype."""
    dtype = next(iter(typing.get_args(hint)[1:]), None)
    scalar = next(iter(typing.get_args(dtype)), None)
    return scalar if isinstance(scalar, type) and issubclass(scalar, np.generic) else None


def _as_scalar(target: type[np.generic], found: Any) -> np.generic:
    if isinstance(found, int | float):
        found = np.asarray(found)
    if not isinstance(found, np.ndarray) or found.ndim:
        raise _mismatch(target, type_name(type(found)))
    scalar = found.dtype.type(found[()])
    if isinstance(scalar, target):
        return scalar
    fits = {"f": "iuf", "c": "iufc", "i": "iu", "u": "iu"}.get(_kind(target), "")
    converted = scalar.astype(target) if scalar.dtype.kind in fits else None
    if converted is None or (_kind(target) in "iu" and converted != scalar):
        raise _mismatch(target, f"{type_name(type(scalar))} {scalar}")
    return typing.cast(np.generic, converted)


def _kind(scalar: type[np.generic]) -> str:
    """Return numpy's letter for a kind of number; nothing for an abstract type like `numpy.floating`."""
    return np.dtype(scalar).kind if scalar.__name__ in STORAGE else ""


def _as_torch(found: npt.NDArray[Any]) -> Any:
    # A copy: torch has no read-only tensors, and whoever writes to one must not reach the bytes that arrived.
    torch = sys.modules["torch"]
    tensor = torch.from_numpy(found.copy())
    return tensor.to(torch.bfloat16) if any(found is each for each in incoming.message.bfloat16) else tensor
