from __future__ import annotations

import asyncio

import pytest
from grpclib.exceptions import GRPCError, StreamTerminatedError
from hypothesis import given
from hypothesis import strategies as st

from rolecall.wire.inbound import READ_BYTES, InboundBuffer, MessageCutter
from rolecall.wire.limits import LimitExceeded, Malformed


def framed(*bodies: bytes) -> bytes:
    return b"".join(b"\0" + len(body).to_bytes(4, "big") + body for body in bodies)


# ---------------------------------------------------------------------------------------------------- messages


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_messages_are_put_together_however_they_are_cut(bodies: list[bytes], cuts: list[int]) -> None:
    found: list[bytes] = []
    cutter = MessageCutter(lambda body: found.append(bytes(body)), 1_000)
    data, position, i = framed(*bodies), 0, 0
    while position < len(data):
        step = cuts[i % len(cuts)]
        cutter.feed(memoryview(data)[position : position + step])
        position, i = position + step, i + 1
    assert found == bodies


@pytest.mark.parametrize("size", [100, 100_000])
def test_a_message_has_memory_of_its_own_as_long_as_somebody_looks_at_it(size: int) -> None:
    found: list[memoryview] = []
    cutter = MessageCutter(found.append, 1_000_000)
    for i in range(6):
        data = bytearray(framed(bytes([i]) * size))
        cutter.feed(memoryview(data)[:40])
        cutter.feed(memoryview(data)[40:])
        data[:] = bytes(len(data))
    assert found == [bytes([i]) * size for i in range(6)]


def test_memory_that_nobody_looks_at_is_used_again() -> None:
    places: set[int] = set()

    def look(body: memoryview) -> None:
        places.add(id(body.obj))

    cutter = MessageCutter(look, 1_000_000)
    for _ in range(6):
        cutter.feed(memoryview(framed(bytes(100_000))))
    assert len(places) == 1


def test_a_length_beyond_the_limit_is_refused_before_its_body() -> None:
    cutter = MessageCutter(lambda body: None, 1_000)
    with pytest.raises(LimitExceeded, match="1,001, where 1,000 are allowed"):
        cutter.feed(memoryview(b"\0\0\0\x03\xe9"))


@pytest.mark.parametrize("flags", [1, 2, 255])
def test_compressed_messages_are_refused(flags: int) -> None:
    with pytest.raises(Malformed, match="do not compress"):
        MessageCutter(lambda body: None, 1_000).feed(memoryview(bytes([flags]) + framed(b"ab")[1:]))


@given(st.binary(max_size=2_000))
def test_no_bytes_do_harm(data: bytes) -> None:
    try:
        MessageCutter(lambda body: None, 1_000).feed(memoryview(data))
    except Malformed:
        pass


# ------------------------------------------------------------------------------------------------------ buffer


class Owner:
    """What acknowledges."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.buffer = InboundBuffer(self._acknowledge)

    def _acknowledge(self, size: int) -> None:
        self.acknowledged += size


async def test_it_is_read_as_grpclib_reads() -> None:
    owner = Owner()
    reading = asyncio.create_task(owner.buffer.read(6))
    await asyncio.sleep(0)
    owner.buffer.add(b"abcd", 4)
    await asyncio.sleep(0)
    assert not reading.done()
    owner.buffer.add(b"efgh", 4)
    assert await reading == b"abcdef"
    assert await owner.buffer.read(2) == b"gh"
    assert await owner.buffer.read(0) == b""
    owner.buffer.eof()
    assert await owner.buffer.read(5) == b""
    assert owner.acknowledged + owner.buffer.unacked_size() == 8


async def test_what_nobody_reads_is_not_acknowledged() -> None:
    owner = Owner()
    for _ in range(100):
        owner.buffer.add(bytes(10_000), 10_000)
    assert owner.acknowledged == 0
    assert owner.buffer.unacked_size() == 1_000_000
    assert owner.buffer.unacked_size() == 0


async def test_a_reader_of_more_than_a_window_is_not_stuck() -> None:
    owner = Owner()
    reading = asyncio.create_task(owner.buffer.read(1_000_000))
    sent = 0
    while not reading.done():
        await asyncio.sleep(0)
        if sent - owner.acknowledged < 65_536 and sent < 1_000_000:
            owner.buffer.add(bytes(50_000), 50_000)
            sent += 50_000
    assert len(await reading) == 1_000_000


async def test_too_much_at_once_is_refused() -> None:
    with pytest.raises(GRPCError, match="4,294,967,295 bytes; 4,194,304 are allowed"):
        await Owner().buffer.read(0xFFFFFFFF)
    assert READ_BYTES == 4_194_304


async def test_an_early_end_is_an_error() -> None:
    owner = Owner()
    owner.buffer.add(b"ab", 2)
    owner.buffer.eof()
    with pytest.raises(GRPCError, match="3 bytes too early"):
        await owner.buffer.read(5)


async def test_a_failure_wakes_the_reader_after_what_has_come() -> None:
    owner = Owner()
    owner.buffer.add(b"ab", 2)
    reading = asyncio.create_task(owner.buffer.read(3))
    await asyncio.sleep(0)
    owner.buffer.fail("cut")
    with pytest.raises(StreamTerminatedError, match="cut"):
        await reading
    assert await owner.buffer.read(2) == b"ab"


async def test_it_can_be_handed_on() -> None:
    owner, found, ends = Owner(), [], []
    owner.buffer.add(b"ab", 2)
    owner.buffer.hand_on(lambda view: found.append(bytes(view)), lambda: ends.append(1))
    assert found == [b"ab"] and owner.acknowledged == 2
    owner.buffer.add(b"cd", 2)
    assert found == [b"ab", b"cd"] and not ends
    owner.buffer.add(bytes(300_000), 300_000)
    assert owner.acknowledged == 300_004
    owner.buffer.eof()
    assert ends == [1]
