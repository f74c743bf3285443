"""`Tensors`: an immutable, ordered set of named arrays, the form in which models go from role to role.

All arrays of one dtype lie in one flat buffer, in the order of their names, so that adding, averaging,
hashing and sending a model are a few operations on long vectors. torch is not needed; where it is loaded its
tensors go in and out.
"""

from __future__ import annotations

import hashlib
import math
import operator
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, SupportsFloat, TypeAlias, cast

import msgspec
import numpy as np
import numpy.typing as npt

from rolecall.core.errors import CallerError, DataError, MissingDependency, WrongType, nearest
from rolecall.core.whole_files import write_whole

if TYPE_CHECKING:
    import torch
    from typing_extensions import Buffer

__all__ = ("DTYPES", "Array", "Spec", "TensorSpec", "Tensors")

Array: TypeAlias = npt.NDArray[Any]

DTYPES: Mapping[str, np.dtype[Any]] = {
    name: np.dtype(storage)
    for name, storage in {
        "float16": "f2",
        "float32": "f4",
        "float64": "f8",
        "bfloat16": "u2",
        "int8": "i1",
        "int16": "i2",
        "int32": "i4",
        "int64": "i8",
        "uint8": "u1",
        "uint16": "u2",
        "uint32": "u4",
        "uint64": "u8",
        "bool": "?",
    }.items()
}
"""The dtypes a tensor may have, and what holds them in numpy (raw 16 bits for bfloat16, which it lacks)."""

_SAFETENSORS = {
    "F16": "float16",
    "F32": "float32",
    "F64": "float64",
    "BF16": "bfloat16",
    "I8": "int8",
    "I16": "int16",
    "I32": "int32",
    "I64": "int64",
    "U8": "uint8",
    "U16": "uint16",
    "U32": "uint32",
    "U64": "uint64",
    "BOOL": "bool",
}
_ORDER_KEY = "rolecall.order"
_CHUNK = 1 << 16  # values handled at a time where float64 is needed: 512 KiB, which stays in the cache


