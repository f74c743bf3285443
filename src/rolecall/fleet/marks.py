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
    """A place in a file: `line` counts from 1, `path` is the key as it was written there."""

    file: str
    line: int
    path: KeyPath


class Marks:
    """The places of an application's keys, in the file or files it was read from.

    An application made in Python has no places: its keys are named after `source` alone. `directory` is where
    the file stands, from which relative paths lead.
    """

    def __init__(
        self, source: str, places: Mapping[KeyPath, Mark] | None = None, directory: str | None = None
    ) -> None:
        self.source, self.directory = source, directory
        self.places = dict(places or {})

    def where(self, path: KeyPath) -> str:
        """Return file, line and key of the part at `path`, or of the nearest around it."""
        mark = self.mark(path)
        if mark is None:
            return f"{self.source}: {dotted(path)}" if path else self.source
        return f"{mark.file}:{mark.line}: {dotted(mark.path)}" if mark.path else f"{mark.file}:{mark.line}"

    def mark(self, path: KeyPath) -> Mark | None:
        """Return where the part at `path` was written, with the line of the nearest part that has one."""
        for length in range(len(path), -1, -1):
            mark = self.places.get(path[:length])
            if mark is not None:
                written = (*mark.path, *path[length:])
                if mark.path == path[:length]:
                    return mark._replace(path=written)
                return self.mark(written)  # a role of `client*` that is on `client1` has its keys there
        return None

    def error(self, path: KeyPath, problem: str, hint: str = "") -> ConfigError:
        """Return an error about the part at `path`."""
        return ConfigError(self.where(path), problem, hint=hint)

    def moved(self, moves: Mapping[KeyPath, KeyPath]) -> Marks:
        """Return marks that find each part under its new path (the key) at its old one (the value)."""
        found = {new: self.mark(old) for new, old in moves.items() if new != old}
        moved = {new: mark for new, mark in found.items() if mark is not None}
        return Marks(self.source, {**self.places, **moved}, self.directory)


def dotted(path: KeyPath) -> str:
    """Return a key path as text: `roles.client*.trainer.elements.model`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + (part if _PLAIN.fullmatch(part) else f"{part!r}")
    return text
