from __future__ import annotations

import asyncio
import os

import numpy as np
import pytest

from rolecall.wire.shared_limits import SharedMemoryLimits
from rolecall.wire.shared_pool import TURN_BYTES, Payload, SharedPool

MIB = 1 << 20


def array(size: int, value: int = 7) -> memoryview:
    return np.full(size, value, np.uint8).data.toreadonly()


def content(payload: Payload) -> list[bytes]:
    assert payload.segment is not None and payload.filled
    return [bytes(payload.segment.view[start : start + size]) for start, size in payload.places]


async def written(payload: Payload) -> Payload:
    filled = asyncio.Event()
    if not payload.prepare(filled.set):
        await filled.wait()
    return payload


class Pool(SharedPool):
    """A pool that tells what it has retired."""

    def __init__(self, **limits: int) -> None:
        self.retired: list[int] = []
        super().__init__(SharedMemoryLimits(**limits), self.retired.append)

    async def full(self, size: int = 100, value: int = 7) -> Payload:
        """Return a payload that has been written."""
        return await written(self.payload([array(size, value)]))


async def test_parts_are_aligned_and_whole() -> None:
    pool = Pool()
    parts = [b"abc", array(5_000), b"", array(3 * TURN_BYTES, 9), b"z" * 65]
    payload = await written(pool.payload(parts))
    assert content(payload) == [bytes(part) for part in parts]
    assert all(start % 64 == 0 for start, _ in payload.places)
    assert pool.written_bytes == sum(map(len, parts))
    pool.close()


async def test_the_same_memory_is_written_once_for_many() -> None:
    pool = Pool()
    big = np.arange(1_000_000, dtype=np.float32)
    payloads = [pool.payload([big.data.cast("B")]) for _ in range(5)]
    assert all(payload is payloads[0] for payload in payloads)
    await written(payloads[0])
    assert pool.written_bytes == big.nbytes and pool.segments == 1
    for payload in payloads:
        assert pool.used == 1
        payload.drop()
    assert pool.used == 0 and pool.segments == 1
    pool.close()


async def test_memory_that_may_have_changed_since_is_written_again() -> None:
    pool = Pool()
    memory = np.ones(1_000, np.uint8)
    first = await written(pool.payload([memory.data]))
    await asyncio.sleep(0)
    memory[:] = 2
    second = await written(pool.payload([memory.data]))
    assert second is not first
    assert [content(first), content(second)] == [[b"\1" * 1_000], [b"\2" * 1_000]]
    pool.close()


async def test_other_memory_at_the_same_place_is_not_taken_for_the_same() -> None:
    pool = Pool()
    for value in range(50):  # in one turn: what was given is kept until the next
        part = np.full(1_000, value, np.uint8)
        payload = pool.payload([part.data])
        payload.prepare(lambda: None)
        del part
        assert content(payload) == [bytes([value]) * 1_000]
        payload.drop()
    pool.close()


async def test_a_segment_is_used_again_when_nobody_holds_it() -> None:
    pool = Pool()
    first = await pool.full()
    number = first.segment.number
    first.hold()
    first.drop()
    assert (await pool.full()).segment.number != number
    first.drop()
    await asyncio.sleep(0)
    assert (await pool.full()).segment.number == number
    assert pool.retired == []
    pool.close()


async def test_a_segment_that_may_still_be_seen_is_given_up() -> None:
    pool = Pool()
    payload = await pool.full()
    number, fd = payload.segment.number, payload.segment.fd
    payload.hold()
    payload.drop(seen=True)
    assert pool.used == 1
    payload.drop()
    assert (pool.used, pool.segments, pool.retired) == (0, 0, [number])
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)
    pool.close()


async def test_bytes_taken_back_keep_what_they_are() -> None:
    pool = Pool()
    payload = await pool.full(5_000, 3)
    (part,) = payload.parts()
    payload.drop()
    await pool.full(5_000, 4)
    assert bytes(part) == b"\3" * 5_000
    pool.close()


async def test_there_is_no_room_beyond_the_limits() -> None:
    pool = Pool(total_bytes=4 * MIB, segments=3)
    held = [await pool.full(value=value) for value in range(3)]
    none = await pool.full(value=8)
    assert none.segment is None and [bytes(part) for part in none.parts()] == [b"\10" * 100]
    held.pop().drop()
    none.drop()
    assert (await pool.full(2 * MIB)).segment is not None, "in place of the one that was free"
    assert len(pool.retired) == 1 and pool.bytes <= 4 * MIB
    assert (await pool.full(8 * MIB)).segment is None
    pool.close()


async def test_a_small_payload_does_not_take_a_huge_segment() -> None:
    pool = Pool()
    (await pool.full(40 * MIB)).drop()
    small = await pool.full(100)
    assert small.segment.size == MIB and pool.segments == 2
    pool.close()


async def test_what_is_unused_for_long_is_given_up() -> None:
    pool = Pool()
    loop = asyncio.get_running_loop()
    used, free = await pool.full(value=1), await pool.full(value=2)
    free.drop()
    pool.trim(loop.time() + 29)
    assert pool.segments == 2
    pool.trim(loop.time() + 31)
    assert pool.segments == 1 and used.segment is not None
    pool.close()


async def test_copying_leaves_the_loop_its_turns() -> None:
    pool = Pool()
    payloads = [pool.payload([array(3 * TURN_BYTES, value)]) for value in range(3)]
    for payload in payloads:
        payload.prepare(lambda: None)
    turns = 0
    while not payloads[-1].filled:
        before = pool.written_bytes
        await asyncio.sleep(0)
        turns += 1
        assert pool.written_bytes - before <= TURN_BYTES
    assert turns >= 8 and all(payload.filled for payload in payloads)
    pool.close()


async def test_nobody_waits_for_what_nobody_wants() -> None:
    pool = Pool()
    unwanted, wanted = pool.payload([array(5 * TURN_BYTES, 1)]), pool.payload([array(5_000, 2)])
    unwanted.prepare(lambda: None)
    assert unwanted.segment is not None
    unwanted.drop()
    assert pool.used == 0
    assert content(await written(wanted)) == [b"\2" * 5_000]
    again = pool.payload([array(100)])
    assert again is not unwanted
    pool.close()


async def test_all_who_wait_are_told() -> None:
    pool = Pool()
    payload = pool.payload([array(2 * TURN_BYTES)])
    one, other = asyncio.Event(), asyncio.Event()
    assert not payload.prepare(one.set)
    assert not payload.prepare(other.set)
    await one.wait()
    assert other.is_set() and payload.prepare(lambda: None)
    pool.close()


async def test_a_system_without_memory_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> int:
        raise OSError(24, "Too many open files")

    pool = Pool()
    monkeypatch.setattr(os, "memfd_create", refuse)
    assert (await pool.full()).segment is None
    pool.close()
