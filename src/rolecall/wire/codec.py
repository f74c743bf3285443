"""Values as segments of bytes, and back: MessagePack first, then the raw buffers of the arrays it refers to.

What travels: None, bool, int, float, str, bytes, list, tuple, dict, set, frozenset, datetime, date, time,
timedelta, UUID, Decimal, Enum, `msgspec.Struct`, dataclasses, NamedTuples, role ids, numpy arrays and
scalars, torch tensors and `Tensors`, inside one another at will. There is no pickle, and nothing that arrives
can name code to run.

The declared type decides what arrives. Under `Any`, a tuple or a set arrives as a list, a struct or dataclass
as a dict, an Enum as its value, and a torch tensor as a numpy array; arrays and `Tensors` arrive as what they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Generic, TypeVar, overload

import msgspec

from rolecall.core.annotations import type_name
from rolecall.core.errors import DeclarationError, WrongType
from rolecall.wire.extensions import Segment, dec_hook, enc_hook, ext_hook, incoming, outgoing
from rolecall.wire.limits import DEFAULT_LIMITS, LimitExceeded, Limits, Malformed
from rolecall.wire.message import Message
from rolecall.wire.mismatch import mismatch_of
from rolecall.wire.nesting import check_depth
from rolecall.wire.offender import FAILURES, not_encodable

__all__ = (
    "Codec",
    "Segment",
    "are_plain",
    "decode",
    "decoder_for",
    "encode",
    "pack",
    "pack_plain",
    "unpack",
    "unpack_raw",
)

T = TypeVar("T")

_packer: Final = msgspec.msgpack.Encoder(enc_hook=enc_hook)
_PLAIN: Final = frozenset((int, float, bool, str, bytes, type(None)))
_EXTENSIONS: Final = bytes((0xC7, 0xC8, 0xC9, 0xD4, 0xD5, 0xD6, 0xD7, 0xD8))
"""With which of these an extension begins."""
_SHORT_BYTES: Final = 64
"""A message of so many bytes is within the usual limits whatever is in it. It is looked at for extensions, which takes
less time than to prepare for them."""
_USUAL: Final = DEFAULT_LIMITS
_outgoing: Final = outgoing
_incoming: Final = incoming


def encode(value: Any, *, where: str = "value") -> list[Segment]:
    """Return `value` as segments: MessagePack, and then the bytes of each array in it, which are not copied.

    The segments share memory with the arrays: the value must not be changed until they have been sent. Raises
    `NotEncodable`, which says which part of the value cannot travel, starting from `where`.
    """
    try:
        return pack_plain(value) if type(value) in _PLAIN else pack(value)
    except FAILURES:
        raise not_encodable(value, where.__add__, pack) from None


@overload
def decode(segments: Sequence[Segment], type: type[T], *, limits: Limits = ..., where: str = ...) -> T: ...
@overload
def decode(segments: Sequence[Segment], type: Any = ..., *, limits: Limits = ..., where: str = ...) -> Any: ...
def decode(
    segments: Sequence[Segment],
    type: Any = Any,
    *,
    limits: Limits = DEFAULT_LIMITS,
    where: str = "value",
) -> Any:
    """Return the value of declared type `type` that `encode` made the segments from.

    Its arrays are read-only views of the segments. Raises `WrongType` (place, expected, found) for a value of
    another type, `Malformed` for bytes that are no value, and `LimitExceeded` for a value beyond `limits`.
    """
    return unpack(decoder_for(type, where), segments, limits, type, where)


class Codec(Generic[T]):
    """`encode` and `decode` for one declared type, prepared once; `where` is how errors name the value.

    Raises `DeclarationError` for a type that cannot be told apart on the wire, such as `Tensors | str`.
    """

    __slots__ = ("_decoder", "limits", "type", "where")

    def __init__(self, type: Any = Any, *, where: str = "value", limits: Limits = DEFAULT_LIMITS) -> None:
        self.type, self.where, self.limits = type, where, limits
        self._decoder = decoder_for(type, where)

    def encode(self, value: T) -> list[Segment]:
        """Return `value` as segments; see `rolecall.wire.encode`."""
        return encode(value, where=self.where)

    def decode(self, segments: Sequence[Segment]) -> T:
        """Return the value the segments hold; see `rolecall.wire.decode`."""
        value: T = unpack(self._decoder, segments, self.limits, self.type, self.where)
        return value


# ---------------------------------------------------------------------------------------------- packing


def are_plain(values: tuple[Any, ...]) -> bool:
    """Say whether all values are plain: such as have nothing that travels beside the MessagePack."""
    return all(type(value) in _PLAIN for value in values)


def pack_plain(value: Any) -> list[Segment]:
    """Return as a segment what has nothing that travels beside it, or raise one of `FAILURES`."""
    return [_packer.encode(value)]


def pack(value: Any, packer: msgspec.msgpack.Encoder = _packer) -> list[Segment]:
    """Return `value` as segments, or raise one of `FAILURES`."""
    segments: list[Segment] = [b""]
    outer, _outgoing.segments = _outgoing.segments, segments
    try:
        segments[0] = packer.encode(value)
    finally:
        _outgoing.segments = outer
    return segments


# ---------------------------------------------------------------------------------------------- unpacking


def decoder_for(hint: Any, where: str) -> msgspec.msgpack.Decoder[Any]:
    """Return a decoder for a declared type; raise `DeclarationError` where there cannot be one."""
    try:
        try:
            return _cached_decoder(hint)
        except TypeError as error:
            if "unhashable" not in str(error):
                raise
            return _new_decoder(hint)  # Annotated with something that cannot be hashed
    except (TypeError, NameError) as error:
        raise DeclarationError(
            where,
            f"values declared as {type_name(hint)} cannot be told apart when they arrive ({error})",
            hint="Declare one type, or a union of msgspec.Struct classes that have a tag",
        ) from None


def _new_decoder(hint: Any) -> msgspec.msgpack.Decoder[Any]:
    return msgspec.msgpack.Decoder(hint, dec_hook=dec_hook, ext_hook=ext_hook)


_cached_decoder: Callable[[Any], msgspec.msgpack.Decoder[Any]] = lru_cache(maxsize=512)(_new_decoder)


def unpack(
    decoder: msgspec.msgpack.Decoder[T], segments: Sequence[Segment], limits: Limits, hint: Any, where: str
) -> T:
    """Return the value in `segments`, checked against `limits` and the type of `decoder`, which is `hint`."""
    try:
        return unpack_raw(decoder, segments, limits)
    except msgspec.ValidationError as error:
        wrong = mismatch_of(error).under("", hint)
        raise WrongType(where + wrong.path, wrong.expected, wrong.found) from None


def unpack_raw(decoder: msgspec.msgpack.Decoder[T], segments: Sequence[Segment], limits: Limits) -> T:
    """Return the value in `segments`; leave errors of type to the caller, as `msgspec.ValidationError`."""
    try:
        if limits is _USUAL and len(segments) == 1 and len(segments[0]) <= _SHORT_BYTES:
            data = bytes(segments[0])
            if len(data.translate(None, _EXTENSIONS)) == len(data):  # so there is no array for sure
                return decoder.decode(data)
        if len(segments) != 1 or len(segments[0]) > limits.message_bytes:
            _check_sizes(segments, limits)
        check_depth(segments[0], limits)
        return _unpack_with_arrays(decoder, Message(segments, limits))
    except msgspec.ValidationError:
        raise
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Malformed(f"The MessagePack that arrived is damaged: {error}.") from None
    except RecursionError:
        raise Malformed("The MessagePack that arrived is nested too deeply for Python's stack.") from None


def _unpack_with_arrays(decoder: msgspec.msgpack.Decoder[T], message: Message) -> T:
    outer = _incoming.message
    _incoming.message = message
    try:
        return decoder.decode(message.segments[0])
    finally:
        _incoming.message = outer


def _check_sizes(segments: Sequence[Segment], limits: Limits) -> None:
    count = len(segments)
    if not count:
        raise Malformed("A message arrived without segments; the first holds its MessagePack.")
    if count > limits.segments:
        raise LimitExceeded("segments", count, limits.segments)
    size = sum(map(len, segments))
    if size > limits.message_bytes:
        raise LimitExceeded("message_bytes", size, limits.message_bytes)
