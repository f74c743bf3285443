"""A digest of a value's content, to find out whether a value was changed after it was handed over."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping
from typing import Any

import msgspec

from rolecall.core.tensors import Tensors
from rolecall.wire.codec import pack
from rolecall.wire.extensions import Segment, enc_hook
from rolecall.wire.offender import FAILURES, not_encodable

__all__ = ("fingerprint",)

_sorted_packer = msgspec.msgpack.Encoder(enc_hook=enc_hook, order="deterministic")


def fingerprint(value: Any, *, where: str = "value") -> bytes:
    """Return 16 bytes that are equal for equal content, and differ after any change of it.

    Neither the order of a dict or set nor the identity of objects counts. The arrays in it are read, not
    copied (CRC-32, which never misses a change of up to 32 adjacent bits; other changes go unnoticed once in
    4 billion). It guards against mistakes, not against forgery. Raises `NotEncodable` as `encode` does.
    """
    try:
        return _digest(pack(value, _sorted_packer))
    except FAILURES:
        pass
    try:
        return _digest(pack(_sortable(value)))
    except FAILURES:
        raise not_encodable(value, where.__add__, pack) from None


def _digest(segments: list[Segment]) -> bytes:
    digest = hashlib.blake2b(segments[0], digest_size=16)
    for segment in segments[1:]:
        digest.update(zlib.crc32(segment).to_bytes(4))
    return digest.digest()


def _sortable(value: Any) -> Any:
    """Return `value` with each dict and set as a sorted list, which msgspec can do only for keys of text."""
    if isinstance(value, Tensors):
        return value
    if isinstance(value, Mapping):
        return sorted(((_key(key), _sortable(item)) for key, item in value.items()), key=lambda pair: pair[0])
    if isinstance(value, set | frozenset):
        return sorted(map(_key, value))
    if isinstance(value, list | tuple):
        return [_sortable(item) for item in value]
    fields = getattr(value, "__struct_fields__", None) or getattr(value, "__dataclass_fields__", None)
    if fields and not isinstance(value, type):
        return [_sortable(getattr(value, name)) for name in fields]
    return value


def _key(key: Any) -> bytes:
    return b"".join(pack(key))
