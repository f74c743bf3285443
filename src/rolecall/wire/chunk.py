"""The protobuf message `Chunk` of `protos/rolecall/v1/link.proto`, written and read by hand.

It has one field that counts, `repeated bytes segments = 1`, and a general protobuf library takes a hundred
times longer for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from rolecall.wire.limits import DEFAULT_LIMITS, Limits, Malformed

__all__ = ("chunk_decode", "chunk_encode", "chunk_pieces")

_SEGMENT_TAG = 0x0A  # field 1, wire type 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BYTES_MAX = 10
_TAG_MAX = (1 << 32) - 1

_ALIGNMENT = 16  # as much as memory allocators give to the chunk itself
_ALIGNED_FROM = 64  # bytes; what is smaller is cheaper to copy
_PADDING_TAG = 0x7A  # field 15, wire type 2


def chunk_encode(segments: Iterable[bytes | memoryview]) -> bytes:
    """Return the `Chunk` that carries `segments`, in one piece."""
    return b"".join(chunk_pieces(segments)[0])


def chunk_pieces(segments: Iterable[bytes | memoryview]) -> tuple[list[bytes | memoryview], int]:
    """Return the `Chunk` that carries `segments` in pieces, which share memory with them, and its size in bytes.

    Padding before each segment that may hold an array aligns it, so that the receiver need not copy the
    array.
    """
    pieces: list[bytes | memoryview] = []
    position = 0
    for segment in segments:
        size = len(segment)
        head = _SHORT[size] if size < 0x80 else b"\x0a" + _varint(size)
        if size >= _ALIGNED_FROM:
            head = _PADDING[-(position + len(head)) % _ALIGNMENT] + head
        pieces.append(head)
        pieces.append(segment)
        position += len(head) + size
    return pieces, position


def chunk_decode(buffer: bytes | bytearray | memoryview, limits: Limits = DEFAULT_LIMITS) -> list[memoryview]:
    """Return the segments of a `Chunk` as views of `buffer`, without a copy, skipping unknown fields.

    The views are read-only, but `buffer` must not be written to as long as they live. Raises `Malformed` for
    what is no `Chunk`, and `LimitExceeded` for one larger than `limits`.
    """
    limits.check("frame_bytes", len(buffer))
    view = memoryview(buffer).toreadonly()
    segments: list[memoryview] = []
    position, end, most = 0, len(view), limits.segments
    while position < end:
        if isinstance(buffer, bytes) and (size := _short(buffer, position, end)):
            start, position = position + 2, position + size
        else:
            tag, start = _read_tag(view, position)
            if tag != _SEGMENT_TAG:
                position = _skip(view, tag, start)
                continue
            start, position = _extent(view, start)
        segments.append(view[start:position])
        if len(segments) > most:
            limits.check("segments", len(segments))
    return segments


def _short(data: bytes, position: int, end: int) -> int:
    """Return the size of a whole field with a segment of less than 128 bytes, as most are; 0 where it is another."""
    if position + 1 < end and data[position] == _SEGMENT_TAG and (size := data[position + 1]) < 0x80:
        return size + 2 if position + 2 + size <= end else 0
    return 0


def _varint(number: int) -> bytes:
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _padding(size: int) -> bytes:
    if size == 1:
        size += _ALIGNMENT  # a field takes two bytes at least
    return bytes([_PADDING_TAG, size - 2]) + bytes(size - 2) if size else b""


_SHORT = [bytes([_SEGMENT_TAG, size]) for size in range(0x80)]
_PADDING = [_padding(size) for size in range(_ALIGNMENT)]


def _read_varint(view: memoryview, position: int) -> tuple[int, int]:
    number = 0
    for i, byte in enumerate(view[position : position + _VARINT_BYTES_MAX]):
        number |= (byte & 0x7F) << (7 * i)
        if byte < 0x80:
            return number, position + i + 1
    raise Malformed(f"Chunk: the number at byte {position} has no end within {_VARINT_BYTES_MAX} bytes.")


def _read_tag(view: memoryview, position: int) -> tuple[int, int]:
    if view[position] == _SEGMENT_TAG:
        return _SEGMENT_TAG, position + 1
    tag, start = _read_varint(view, position)
    if tag >> 3 == 0 or tag > _TAG_MAX:
        raise Malformed(f"Chunk: byte {position} starts a field with the impossible tag {tag}.")
    return tag, start


def _extent(view: memoryview, position: int) -> tuple[int, int]:
    """Return where the bytes announced at `position` start and end."""
    if position < len(view) and view[position] < 0x80:
        size, start = view[position], position + 1
    else:
        size, start = _read_varint(view, position)
    if size > len(view) - start:
        raise Malformed(f"Chunk: byte {position} announces {size:,} bytes, but {len(view) - start:,} follow.")
    return start, start + size


def _skip(view: memoryview, tag: int, start: int) -> int:
    """Return the position after the field of that tag."""
    wire_type = tag & 7
    if wire_type == _VARINT:
        return _read_varint(view, start)[1]
    if wire_type == _BYTES:
        return _extent(view, start)[1]
    size = {_FIXED64: 8, _FIXED32: 4}.get(wire_type)
    if size is None:
        raise Malformed(f"Chunk: the field with tag {tag} has wire type {wire_type}, which is not supported.")
    if start + size > len(view):
        raise Malformed(f"Chunk: it ends inside the field with tag {tag}.")
    return start + size
