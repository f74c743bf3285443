"""Whatever arrives, a node answers with a named error, and takes no more memory than its limits allow."""

from __future__ import annotations

import datetime
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rolecall.core.errors import WrongArgument, WrongType
from rolecall.core.ids import RoleId
from rolecall.core.tensors import Tensors
from rolecall.wire import ArgsCodec, Limits, Malformed, chunk_decode, chunk_encode, decode, encode

EXPECTED = (Malformed, WrongType, WrongArgument)


class Report(msgspec.Struct):
    params: Tensors
    plan: dict[RoleId, list[int]]
    at: datetime.datetime | None = None


VALUES = [
    [1, -1, 2.5, "text" * 20, b"bytes" * 100, None, True, list(range(20)), {"a": {"b": [{}]}}],
    Report(Tensors({"w": np.ones((2, 3)), "b": np.zeros(2, np.int8)}), {RoleId("a/b"): [1, 2]}),
    {"x": np.arange(5), "y": [np.zeros((0, 2)), np.complex64(1j)], "z": datetime.datetime.now(datetime.UTC)},
]
VALID = [[bytes(segment) for segment in encode(value)] for value in VALUES]
ARGS = ArgsCodec("X.f", [("a", Report, False), ("b", dict[str, Any], True), ("c", Any, True)])
VALID.append([bytes(segment) for segment in ARGS.encode((VALUES[1],), {"b": {"x": np.ones(2)}})])
TARGETS: list[Callable[[list[bytes]], object]] = [
    decode,
    lambda segments: decode(segments, Report),
    lambda segments: decode(segments, dict[RoleId, np.ndarray]),
    lambda segments: decode(segments, list[list[int]]),
    lambda segments: decode(segments, tuple[set[str], ...]),
    ARGS.decode,
]


def survives(segments: list[bytes]) -> None:
    for target in TARGETS:
        try:
            target(segments)
        except EXPECTED:
            pass


@st.composite
def damaged(draw: st.DrawFn) -> list[bytes]:
    segments = list(draw(st.sampled_from(VALID)))
    for _ in range(draw(st.integers(1, 4))):
        which = draw(st.integers(0, len(segments) - 1))
        segment = segments[which]
        at = draw(st.integers(0, len(segment)))
        piece = draw(st.binary(max_size=6))
        segments[which] = segment[:at] + piece + segment[at + draw(st.integers(0, 6)) :]
    return segments[: draw(st.integers(0, len(segments)))]


@given(st.lists(st.binary(max_size=60), max_size=3))
@example([b"\xdd\xff\xff\xff\xff"])
@example([b"\xdf\xff\xff\xff\xff"])
@example([b"\xc6\xff\xff\xff\xff"])
@example([b"\x91" * 100_000])
@example([b"\x81\x91\x01\x01"])
@example([b"\x81\x81\x01\x01\x01"])
@example([b"\xc7\x0c\xff" + b"\xff" * 12])
@example([b"\xdc\xff\xff" * 50])
def test_any_bytes(segments: list[bytes]) -> None:
    survives(segments)


@settings(max_examples=1000)
@given(damaged())
def test_damaged_messages(segments: list[bytes]) -> None:
    survives(segments)


@settings(max_examples=500)
@given(st.binary(max_size=80) | damaged().map(lambda segments: chunk_encode(segments)[:-1]))
def test_any_chunk(buffer: bytes) -> None:
    try:
        segments = chunk_decode(buffer)
    except Malformed:
        return
    assert sum(map(len, segments)) <= len(buffer)
    survives([bytes(segment) for segment in segments])


ANNOUNCED = (1 << 32) - 1


@pytest.mark.parametrize(
    "header",
    [
        b"\xdd" + ANNOUNCED.to_bytes(4),
        b"\xdf" + ANNOUNCED.to_bytes(4),
        b"\xc6" + ANNOUNCED.to_bytes(4),
        b"\xdb" + ANNOUNCED.to_bytes(4),
        b"\xc9" + ANNOUNCED.to_bytes(4) + b"\x01",
        (b"\xdd" + ANNOUNCED.to_bytes(4)) * 60,
        b"\xdc\xff\xff" * 60,
        b"\x92" * 60,
        msgspec.msgpack.encode(msgspec.msgpack.Ext(2, msgspec.msgpack.encode((1, "float64", (1 << 40,))))),
        msgspec.msgpack.encode(msgspec.msgpack.Ext(1, b"\x92\x01\xdd" + ANNOUNCED.to_bytes(4))),
    ],
    ids=["list", "dict", "bytes", "text", "ext", "lists", "lists16", "pairs", "array", "tensors"],
)
@pytest.mark.parametrize("target", TARGETS)
def test_an_announced_size_takes_no_memory(header: bytes, target: Callable[[list[bytes]], object]) -> None:
    assert peak_of(target, [header, b""]) < 200_000


def test_too_large_a_chunk_takes_no_memory() -> None:
    buffer = bytes(1 << 20)
    assert peak_of(lambda segments: chunk_decode(segments[0], Limits(frame_bytes=1 << 16)), [buffer]) < 10_000


def peak_of(target: Callable[[list[bytes]], object], segments: list[bytes]) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(EXPECTED):
            target(segments)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
