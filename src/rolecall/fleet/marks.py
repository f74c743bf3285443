"""Where the parts of an application were written, so that an error can name file, line and key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from rolecall.core.errors import ConfigError

__all__ = ("KeyPath", "Mark", "Marks", "dotted")

KeyPath = tuple[str | int, ...]

_PLAIN = re.compile(r"[A-Za-z0-9_*?/:${},\-\[\]]+")


class Mark(NamedTuple):
    """A place in a file; `line` counts from 1."""

    file: str
    line: int


class Marks:
    """The places of an application's keys, in the file or files it was read from.

    An application made in Python has no places: its keys are named after `source` alone. `directory` is where
    the file stands, from which relative paths lead. What has moved since it was written (a role of `client*`
    to `client1`) is named where it was written.
    """

    def __init__(
        self,
        source: str,
        places: Mapping[KeyPath, Mark] | None = None,
        directory: str | None = None,
        moves: Mapping[KeyPath, KeyPath] | None = None,
    ) -> None:
        self.source, self.directory = source, directory
        self._places = places or {}
        self._moves = moves or {}

    def where(self, path: KeyPath) -> str:
        """Return file, line and key of the part at `path`, or of the nearest around it."""
        mark, written = self.mark(path), dotted(self.written(path))
        place = f"{mark.file}:{mark.line}" if mark else self.source
        return f"{place}: {written}" if written else place

    def mark(self, path: KeyPath) -> Mark | None:
        """Return where the part at `path` was written, or the nearest part around it that has a line."""
        written = self.written(path)
        around = (self._places.get(written[:length]) for length in range(len(written), -1, -1))
        return next((mark for mark in around if mark is not None), None)

    def written(self, path: KeyPath) -> KeyPath:
        """Return the path under which a part was written."""
        for length in range(len(path), 0, -1):
            before = self._moves.get(path[:length])
            if before is not None:
                return (*before, *path[length:])
        return path

    def error(self, path: KeyPath, problem: str, hint: str = "") -> ConfigError:
        """Return an error about the part at `path`."""
        return ConfigError(self.where(path), problem, hint=hint)

    def moved(self, moves: Mapping[KeyPath, KeyPath]) -> Marks:
        """Return marks that find each part under its new path (the key) at its old one (the value)."""
        composed = {new: self.written(old) for new, old in moves.items()}
        return Marks(self.source, self._places, self.directory, {**self._moves, **composed})


def dotted(path: KeyPath) -> str:
    """Return a key path as text: `roles.client*.trainer.elements.model`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _PLAIN.fullmatch(part) else f"{part!r}")
    return text
