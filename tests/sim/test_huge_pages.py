from __future__ import annotations

import subprocess
import sys

import pytest

from rolecall.sim.huge_pages import PAGE_BYTES, HugePages, _private_memory

MAPS = """\
00200000-00a00000 r-xp 00000000 fe:00 4712 /usr/bin/python3.11
00a01000-01300000 rw-p 00000000 00:00 0 [heap]
7f0000200000-7f0000600000 rw-p 00000000 00:00 0
7f0000700000-7f0000900000 rw-p 00000000 00:00 0 [anon: too small once it is aligned]
7f0000a00000-7f0000c00000 rw-p 00000000 fe:00 99 /lib/x.so
7f0000e00000-7f0001200000 r--p 00000000 00:00 0
7ffd00000000-7ffd00800000 rw-p 00000000 00:00 0 [stack]
"""


def test_only_whole_pages_of_what_was_allocated() -> None:
    assert list(_private_memory(MAPS)) == [(0x00C00000, 0x01200000), (0x7F0000200000, 0x7F0000600000)]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is done")
def test_a_large_process_keeps_what_it_holds() -> None:
    """In a process of its own, which may be small or large as it likes."""
    program = f"""
from rolecall.sim.huge_pages import HugePages, WORTH_BYTES
pages = HugePages()
due = pages._next_bytes
pages.settle()
assert pages._next_bytes == due > WORTH_BYTES
held = [bytes([n % 251]) * 4_000 for n in range(WORTH_BYTES // 3_000)]
pages.settle()
assert pages._next_bytes > due
assert all(value == bytes([n % 251]) * 4_000 for n, value in enumerate(held))
print({PAGE_BYTES})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout == f"{PAGE_BYTES}\n", done.stderr


def test_elsewhere_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    pages = HugePages()
    due = pages._next_bytes
    pages.settle()
    assert pages._next_bytes == due
