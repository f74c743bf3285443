"""Say what was wrong with a value that arrived: where in it, what was declared, and what came."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import msgspec

from rolecall.core.annotations import type_name

__all__ = ("Mismatch", "mismatch_of")


class Mismatch(NamedTuple):
    """Something in a value that is not what was declared; `path` is such as `.layers[2]`, or empty."""

    path: str
    expected: str
    found: str

    def under(self, prefix: str, hint: Any) -> Mismatch:
        """Return the same, seen from the part of the value at `prefix`, which is declared as `hint`."""
        path = self.path.removeprefix(prefix)
        # msgspec calls a struct or dict an `object`, a list or tuple an `array`: the declaration says more.
        vague = not _VAGUE.isdisjoint(self.expected.split(" | "))
        expected = type_name(hint) if vague and not path else self.expected
        return Mismatch(path, expected, self.found)


_VAGUE = frozenset(("object", "array", "a valid value"))
_WORDS = {"null": "None", "array": "list", "object": "dict", "ext": "an array or Tensors"}

_PLACE = re.compile(r"(?P<problem>.*?)(?: - at (?P<key>`key` in )?`\$(?P<path>.*)`)?", re.DOTALL)
_PROBLEMS = (
    (re.compile(r"Expected (?P<expected>.+), got (?P<found>.+)", re.DOTALL), "{expected}", "{found}"),
    (re.compile(r"Expected (?P<expected>.+)", re.DOTALL), "{expected}", "another"),
    (re.compile(r"Object missing required field (?P<name>.+)"), "a value with {name}", "one without it"),
    (re.compile(r"Object contains unknown field (?P<name>.+)"), "no field {name}", "one"),
    (re.compile(r"Invalid enum value (?P<found>.+)", re.DOTALL), "a member of the enum", "{found}"),
)


def mismatch_of(error: msgspec.ValidationError) -> Mismatch:
    """Read place, expected and found out of the message of a `ValidationError`, their only home."""
    place = _PLACE.fullmatch(str(error))
    problem, key, path = place.group("problem", "key", "path") if place else (str(error), None, None)
    expected, found = _reading(problem)
    return Mismatch((path or "") + (" (a key)" if key else ""), expected, found)


def _reading(problem: str) -> tuple[str, str]:
    for pattern, expected, found in _PROBLEMS:
        match = pattern.fullmatch(problem)
        if match:
            facts = {name: text.replace("`", "") for name, text in match.groupdict().items()}
            facts["found"] = _WORDS.get(facts.get("found", ""), facts.get("found", ""))
            facts["expected"] = facts.get("expected", "").replace("null", "None")
            return expected.format(**facts), found.format(**facts)
    return "a valid value", f"another ({problem})"