class TensorSpec(msgspec.Struct, frozen=True, array_like=True):
    """The name, dtype (a key of `DTYPES`) and shape of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def size(self) -> int:
        """The number of values."""
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


Spec: TypeAlias = tuple[TensorSpec, ...]


class Tensors(Mapping[str, Array]):
    """Hold named arrays as one immutable value.

    `Tensors({"w": array, ...})` copies numpy arrays or torch tensors (of any device) in, once. `t["w"]` is a
    read-only numpy view; `t.torch()` gives torch tensors that may be written. Arithmetic (`+ - * /` with a
    number or with `Tensors` of equal `spec`) gives new `Tensors` of the same spec: integers and booleans are
    rounded to the nearest value, and a bfloat16 array is seen as its raw `uint16` bits by `t["w"]` but is
    computed with as the number it is.

    `==` compares spec and values (NaN differs from itself; compare `digest()` for equality of bits). The hash
    is that of the object, not of the value.
    """

    __slots__ = ("__weakref__", "_buffers", "_layout", "_views")
    __array_ufunc__ = None  # numpy scalars on the left leave arithmetic to __radd__ and its kin

    _layout: _Layout
    _buffers: tuple[Array, ...]
    _views: dict[str, Array] | None

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        sources = {_name(name): _source(name, value) for name, value in arrays.items()}
        layout = _layout_of(tuple(TensorSpec(n, dtype, a.shape) for n, (dtype, a) in sources.items()))
        buffers = tuple(np.empty(size, DTYPES[dtype]) for dtype, size in layout.sizes.items())
        views = layout.views(buffers)
        for name, (_, array) in sources.items():
            np.copyto(views[name], array)
        self._adopt(layout, buffers)

    # ------------------------------------------------------------------------------------- other constructors

    @classmethod
    def from_buffers(cls, spec: Sequence[TensorSpec], buffers: Sequence[tuple[str, Buffer]]) -> Self:
        """Return tensors laid over `buffers`, without a copy; the inverse of `spec` and `buffers()`.

        `buffers` has one (dtype, bytes) pair for each dtype, in the order in which the dtypes first appear in
        `spec`. Whoever hands them over must not write to them again. Raises `WrongType` where they do not fit
        the spec.
        """
        layout = _layout_of(tuple(spec))
        found = [dtype for dtype, _ in buffers]
        if found != list(layout.sizes):
            raise WrongType("Tensors.from_buffers", f"buffers of {list(layout.sizes)}", str(found))
        arrays = tuple(_over(dtype, raw, layout.sizes[dtype]) for dtype, raw in buffers)
        return cls.__new__(cls)._adopt(layout, arrays)

    @classmethod
    def from_flat(cls, spec: Sequence[TensorSpec], flat: npt.ArrayLike) -> Self:
        """Return tensors of `spec` (of a single dtype) with the values of the vector `flat`, in order.

        Copies and converts to the spec's dtype. Raises `WrongType` for another length, `CallerError` for
        mixed dtypes.
        """
        return cls.__new__(cls)._adopt(*_from_flat(_layout_of(tuple(spec)), flat))

    def like(self, flat: npt.ArrayLike) -> Self:
        """Return tensors of this spec with the values of the vector `flat` (see `from_flat`)."""
        return self.__new__(type(self))._adopt(*_from_flat(self._layout, flat))

    @classmethod
    def mean(cls, tensors: Iterable[Tensors], weights: Iterable[float] | None = None) -> Self:
        """Return the (weighted) mean of tensors of equal spec.

        Sums in the order of `tensors`, accumulates in float64 and rounds once, so that the result is the same
        on every engine and the mean of equal float32 tensors is those tensors. Weights are finite, not
        negative, and not all zero.
        """
        items = list(tensors)
        if not items:
            raise CallerError("Tensors.mean: there is nothing to average. Give at least one Tensors.")
        factors = _checked_weights(weights, len(items))
        for item in items[1:]:
            items[0]._require_equal_spec(item, "Tensors.mean")
        columns = zip(items[0]._layout.sizes, *(item._buffers for item in items), strict=True)
        means = tuple(_mean_of(dtype, arrays, factors) for dtype, *arrays in columns)
        return cls.__new__(cls)._adopt(items[0]._layout, means)

    @classmethod
    def reduce(cls, tensors: Iterable[Tensors], function: Callable[[Array], Array]) -> Self:
        """Return tensors whose every value is `function` of the values in its place in `tensors`, of equal spec.

        `function` is called for a part of the values at a time: with a float64 array of one row for each of
        `tensors`, whose columns it turns into one number each. What it returns is rounded once.
        """
        items = list(tensors)
        if not items:
            raise CallerError("Tensors.reduce: there is nothing to reduce. Give at least one Tensors.")
        for item in items[1:]:
            items[0]._require_equal_spec(item, "Tensors.reduce")
        columns = zip(items[0]._layout.sizes, *(item._buffers for item in items), strict=True)
        reduced = tuple(_reduced(dtype, arrays, function) for dtype, *arrays in columns)
        return cls.__new__(cls)._adopt(items[0]._layout, reduced)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a safetensors file, written by `save` or by any other program.

        Raises `DataError` when it is missing, damaged, or holds a dtype that `DTYPES` does not list.
        """
        entries, order = _read_safetensors(Path(path))
        arrays = {name: (entry, _file_array(path, name, entry)) for name, entry in entries.items()}
        names = order if set(order) == set(arrays) else list(arrays)
        spec = tuple(TensorSpec(n, _SAFETENSORS[arrays[n][0]["dtype"]], arrays[n][1].shape) for n in names)
        layout = _layout_of(spec)
        buffers = tuple(np.empty(size, DTYPES[dtype]) for dtype, size in layout.sizes.items())
        for name, view in layout.views(buffers).items():
            np.copyto(view, arrays[name][1])
        return cls.__new__(cls)._adopt(layout, buffers)

    def _adopt(self, layout: _Layout, buffers: tuple[Array, ...]) -> Self:
        """Take ownership of `buffers` (one flat array per dtype of the layout) and freeze them."""
        for buffer in buffers:
            buffer.flags.writeable = False
        self._layout, self._buffers, self._views = layout, buffers, None
        return self

    # ------------------------------------------------------------------------------------------ reading

    def __getitem__(self, name: str) -> Array:
        if self._views is None:
            self._views = self._layout.views(self._buffers)
        try:
            return self._views[name]
        except KeyError:
            raise KeyError(f"There is no tensor {name!r}.{nearest(str(name), self._layout.places)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._layout.places)

    def __len__(self) -> int:
        return len(self._layout.spec)

    def __contains__(self, name: object) -> bool:
        return name in self._layout.places

    @property
    def spec(self) -> Spec:
        """The name, dtype and shape of each tensor, in order."""
        return self._layout.spec

    @property
    def size(self) -> int:
        """The number of values in all tensors."""
        return sum(self._layout.sizes.values())

    @property
    def nbytes(self) -> int:
        """The number of bytes in all tensors."""
        return sum(buffer.nbytes for buffer in self._buffers)

    @property
    def flat(self) -> Array:
        """All values as one read-only vector, without a copy; raises `CallerError` where dtypes are mixed."""
        if not self._buffers:
            return np.empty(0, np.float32)
        _single_dtype(self._layout)
        return self._buffers[0].view()

    def buffers(self) -> list[tuple[str, memoryview]]:
        """Return the raw bytes of each dtype, read-only and without a copy (see `from_buffers`)."""
        raw = (buffer.view(np.uint8).data for buffer in self._buffers)
        return list(zip(self._layout.sizes, raw, strict=True))

    def torch(self) -> dict[str, torch.Tensor]:
        """Return copies as torch tensors, which may be written; they share one storage for each dtype."""
        torch = _torch_module()
        copies = tuple(buffer.copy() for buffer in self._buffers)
        dtypes = {s.name: getattr(torch, s.dtype) for s in self.spec}
        return {name: torch.from_numpy(view).view(dtypes[name]) for name, view in self._layout.views(copies).items()}

    def digest(self) -> str:
        """Return a hash (32 hexadecimal digits, BLAKE2b) of names, dtypes, shapes and bytes."""
        digest = hashlib.blake2b(msgspec.msgpack.encode(self.spec), digest_size=16)
        for _, raw in self.buffers():
            digest.update(raw)
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file, at once or not at all; the directory must exist."""
        write_whole(Path(path), [_safetensors_header(self._layout), *(raw for _, raw in _by_alignment(self))])

    # ------------------------------------------------------------------------------------------ arithmetic

    def __add__(self, other: Tensors | SupportsFloat) -> Self:
        return self._combine(other, operator.add, "+")

    def __sub__(self, other: Tensors | SupportsFloat) -> Self:
        return self._combine(other, operator.sub, "-")

    def __mul__(self, other: Tensors | SupportsFloat) -> Self:
        return self._combine(other, operator.mul, "*")

    def __truediv__(self, other: Tensors | SupportsFloat) -> Self:
        return self._combine(other, operator.truediv, "/")

    def __radd__(self, other: SupportsFloat) -> Self:
        return self._combine(other, operator.add, "+")

    def __rsub__(self, other: SupportsFloat) -> Self:
        return self._combine(other, lambda mine, theirs: theirs - mine, "-")

    def __rmul__(self, other: SupportsFloat) -> Self:
        return self._combine(other, operator.mul, "*")

    def __rtruediv__(self, other: SupportsFloat) -> Self:
        return self._combine(other, lambda mine, theirs: theirs / mine, "/")

    def __neg__(self) -> Self:
        return self._combine(-1, operator.mul, "*")

    def _combine(self, other: Tensors | SupportsFloat, op: Callable[[Any, Any], Any], symbol: str) -> Self:
        if isinstance(other, Tensors):
            self._require_equal_spec(other, f"Tensors {symbol} Tensors")
            right: Iterable[Any] = map(_wide, self._layout.sizes, other._buffers)
        else:
            number = _number(other)
            if number is None:
                return cast("Self", NotImplemented)
            right = [number] * len(self._buffers)
        left = map(_wide, self._layout.sizes, self._buffers)
        results = map(_narrow, self._layout.sizes, map(op, left, right))
        return self.__new__(type(self))._adopt(self._layout, tuple(results))

    def norm(self) -> float:
        """Return the Euclidean norm of all values, summed in float64."""
        return math.sqrt(sum(float(np.sum(np.square(part))) for part in self._float64_chunks()))

    def distance(self, other: Tensors) -> float:
        """Return the Euclidean distance to tensors of equal spec, computed in float64."""
        self._require_equal_spec(other, "Tensors.distance")
        pairs = zip(self._float64_chunks(), other._float64_chunks(), strict=True)
        return math.sqrt(sum(float(np.sum(np.square(mine - theirs))) for mine, theirs in pairs))

    def isfinite(self) -> bool:
        """Return whether no value is infinite or NaN."""
        return all(bool(np.isfinite(part).all()) for part in self._float64_chunks())

    def allclose(self, other: Tensors, *, rtol: float = 1e-5, atol: float = 1e-8) -> bool:
        """Return whether `|self - other| <= atol + rtol * |other|` holds everywhere."""
        self._require_equal_spec(other, "Tensors.allclose")
        pairs = zip(self._float64_chunks(), other._float64_chunks(), strict=True)
        return all(np.allclose(mine, theirs, rtol=rtol, atol=atol) for mine, theirs in pairs)

    def _float64_chunks(self) -> Iterator[Array]:
        for dtype, buffer in zip(self._layout.sizes, self._buffers, strict=True):
            for part in _chunks(buffer.size):
                yield _wide(dtype, buffer[part]).astype(np.float64)

    def require_spec(self, spec: Spec, where: str) -> None:
        """Raise `WrongType`, naming `where` and the first difference, unless these tensors are of `spec`."""
        if self.spec is not spec and self.spec != spec:
            raise WrongType(where, *_first_difference(spec, self.spec))

    def _require_equal_spec(self, other: Tensors, where: str) -> None:
        if not isinstance(other, Tensors):
            raise WrongType(where, "Tensors", type(other).__name__)
        other.require_spec(self.spec, where)

    # ------------------------------------------------------------------------------------------ a value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tensors):
            return NotImplemented
        if self.spec != other.spec:
            return False
        wide = (map(_wide, t._layout.sizes, t._buffers) for t in (self, other))
        return all(map(np.array_equal, *wide))

    __hash__ = object.__hash__

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __repr__(self) -> str:
        arrays = f"{len(self)} array{'' if len(self) == 1 else 's'}"
        dtypes = "+".join(self._layout.sizes) or "empty"
        return f"Tensors({arrays}, {self.size:,} values, {dtypes}, {_readable_size(self.nbytes)})"


# ---------------------------------------------------------------------------------------------- layout


class _Layout:
    """Where each tensor of a spec lies: which buffer, from where to where, in which shape."""

    __slots__ = ("places", "sizes", "spec")

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        self.sizes: dict[str, int] = {}
        self.places: dict[str, tuple[int, int, int, tuple[int, ...]]] = {}
        for entry in spec:
            _check_entry(entry, self.places)
            start = self.sizes.get(entry.dtype, 0)
            self.sizes[entry.dtype] = stop = start + entry.size
            self.places[entry.name] = (list(self.sizes).index(entry.dtype), start, stop, entry.shape)

    def views(self, buffers: Sequence[Array]) -> dict[str, Array]:
        return {name: buffers[at][i:j].reshape(shape) for name, (at, i, j, shape) in self.places.items()}


@lru_cache(maxsize=64)
def _layout_of(spec: Spec) -> _Layout:
    return _Layout(spec)


def _check_entry(entry: TensorSpec, seen: Mapping[str, Any]) -> None:
    if entry.name in seen:
        raise CallerError(f"Tensors: two tensors are named {entry.name!r}. Names must differ.")
    if entry.dtype not in DTYPES:
        raise WrongType(f"tensor {entry.name!r}", f"one of {', '.join(DTYPES)}", entry.dtype)
    if any(dim < 0 for dim in entry.shape):
        raise WrongType(f"tensor {entry.name!r}", "dimensions of 0 or more", str(list(entry.shape)))


def _first_difference(expected: Spec, found: Spec) -> tuple[str, str]:
    for mine, theirs in zip(expected, found, strict=False):
        if mine != theirs:
            return f"{mine.name!r} {mine}", f"{theirs.name!r} {theirs}"
    longer = expected if len(expected) > len(found) else found
    extra = longer[min(len(expected), len(found))].name
    note = f" ({'without' if longer is expected else 'with'} {extra!r})"
    return f"{len(expected)} tensors", f"{len(found)}{note}"


def _single_dtype(layout: _Layout) -> str:
    if len(layout.sizes) != 1:
        dtypes = ", ".join(layout.sizes) or "none"
        raise CallerError(f"Tensors: a flat vector needs tensors of one dtype, found: {dtypes}. Use buffers().")
    return next(iter(layout.sizes))


def _from_flat(layout: _Layout, flat: npt.ArrayLike) -> tuple[_Layout, tuple[Array, ...]]:
    values = np.asarray(flat)
    dtype = _single_dtype(layout) if layout.spec else "float32"
    size = layout.sizes.get(dtype, 0)
    if values.shape != (size,):
        raise WrongType("Tensors.from_flat", f"a vector of {size:,} values", f"shape {list(values.shape)}")
    if not layout.spec:
        return layout, ()
    if dtype == "bfloat16" and values.dtype == np.uint16:
        return layout, (values.copy(),)
    return layout, (np.array(_narrow(dtype, values)),)


# ---------------------------------------------------------------------------------------------- what comes in


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise WrongType("the name of a tensor", "str", type(name).__name__)
    return name


def _source(name: str, value: Any) -> tuple[str, Array]:
    """Return the dtype of `value` and a numpy array over its values (a view wherever that is possible)."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        return _torch_source(torch, name, value)
    array = np.asarray(value)
    dtype = array.dtype.newbyteorder("=").name
    if dtype not in DTYPES:
        raise WrongType(f"tensor {name!r}", f"an array of {', '.join(DTYPES)}", f"{type(value).__name__} of {dtype}")
    return dtype, array


def _torch_source(torch: Any, name: str, value: torch.Tensor) -> tuple[str, Array]:
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype not in DTYPES or value.layout != torch.strided:
        raise WrongType(f"tensor {name!r}", f"a dense tensor of {', '.join(DTYPES)}", f"{dtype}, {value.layout}")
    value = value.detach().cpu()
    if dtype == "bfloat16":
        return dtype, value.contiguous().view(torch.int16).numpy().view(np.uint16)
    return dtype, value.numpy()


def _over(dtype: str, raw: Buffer, size: int) -> Array:
    view = memoryview(raw)
    expected = size * DTYPES[dtype].itemsize
    if view.nbytes != expected:
        raise WrongType(f"Tensors.from_buffers: {dtype}", f"{expected:,} bytes", f"{view.nbytes:,}")
    return np.frombuffer(view, DTYPES[dtype]) if size else np.empty(0, DTYPES[dtype])


def _number(value: object) -> int | float | None:
    """Return `value` as a Python number, which unlike a numpy one never changes the dtype of an array."""
    if isinstance(value, int | float):
        return value
    if isinstance(value, np.ndarray | np.generic) and value.ndim == 0 and value.dtype.kind in "iufb":
        return cast("int | float", value.item())
    return None


def _checked_weights(weights: Iterable[float] | None, count: int) -> list[float]:
    values = [1.0] * count if weights is None else [float(weight) for weight in weights]
    if len(values) != count:
        raise CallerError(f"Tensors.mean: {count} tensors but {len(values)} weights. Give one weight for each.")
    wrong = [w for w in values if not (math.isfinite(w) and w >= 0)]
    if wrong:
        raise CallerError(f"Tensors.mean: a weight is {wrong[0]}. Weights are finite and not negative.")
    if not sum(values) > 0:
        raise CallerError("Tensors.mean: all weights are zero. At least one must be positive.")
    return values


def _torch_module() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingDependency("torch", needed_for="Tensors.torch()", extra="torch") from None
    return torch


# ---------------------------------------------------------------------------------------------- computing


def _chunks(size: int) -> Iterator[slice]:
    return (slice(i, j) for i, j in pairwise([*range(0, size, _CHUNK), size])) if size else iter(())


def _wide(dtype: str, array: Array) -> Array:
    """Return `array` in a dtype that numpy computes with."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return array.astype(np.int8) if dtype == "bool" else array


def _narrow(dtype: str, result: Array) -> Array:
    """Return what was computed in the dtype it is kept in; a new array or `result` itself."""
    if dtype == "bfloat16":
        return _bfloat16_bits(result.astype(np.float32, copy=False))
    if dtype.startswith("float"):
        return result.astype(DTYPES[dtype], copy=False)
    whole = np.rint(result) if result.dtype.kind == "f" else result
    return whole.astype(DTYPES[dtype], copy=False)


def _bfloat16_bits(values: npt.NDArray[np.float32]) -> Array:
    """Round float32 to the nearest bfloat16, ties to even; NaN stays NaN."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))
    return np.where(np.isnan(values), np.uint32(0x7FC0), rounded >> np.uint32(16)).astype(np.uint16)


def _mean_of(dtype: str, arrays: Sequence[Array], weights: Sequence[float]) -> Array:
    mean = np.empty_like(arrays[0])
    total = sum(weights)
    for part in _chunks(mean.size):
        summed = np.zeros(part.stop - part.start)
        for array, weight in zip(arrays, weights, strict=True):
            summed += np.multiply(_wide(dtype, array[part]), weight, dtype=np.float64)
        mean[part] = _narrow(dtype, summed / total)
    return mean


def _reduced(dtype: str, arrays: Sequence[Array], function: Callable[[Array], Array]) -> Array:
    result = np.empty_like(arrays[0])
    for part in _chunks(result.size):
        rows = np.stack([_wide(dtype, array[part]).astype(np.float64) for array in arrays])
        result[part] = _narrow(dtype, function(rows))
    return result


# ---------------------------------------------------------------------------------------------- files


def _read_safetensors(path: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    import safetensors

    try:
        raw = path.read_bytes()
        entries = dict(safetensors.deserialize(raw))  # type: ignore[no-untyped-call]
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror}") from error
    except safetensors.SafetensorError as error:
        raise DataError(path, f"is not a whole safetensors file: {error}") from error
    header = msgspec.json.decode(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    return entries, _stored_order(header)


def _stored_order(header: Any) -> list[str]:
    try:
        return msgspec.json.decode(header["__metadata__"][_ORDER_KEY], type=list[str])
    except (KeyError, TypeError, msgspec.DecodeError):
        return []  # written by another program: the order of the file will do


def _file_array(path: object, name: str, entry: Mapping[str, Any]) -> Array:
    dtype = _SAFETENSORS.get(entry["dtype"])
    if dtype is None:
        raise DataError(path, f"tensor {name!r} is of dtype {entry['dtype']}", f"Known are {', '.join(_SAFETENSORS)}")
    return np.frombuffer(entry["data"], DTYPES[dtype]).reshape(entry["shape"])


def _by_alignment(tensors: Tensors) -> list[tuple[str, memoryview]]:
    """Return the buffers, widest dtype first, so that in a file every tensor is aligned to its width."""
    return sorted(tensors.buffers(), key=lambda item: -DTYPES[item[0]].itemsize)


def _safetensors_header(layout: _Layout) -> bytes:
    """Return what stands before the buffers in a safetensors file: a length, and JSON padded to 8 bytes."""
    kinds = {dtype: kind for kind, dtype in _SAFETENSORS.items()}
    ends = dict.fromkeys(layout.sizes, 0)
    end = 0
    for dtype in sorted(layout.sizes, key=lambda name: -DTYPES[name].itemsize):
        ends[dtype], end = end, end + layout.sizes[dtype] * DTYPES[dtype].itemsize
    header: dict[str, Any] = {"__metadata__": {_ORDER_KEY: msgspec.json.encode(list(layout.places)).decode()}}
    for entry in layout.spec:
        begin = ends[entry.dtype]
        ends[entry.dtype] = stop = begin + entry.size * DTYPES[entry.dtype].itemsize
        header[entry.name] = {
            "dtype": kinds[entry.dtype],
            "shape": entry.shape,
            "data_offsets": [begin, stop],
        }
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _readable_size(count: int) -> str:
    if count < 1000:
        return f"{count} B"
    power = min(int(math.log10(count)) // 3, 4)
    return f"{count / 1000**power:.1f} {('B', 'kB', 'MB', 'GB', 'TB')[power]}"
