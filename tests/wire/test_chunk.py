from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.wire import LimitExceeded, Limits, Malformed, chunk_decode, chunk_encode

VECTORS = [  # made with protobuf's own encoder
    ([], b""),
    ([b""], b"\x0a\x00"),
    ([b"abc"], b"\x0a\x03abc"),
    ([b"", b"a", b""], b"\x0a\x00\x0a\x01a\x0a\x00"),
    ([b"x" * 63], b"\x0a\x3f" + b"x" * 63),
    ([b"a", b"x" * 60, b"b"], b"\x0a\x01a\x0a\x3c" + b"x" * 60 + b"\x0a\x01b"),
]


@pytest.mark.parametrize(("segments", "buffer"), VECTORS)
def test_it_is_what_protobuf_writes(segments: list[bytes], buffer: bytes) -> None:
    assert chunk_encode(segments) == buffer
    assert chunk_decode(buffer) == segments


LONGER = [  # also made with it; it does not pad, and what it writes is read as well
    ([b"x" * 127], b"\x0a\x7f" + b"x" * 127),
    ([b"x" * 128], b"\x0a\x80\x01" + b"x" * 128),
    ([b"x" * 300, b"y"], b"\x0a\xac\x02" + b"x" * 300 + b"\x0a\x01y"),
    ([b"x" * 16384], b"\x0a\x80\x80\x01" + b"x" * 16384),
]


@pytest.mark.parametrize(("segments", "buffer"), LONGER)
def test_longer_segments_are_read_with_or_without_padding(segments: list[bytes], buffer: bytes) -> None:
    assert chunk_decode(buffer) == segments
    padded = chunk_encode(segments)
    assert chunk_decode(padded) == segments
    assert padded.replace(b"\x7a" + padded[1 : 2 + padded[1]], b"", 1) == buffer


@given(st.lists(st.binary(max_size=100), max_size=4), st.integers(64, 20_000))
def test_segments_that_may_hold_arrays_are_aligned(before: list[bytes], size: int) -> None:
    buffer = chunk_encode([*before, b"x" * size])
    assert buffer.index(b"x" * size) % 16 == 0 or b"x" in b"".join(before)
    assert chunk_decode(buffer) == [*before, b"x" * size]


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_round_trip(segments: list[bytes]) -> None:
    assert chunk_decode(chunk_encode(segments)) == segments
    assert chunk_decode(bytearray(chunk_encode(map(memoryview, segments)))) == segments


@given(
    st.lists(st.sampled_from([b"\x0a", b"\x00", b"\x02", b"\x7a", b"\x80", b"\x01", b"abc"]), max_size=12).map(b"".join)
)
def test_bytes_are_read_as_any_other_memory_is(buffer: bytes) -> None:
    """Short segments are found by a shorter way in them."""
    try:
        expected: object = chunk_decode(bytearray(buffer))
    except Malformed as error:
        with pytest.raises(Malformed) as found:
            chunk_decode(buffer)
        assert str(found.value) == str(error)
    else:
        assert chunk_decode(buffer) == expected


def test_segments_are_read_only_views_of_the_buffer() -> None:
    buffer = bytearray(chunk_encode([b"x" * 1000]))
    (segment,) = chunk_decode(buffer)
    assert segment.readonly
    assert np.shares_memory(np.frombuffer(segment, np.uint8), np.frombuffer(buffer, np.uint8))


@pytest.mark.parametrize(
    "unknown",
    [
        b"\x10\x96\x01",  # field 2, a number
        b"\x19" + bytes(8),  # field 3, 64 bits
        b"\x22\x03abc",  # field 4, bytes
        b"\x2d" + bytes(4),  # field 5, 32 bits
        b"\x08\x01",  # field 1, but a number
        b"\x82\x01\x00",  # field 16
        b"\xf2\xff\xff\xff\x0f\x01z",  # the highest field
    ],
)
def test_unknown_fields_are_skipped(unknown: bytes) -> None:
    buffer = unknown + b"\x0a\x01a" + unknown + b"\x0a\x01b" + unknown
    assert chunk_decode(buffer) == [b"a", b"b"]


def test_numbers_may_be_written_with_more_bytes_than_they_need() -> None:
    assert chunk_decode(b"\x8a\x00\x83\x80\x00abc") == [b"abc"]


@pytest.mark.parametrize(
    ("buffer", "message"),
    [
        (b"\x0a", "no end"),
        (b"\x0a\x80", "no end"),
        (b"\x0a" + b"\xff" * 11, "no end within 10 bytes"),
        (b"\x0a\x05abc", "announces 5 bytes, but 3 follow"),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\x7f", "announces 9,223,372,036,854,775,807 bytes"),
        (b"\x00\x00", "impossible tag 0"),
        (b"\xff\xff\xff\xff\xff\x01", "impossible tag"),
        (b"\x0b\x0c", "wire type 3, which is not supported"),
        (b"\x19\x00", "ends inside"),
        (b"\x2d\x00", "ends inside"),
        (b"\x10", "no end"),
    ],
)
def test_what_is_no_chunk(buffer: bytes, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        chunk_decode(buffer)


def test_limits() -> None:
    buffer = chunk_encode([b"a"] * 10)
    assert len(chunk_decode(buffer, Limits(frame_bytes=30, segments=10))) == 10
    with pytest.raises(LimitExceeded, match="`frame_bytes`: 30, where 29"):
        chunk_decode(buffer, Limits(frame_bytes=29))
    with pytest.raises(LimitExceeded, match="`segments`: 10, where 9"):
        chunk_decode(buffer, Limits(segments=9))
