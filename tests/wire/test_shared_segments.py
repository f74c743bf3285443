from __future__ import annotations

import fcntl
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from rolecall.wire.limits import Malformed
from rolecall.wire.shared_segments import Segment, map_readonly

SIZE = 1 << 20


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_what_is_written_is_seen_without_a_copy() -> None:
    segment = Segment(1, SIZE)
    seen = map_readonly(segment.fd, SIZE)
    assert seen.size == SIZE and not seen.any()
    segment.view[10:13] = b"abc"
    assert bytes(seen[9:14]) == b"\0abc\0"
    segment.close()
    assert bytes(seen[10:13]) == b"abc"


def test_only_its_writer_writes_and_nobody_changes_its_size() -> None:
    segment = Segment(1, SIZE)
    seen = map_readonly(segment.fd, SIZE)
    with pytest.raises(ValueError, match="read-only"):
        seen[0] = 1
    with pytest.raises(OSError, match="not permitted"):
        mmap.mmap(segment.fd, SIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    for size in (0, SIZE // 2, 2 * SIZE):
        with pytest.raises(OSError, match="not permitted"):
            os.ftruncate(segment.fd, size)
    with pytest.raises(OSError, match="not permitted"):
        os.pwrite(segment.fd, b"x", 0)
    with pytest.raises(OSError, match="not permitted"):
        fcntl.fcntl(segment.fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    segment.close()


def test_nothing_is_left_of_it() -> None:
    before = descriptors()
    for _ in range(20):
        segment = Segment(1, SIZE)
        seen = map_readonly(segment.fd, SIZE)
        segment.close()
        segment.close()
        del segment, seen
    assert descriptors() == before
    assert "memfd:rolecall" not in Path("/proc/self/maps").read_text()


def test_a_segment_that_cannot_be_had_leaves_nothing() -> None:
    before = descriptors()
    with pytest.raises(OSError, match=r"."):
        Segment(1, 1 << 62)
    assert descriptors() == before


def unsealed() -> int:
    fd = os.memfd_create("other", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, SIZE)
    return fd


def half_sealed() -> int:
    fd = unsealed()
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    return fd


@pytest.mark.parametrize(
    "make",
    [
        unsealed,
        half_sealed,
        lambda: os.open("/dev/zero", os.O_RDONLY),
        lambda: os.open("/dev/null", os.O_RDONLY),
        lambda: os.open("/", os.O_RDONLY),
        lambda: os.open(__file__, os.O_RDONLY),
    ],
)
def test_what_is_no_sealed_memory_is_refused(make) -> None:
    fd = make()
    try:
        with pytest.raises(Malformed, match="Shared memory"):
            map_readonly(fd, SIZE)
    finally:
        os.close(fd)


def test_a_file_on_disk_cannot_be_sealed(tmp_path: Path) -> None:
    path = tmp_path / "memory"
    path.write_bytes(bytes(SIZE))
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(Malformed, match="size can still change"):
            map_readonly(fd, SIZE)
    finally:
        os.close(fd)


@pytest.mark.parametrize("size", [0, 1, SIZE - 1, SIZE + 1, 1 << 40])
def test_a_segment_of_another_size_than_announced_is_refused(size: int) -> None:
    segment = Segment(1, SIZE)
    with pytest.raises(Malformed, match="was announced, and 1,048,576 came"):
        map_readonly(segment.fd, size)
    segment.close()


def test_arrays_of_it_are_aligned() -> None:
    segment = Segment(1, SIZE)
    assert np.frombuffer(segment.view, np.complex128).flags.aligned
    segment.close()
