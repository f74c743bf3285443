"""Files that are there whole or not at all."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rolecall.core.whole_files import into_place, write_whole


@pytest.fixture(autouse=True)
def umask() -> Iterator[None]:
    """Have new files be readable by the group and by nobody else, which no default is."""
    before = os.umask(0o027)
    yield
    os.umask(before)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.bin"


def names(path: Path) -> list[str]:
    return os.listdir(path.parent)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def failing(error: BaseException) -> Iterator[bytes]:
    yield b"half of it"
    raise error


def test_parts_of_any_kind_are_written_one_after_the_other(path: Path) -> None:
    write_whole(path, [b"ab", memoryview(b"cd"), np.array([1, 2], "<u2")])
    assert path.read_bytes() == b"abcd\1\0\2\0"
    write_whole(path, [])
    assert path.read_bytes() == b""
    assert names(path) == ["state.bin"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("odd"), KeyboardInterrupt()])
def test_what_fails_half_way_leaves_the_old_file_and_no_other(path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        write_whole(path, failing(error))
    assert caught.value is error
    assert names(path) == []
    path.write_bytes(b"old")
    with pytest.raises(type(error)):
        write_whole(path, failing(error))
    assert path.read_bytes() == b"old"
    assert names(path) == ["state.bin"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_system_that_fails_at_the_end_leaves_the_old_file_too(
    path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    error = OSError(5, "Input/output error")

    def refuse(*_: object) -> None:
        raise error

    path.write_bytes(b"old")
    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(OSError, match="Input/output") as caught:
        write_whole(path, [b"new"])
    assert caught.value is error
    assert path.read_bytes() == b"old"
    assert names(path) == ["state.bin"]


def test_a_reader_sees_all_of_the_old_or_all_of_the_new(path: Path) -> None:
    seen = []

    def parts() -> Iterator[bytes]:
        for _ in range(3):
            yield bytes(1 << 16)  # more than is buffered: it is in a file when the next is asked for
            seen.append(path.read_bytes() if path.exists() else None)

    write_whole(path, parts())
    assert seen == [None] * 3
    seen.clear()
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        write_whole(path, parts())
        assert reader.read() == b"old"  # who has begun with the old file ends with it
    assert seen == [b"old"] * 3
    assert path.read_bytes() == bytes(3 << 16)


def test_a_process_that_dies_while_it_writes_leaves_the_old_file(path: Path) -> None:
    path.write_bytes(b"old")
    code = (
        "import os, sys, pathlib\n"
        "from rolecall.core.whole_files import write_whole\n"
        "def parts():\n"
        "    yield bytes(1 << 16)\n"
        "    os._exit(9)\n"
        "write_whole(pathlib.Path(sys.argv[1]), parts())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert done.returncode == 9
    assert path.read_bytes() == b"old"
    write_whole(path, [b"new"])  # what was left beside it is in nobody's way
    assert path.read_bytes() == b"new"


def test_a_new_file_has_the_permissions_of_a_plain_open(path: Path) -> None:
    write_whole(path, [b"new"])
    assert mode(path) == 0o640


@pytest.mark.parametrize("kept", [0o600, 0o666, 0o755])
def test_a_file_keeps_its_permissions_as_with_a_plain_open(path: Path, kept: int) -> None:
    path.write_bytes(b"old")
    path.chmod(kept)
    write_whole(path, [b"new"])
    assert (mode(path), path.read_bytes()) == (kept, b"new")


def test_permissions_that_are_asked_for_are_given(path: Path) -> None:
    for asked in (0o600, 0o644):
        write_whole(path, [b"secret"], mode=asked)
        assert mode(path) == asked


def test_nobody_else_can_look_at_what_is_unfinished(path: Path) -> None:
    with into_place(path) as unfinished:
        assert mode(unfinished.parent) == 0o700
        assert unfinished.parent.parent == path.parent  # one file system: it can be moved


def test_a_place_that_no_file_can_have(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "nowhere" / "f", [b""])
    (tmp_path / "directory").mkdir()
    with pytest.raises(IsADirectoryError):
        write_whole(tmp_path / "directory", [b""])
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        write_whole(tmp_path / "file" / "f", [b""])
    assert sorted(os.listdir(tmp_path)) == ["directory", "file"]


def test_what_writes_to_a_path_is_given_one_of_the_same_name(path: Path) -> None:
    with into_place(path) as unfinished:
        assert unfinished.name == path.name
        unfinished.write_bytes(b"new")
        assert not path.exists()
    assert (mode(path), path.read_bytes()) == (0o640, b"new")
    assert names(path) == ["state.bin"]


def test_a_body_that_writes_nothing_changes_nothing(path: Path) -> None:
    with into_place(path):
        pass
    assert names(path) == []
    path.write_bytes(b"old")
    with into_place(path):
        pass
    assert path.read_bytes() == b"old"


def test_a_body_that_fails_after_it_has_written_changes_nothing(path: Path) -> None:
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), into_place(path) as unfinished:
        unfinished.write_bytes(b"new")
        raise OSError("full")
    assert path.read_bytes() == b"old"
    assert names(path) == ["state.bin"]
