"""Arrays of numpy and torch as a dtype, a shape and raw bytes, and back, with no copy that is not needed."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.core.tensors import DTYPES
from rolecall.wire.limits import Malformed

__all__ = (
    "STORAGE",
    "Unencodable",
    "aligned",
    "array_from",
    "check_shape",
    "raw_bytes",
    "raw_parts",
    "widened",
)

STORAGE: Mapping[str, np.dtype[Any]] = {
    **DTYPES,
    "complex64": np.dtype("c8"),
    "complex128": np.dtype("c16"),
}
"""The dtypes an array may have on the wire, and what holds them in numpy."""

_DIMENSIONS_MAX = 32  # what numpy 1 allows; numpy 2 allows 64
_BYTES_MAX = (1 << 63) - 1  # numpy counts bytes in 64 bits, those that an empty array would have included

_ADVICE = f"Convert it to one of {', '.join(STORAGE)}"


class Unencodable(TypeError):
    """A value that cannot travel: what was found, and what to do instead."""

    def __init__(self, found: str, hint: str = "") -> None:
        super().__init__(found)
        self.found, self.hint = found, hint


def raw_parts(value: Any) -> tuple[str, npt.NDArray[Any]]:
    """Return the dtype (a key of `STORAGE`) of an array of numpy or torch, and its values in C order."""
    if not isinstance(value, np.ndarray | np.generic):
        return _torch_parts(value)
    if isinstance(value, np.ma.MaskedArray):
        raise Unencodable("numpy.ma.MaskedArray", "Send its data and its mask as two arrays")
    array = np.asarray(value)
    name = array.dtype.newbyteorder("=").name
    if name not in STORAGE:
        raise Unencodable(f"{_described(value)} of dtype {name}", _ADVICE)
    # Not ascontiguousarray, which would turn a single value into an array of one dimension.
    return name, np.asarray(array, STORAGE[name], order="C")


def _torch_parts(value: Any) -> tuple[str, npt.NDArray[Any]]:
    torch = sys.modules["torch"]
    name = str(value.dtype).removeprefix("torch.")
    if name not in STORAGE or value.layout != torch.strided or value.is_meta:
        found = f"torch.Tensor of dtype {name}, {value.layout}, on {value.device}"
        raise Unencodable(found, f"Send a dense tensor. {_ADVICE}")
    value = value.detach().cpu().resolve_conj().resolve_neg().contiguous()
    if name == "bfloat16":
        return name, value.view(torch.int16).numpy().view(np.uint16)
    return name, value.numpy()


def _described(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def raw_bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the bytes of an array in C order, read-only and without a copy."""
    return array.reshape(-1).view(np.uint8).data.toreadonly()


def check_shape(dtype: str, shape: Sequence[int]) -> int:
    """Return how many bytes an array takes; raise `Malformed` where there cannot be such an array."""
    storage = STORAGE.get(dtype)
    if storage is None:
        raise Malformed(f"An array arrived with the unknown dtype {dtype[:40]!r}.")
    if len(shape) > _DIMENSIONS_MAX:
        raise Malformed(f"An array arrived with {len(shape)} dimensions; {_DIMENSIONS_MAX} are allowed.")
    if any(size < 0 for size in shape):
        raise Malformed(f"An array arrived with a negative dimension: {list(shape)}.")
    if math.prod(size or 1 for size in shape) * storage.itemsize > _BYTES_MAX:
        raise Malformed(f"An array arrived with an impossible shape: {list(shape)}.")
    return math.prod(shape) * storage.itemsize


def aligned(dtype: str, raw: bytes | memoryview) -> bytes | memoryview:
    """Return `raw`, or a copy of it where values of that dtype do not start at an address that suits them.

    Computing with unaligned arrays is slower, and sums come out with other last digits: numpy adds in another
    order.
    """
    storage = STORAGE[dtype]
    if not raw or len(raw) % storage.itemsize or np.frombuffer(raw, storage).flags.aligned:
        return raw
    return bytes(raw)


def array_from(dtype: str, shape: Sequence[int], raw: bytes | memoryview) -> npt.NDArray[Any]:
    """Return a read-only array of that dtype and shape over `raw` (see `aligned`); raises `Malformed`."""
    expected = check_shape(dtype, shape)
    raw = aligned(dtype, raw)
    if len(raw) != expected:
        raise Malformed(f"A {dtype} array {list(shape)} takes {expected:,} bytes, but {len(raw):,} came.")
    flat = np.frombuffer(raw, STORAGE[dtype]) if expected else np.empty(0, STORAGE[dtype])
    array = flat.reshape(shape)
    array.flags.writeable = False
    return array


def widened(bits: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Return bfloat16 values, given as their bits, as float32, which holds each of them exactly."""
    return (bits.astype(np.uint32) << np.uint32(16)).view(np.float32)
