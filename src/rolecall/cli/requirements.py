"""What rolecall asks to be installed, as its own package metadata says it, and whether it is."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import metadata

__all__ = ("Requirement", "installed_version", "parse", "requirements")

_LINE = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*)\s*(?:\[[^\]]*\])?\s*\(?([^;)]*)\)?\s*(?:;(.*))?\Z")
_AT_LEAST = re.compile(r">=\s*([0-9][0-9.]*)")
_EXTRA = re.compile(r"extra\s*==\s*['\"]([A-Za-z0-9._-]+)['\"]")
_NOT_ON = re.compile(r"sys_platform\s*!=\s*['\"](\w+)['\"]")
_NOT_FOR_USERS = ("all", "dev")


@dataclass(frozen=True)
class Requirement:
    """A package, the least version that will do, and the extra that asks for it ("" if always needed)."""

    name: str
    at_least: str
    extra: str

    def is_met_by(self, version: str) -> bool:
        """Return whether `version` is new enough."""
        return _numbers(version) >= _numbers(self.at_least)

    @property
    def command(self) -> str:
        """The command that installs it."""
        return f"pip install 'rolecall[{self.extra}]'" if self.extra else f"pip install '{self.name}>={self.at_least}'"


def requirements() -> list[Requirement]:
    """Return what rolecall asks for, always needed packages first; nothing that only developers need."""
    try:
        lines = metadata.requires("rolecall") or []
    except metadata.PackageNotFoundError:
        return []
    return sorted(parse(lines), key=lambda requirement: bool(requirement.extra))


def parse(lines: Iterable[str]) -> Iterator[Requirement]:
    """Yield what lines such as `torch>=2.6; extra == 'torch'` ask of a user of this platform."""
    for line in lines:
        match = _LINE.match(line.strip())
        if match is None:
            continue
        name, versions, marker = match[1], match[2], match[3] or ""
        elsewhere, extra = _NOT_ON.search(marker), _EXTRA.search(marker)
        if (elsewhere and elsewhere[1] == sys.platform) or (extra and extra[1] in _NOT_FOR_USERS):
            continue
        least = _AT_LEAST.search(versions)
        yield Requirement(name, least[1] if least else "0", extra[1] if extra else "")


def installed_version(name: str) -> str | None:
    """Return the version of an installed package, None when it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    """Return the numbers a version begins with: (2, 13) for 2.13.0+cpu; zeros at the end say nothing."""
    numbers = [int(part) for part in re.match(r"[0-9.]*", version)[0].split(".") if part]  # type: ignore[index]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
