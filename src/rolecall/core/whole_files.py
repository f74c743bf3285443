"""Files that are there whole or not at all: written aside, and then moved into their place."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ("into_place", "write_whole")


def write_whole(path: Path, parts: Iterable[Buffer], *, mode: int | None = None) -> None:
    """Write `parts`, one after the other, to the file `path`, of which no reader ever sees less than all.

    The directory must exist. The contents are on the disk before the file has its name. Where anything fails, the
    error is the caller's as it was, what was there before still is, and nothing else.

    Args:
        mode: the permissions of the file; by default those of the file that was there, and where there was none,
            those that a plain `open` gives.
    """
    mode = _mode_of(path) if mode is None else mode
    with into_place(path) as unfinished, unfinished.open("xb") as file:
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.writelines(parts)
        file.flush()
        os.fsync(file.fileno())  # or a power cut could leave the new name with nothing behind it


@contextmanager
def into_place(path: Path) -> Iterator[Path]:
    """Have the body write a file to the path it is given, which then takes the place of `path`.

    For what writes to a path only: to a file of the same name, in a directory beside `path` into which nobody else may
    look. A body that fails, or that writes no file, leaves `path` as it was.
    """
    prefix = f".{path.name}."
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=prefix, ignore_cleanup_errors=True) as aside:
        unfinished = Path(aside, path.name)
        yield unfinished
        if unfinished.exists():
            os.replace(unfinished, path)


def _mode_of(path: Path) -> int | None:
    """Return the permissions of a file, None where there is none."""
    try:
        status = path.stat()
    except OSError:  # which writing will meet again, if it matters
        return None
    return status.st_mode & 0o777 if stat.S_ISREG(status.st_mode) else None
