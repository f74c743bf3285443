"""Values in files: a safetensors file, the arrays as its tensors and everything else in its metadata.

The format is 8 bytes with the length of a JSON header, the header, and the bytes of the tensors. It is
written and read here so that arrays of any size go straight between memory and file.
"""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Any, TypeVar, overload

import msgspec

from rolecall.core.errors import DataError
from rolecall.core.whole_files import write_whole
from rolecall.wire.codec import Segment, decode, encode
from rolecall.wire.extensions import outgoing
from rolecall.wire.limits import Limits, Malformed

__all__ = ("load_value", "save_value")

T = TypeVar("T")

_METADATA, _VALUE = "__metadata__", "rolecall.value"
_ALIGNMENT = 8  # of the first tensor in the file
_DTYPES = {
    **{f"int{bits}": f"I{bits}" for bits in (8, 16, 32, 64)},
    **{f"uint{bits}": f"U{bits}" for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"F{bits}" for bits in (16, 32, 64)},
    "bfloat16": "BF16",
    "bool": "BOOL",
}
"""The names safetensors has for dtypes; what it has no name for is written as bytes."""

# A file is as large as its owner made it.
_LIMITS = Limits(message_bytes=1 << 62, segments=1 << 30, tensors=1 << 30)


class _Entry(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]
    data_offsets: tuple[int, int]


def save_value(path: str | os.PathLike[str], value: Any) -> None:
    """Write any value that can travel to a safetensors file, at once or not at all; the directory must exist.

    Its arrays become tensors of one dimension named `1`, `2`, ..., which other programs can read too. Raises
    `NotEncodable` for a value that cannot travel, and `DataError` where the file cannot be written.
    """
    segments, dtypes = _encoded(value, str(path))
    try:
        write_whole(Path(path), [_header(segments, dtypes), *segments[1:]])
    except OSError as error:
        raise DataError(path, f"cannot be written: {error.strerror or error}") from error


@overload
def load_value(path: str | os.PathLike[str], type: type[T]) -> T: ...
@overload
def load_value(path: str | os.PathLike[str], type: Any = ...) -> Any: ...
def load_value(path: str | os.PathLike[str], type: Any = Any) -> Any:
    """Return the value of declared type `type` that `save_value` wrote.

    Raises `DataError` for a file that is missing, damaged or written by something else, and `WrongType`,
    which says where, for a value of another type.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise DataError(path, f"cannot be read: {error.strerror or error}") from error
    try:
        return decode(_segments(content), type, limits=_LIMITS, where=str(path))
    except Malformed as error:
        raise DataError(path, f"holds no value that rolecall saved, or a part of one: {error}") from error


# ---------------------------------------------------------------------------------------------- writing


def _encoded(value: Any, where: str) -> tuple[list[Segment], list[str]]:
    dtypes: list[str] = []
    outgoing.dtypes = dtypes
    try:
        return encode(value, where=where), dtypes
    finally:
        outgoing.dtypes = None


def _header(segments: list[Segment], dtypes: list[str]) -> bytes:
    entries: dict[str, Any] = {_METADATA: {_VALUE: base64.b64encode(segments[0]).decode()}}
    start = 0
    for i, (raw, dtype) in enumerate(zip(segments[1:], dtypes, strict=True), 1):
        entries[str(i)] = _entry(dtype, start, len(raw))
        start += len(raw)
    header = msgspec.json.encode(entries)
    header += b" " * (-len(header) % _ALIGNMENT)
    return len(header).to_bytes(8, "little") + header


def _entry(dtype: str, start: int, size: int) -> _Entry:
    stored = _DTYPES.get(dtype, "U8")
    value_bytes = 1 if stored == "BOOL" else int(stored.lstrip("BFIU")) // 8
    return _Entry(stored, (size // value_bytes,), (start, start + size))


# ---------------------------------------------------------------------------------------------- reading


def _segments(content: bytes) -> list[Segment]:
    start = 8 + int.from_bytes(content[:8], "little")
    if len(content) < 8 or start > len(content):
        raise Malformed(f"the file has {len(content):,} bytes, fewer than its header should have.")
    entries, packed = _parsed(content[8:start])
    body = memoryview(content)[start:]
    return [packed, *(_body_part(body, entries, str(i)) for i in range(1, len(entries) + 1))]


def _parsed(header: bytes) -> tuple[dict[str, _Entry], bytes]:
    try:
        raw = msgspec.json.decode(header, type=dict[str, msgspec.Raw])
        packed = msgspec.json.decode(raw.pop(_METADATA, b"{}"), type=dict[str, str]).get(_VALUE)
        entries = {name: msgspec.json.decode(entry, type=_Entry) for name, entry in raw.items()}
        if packed is None:
            raise Malformed(f"its metadata has no {_VALUE!r}.")
        return entries, base64.b64decode(packed.encode(), validate=True)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, binascii.Error) as error:
        raise Malformed(f"its header is damaged: {error}.") from error


def _body_part(body: memoryview, entries: dict[str, _Entry], name: str) -> memoryview:
    if name not in entries:
        raise Malformed(f"it has no tensor {name!r}.")
    start, stop = entries[name].data_offsets
    if not 0 <= start <= stop <= len(body):
        raise Malformed(f"tensor {name!r} lies at bytes {start:,} to {stop:,} of {len(body):,}.")
    return body[start:stop]
