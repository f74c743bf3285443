"""Compression of payloads, for those who ask for it: float tensors are not worth it, plans and logs are."""

from __future__ import annotations

from collections.abc import Sequence

from rolecall.wire.extensions import Segment
from rolecall.wire.limits import Limits, Malformed

__all__ = ("compress_segments", "decompress_segments")

_WORTH_BYTES = 128
_LEVEL = 3


def compress_segments(segments: Sequence[Segment]) -> tuple[list[Segment], list[int]]:
    """Return the segments compressed with zstd, and the size each had, or 0 where it is left as it was.

    It takes 2 to 6 ms a megabyte, in the thread that calls it; `Limits.packed_bytes` bounds it.
    """
    import zstandard

    packed: list[Segment] = []
    sizes: list[int] = []
    compressor = zstandard.ZstdCompressor(level=_LEVEL)
    for segment in segments:
        smaller = compressor.compress(segment) if len(segment) >= _WORTH_BYTES else segment
        worth = len(smaller) < len(segment)
        packed.append(smaller if worth else segment)
        sizes.append(len(segment) if worth else 0)
    return packed, sizes if any(sizes) else []


def decompress_segments(segments: Sequence[memoryview], sizes: Sequence[int], limits: Limits) -> list[memoryview]:
    """Return what `compress_segments` was given; the sizes are checked before memory is taken for them."""
    if len(segments) != len(sizes):
        raise Malformed(f"A message has {len(segments)} segments, and the unpacked sizes of {len(sizes)}.")
    limits.check("message_bytes", sum(size or len(part) for part, size in zip(segments, sizes, strict=True)))
    limits.check("packed_bytes", sum(sizes))
    return [_decompress(part, size) if size else part for part, size in zip(segments, sizes, strict=True)]


def _decompress(packed: memoryview, size: int) -> memoryview:
    import zstandard

    try:
        announced = zstandard.frame_content_size(packed)
        if announced != size:
            raise Malformed(f"A compressed segment should unpack to {size:,} bytes, and says {announced:,}.")
        unpacked = zstandard.ZstdDecompressor().decompress(packed, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Malformed(f"A compressed segment is damaged: {error}.") from None
    return memoryview(unpacked)
