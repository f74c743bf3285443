"""Values that differ from node to node, as they are written in options and in the properties of nodes.

- `$ordinal`: the index (from 0) of the node among those its key matched; `$count`: how many those are.
- `$node`, `$role`, `$seed`: the node's name, the role's id, the application's seed.
- `part-$ordinal.npz`: any of these inside a text; `$$` is a dollar sign.
- `{$random: {uniform: [0.5, 2.0]}}`: a real number; `loguniform`: all orders of magnitude equally likely.
- `{$random: {integers: [1, 10]}}`: a whole number, ends included; `{$random: {choice: [sgd, adam]}}`: one of a list.
- `{$range: {from: 1, to: 9, step: 2}}`: 1 for the first node, 3 for the next, and so on; `to` may be left out.
- `{$cycle: [a, b]}`, `{$cycle: {from: 1, to: 4}}`: one for each node in order, from the start again at the end.
- `{$import: "torch.nn:ReLU"}`: a Python object by name, imported when the role is built.

A random value depends on the seed, the role (or node) and the key alone: not on other values, nor on their
order.
"""

from __future__ import annotations

import enum
import math
import os
import random
import re
from collections.abc import Callable
from typing import Any

import msgspec

from rolecall.core.errors import nearest
from rolecall.core.randomness import seed_for
from rolecall.fleet import importing
from rolecall.fleet.marks import KeyPath, Marks, dotted
from rolecall.fleet.shapes import live, shown

__all__ = ("Place", "imported", "plain", "resolved")

_NAME = re.compile(r"\$(\$|[A-Za-z_]\w*)")


class Place(msgspec.Struct, frozen=True):
    """The node or role that values are resolved for."""

    node: str
    role: str
    ordinal: int
    count: int
    seed: int

    def names(self) -> dict[str, Any]:
        """Return what `$ordinal` and the like stand for."""
        return {
            "ordinal": self.ordinal,
            "count": self.count,
            "node": self.node,
            "role": self.role or self.node,
            "seed": self.seed,
        }


def resolved(value: Any, place: Place, path: KeyPath, marks: Marks, key: KeyPath = ()) -> Any:
    """Return what a value is at a place.

    `path` is where it is written, for messages; `key` is its place within the role, which keys random values.
    Tuples become lists, scalars of numpy become numbers, and what can be imported becomes `{$import: name}`,
    so that a run gets what a run from the file would get. Other objects stay as they are.
    """
    if isinstance(value, str):
        return _text(value, place, path, marks)
    if isinstance(value, dict):
        if any(isinstance(name, str) and name.startswith("$") for name in value):
            return _form(value, place, path, marks, key)
        return {name: resolved(item, place, (*path, name), marks, (*key, str(name))) for name, item in value.items()}
    if type(value) in (list, tuple):
        return [resolved(item, place, (*path, i), marks, (*key, i)) for i, item in enumerate(value)]
    return plain(value)


def plain(value: Any) -> Any:
    """Return an object of Python in the form that a file can hold, where it has one, and otherwise itself."""
    if value is None or isinstance(value, (dict, enum.Enum)):
        return value
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, str):
        return str.__str__(value)  # a `RoleId` is text like any other
    if type(value) is tuple:
        return list(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    name = importing.reference(value) if callable(value) else None
    return {"$import": name} if name else value


def _text(text: str, place: Place, path: KeyPath, marks: Marks) -> Any:
    names = place.names()

    def value_of(found: re.Match[str]) -> Any:
        if found[1] == "$":
            return "$"
        if found[1] not in names:
            hint = nearest(found[1], names) + f" There are ${', $'.join(names)}; write $$ for a dollar sign"
            raise marks.error(path, f"${found[1]} has no meaning", hint)
        return names[found[1]]

    whole = _NAME.fullmatch(text)
    return value_of(whole) if whole else _NAME.sub(lambda found: str(value_of(found)), text)


# --------------------------------------------------------------------------------------------------- forms


def _form(value: dict[Any, Any], place: Place, path: KeyPath, marks: Marks, key: KeyPath) -> Any:
    name = next(name for name in value if isinstance(name, str) and name.startswith("$"))
    if len(value) > 1:
        raise marks.error(path, f"{name} stands beside other keys: {shown(value)}", "Let it stand alone")
    if name not in _FORMS:
        known = [form for form in _FORMS if form != "$live"]
        hint = f"{nearest(name, known)} There are: {', '.join(known)}"
        raise marks.error((*path, name), f"there is no value {name}", hint)
    return _FORMS[name](value[name], place, (*path, name), marks, key)


def _random(value: Any, place: Place, path: KeyPath, marks: Marks, key: KeyPath) -> Any:
    if not isinstance(value, dict) or len(value) != 1 or next(iter(value)) not in _DRAWS:
        found = next(iter(value), "") if isinstance(value, dict) else value
        expected = ", ".join(f"{{{name}: ...}}" for name in _DRAWS)
        hint = nearest(str(found), _DRAWS)
        raise marks.error(path, f"found {shown(value)}, expected one of {expected}", hint)
    kind, bounds = next(iter(value.items()))
    if not isinstance(bounds, list) or not bounds:
        raise marks.error((*path, kind), f"found {shown(bounds)}, expected a list")
    rng = random.Random(seed_for(place.seed, "value", place.role or place.node, dotted(key)))
    drawn = _DRAWS[kind](bounds, rng, (*path, kind), marks)
    return resolved(drawn, place, path, marks, (*key, "$random"))


def _bounds(value: list[Any], path: KeyPath, marks: Marks, *, whole: bool = False) -> tuple[Any, Any]:
    what = "two whole numbers" if whole else "two finite numbers"
    if len(value) != 2 or not all(_is_number(item, whole=whole) for item in value):
        raise marks.error(path, f"found {value!r}, expected [low, high], {what}")
    if value[0] > value[1]:
        hint = f"Write [{value[1]}, {value[0]}]"
        raise marks.error(path, f"found {value!r}, expected the lower bound first", hint)
    return value[0], value[1]


def _is_number(value: Any, *, whole: bool = False) -> bool:
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and -math.inf < value < math.inf


def _uniform(value: list[Any], rng: random.Random, path: KeyPath, marks: Marks) -> float:
    low, high = _bounds(value, path, marks)
    return _within(low, low * (1 - (share := rng.random())) + high * share, high)


def _loguniform(value: list[Any], rng: random.Random, path: KeyPath, marks: Marks) -> float:
    low, high = _bounds(value, path, marks)
    if low <= 0:
        raise marks.error(path, f"found {value!r}, expected bounds above 0")
    share = rng.random()
    return _within(low, math.exp(math.log(low) * (1 - share) + math.log(high) * share), high)


def _within(low: float, value: float, high: float) -> float:
    return float(min(max(low, value), high))  # rounding may step over a bound by a hair


def _integers(value: list[Any], rng: random.Random, path: KeyPath, marks: Marks) -> int:
    low, high = _bounds(value, path, marks, whole=True)
    return rng.randint(low, high)


def _choice(value: list[Any], rng: random.Random, path: KeyPath, marks: Marks) -> Any:
    return value[rng.randrange(len(value))]


def _range(value: Any, place: Place, path: KeyPath, marks: Marks, key: KeyPath) -> Any:
    start, step, length = _steps(value, path, marks)
    if length is not None and place.ordinal >= length:
        raise marks.error(path, f"it has {length} values, for {place.count} nodes", "Make it longer, or use $cycle")
    return start + place.ordinal * step


def _cycle(value: Any, place: Place, path: KeyPath, marks: Marks, key: KeyPath) -> Any:
    if isinstance(value, dict):
        start, step, length = _steps(value, path, marks)
        if length is None:
            raise marks.error(path, "the key 'to' is missing", "Write {from: 1, to: 4}")
        return start + place.ordinal % length * step
    if not isinstance(value, list) or not value:
        raise marks.error(path, f"found {shown(value)}, expected a list or {{from: ..., to: ...}}")
    index = place.ordinal % len(value)
    return resolved(value[index], place, (*path, index), marks, (*key, "$cycle"))


def _steps(value: Any, path: KeyPath, marks: Marks) -> tuple[Any, Any, int | None]:
    """Return first value, step and length (None for no end) of a range."""
    known = ("from", "to", "step")
    if not isinstance(value, dict) or "from" not in value:
        raise marks.error(path, f"found {shown(value)}, expected {{from: ..., to: ..., step: ...}}")
    for name, number in value.items():
        if name not in known:
            hint = f"{nearest(str(name), known)} There are from, to, step"
            raise marks.error((*path, name), f"unknown key {name!r}", hint)
        if not _is_number(number):
            raise marks.error((*path, name), f"found {shown(number)}, expected a number")
    start, step = value["from"], value.get("step", 1)
    if "to" not in value:
        return start, step, None
    if step == 0 or (value["to"] - start) / step < 0:
        raise marks.error(path, f"from {start} it never comes to {value['to']} in steps of {step}")
    return start, step, math.floor((value["to"] - start) / step + 1e-9) + 1


def _import(value: Any, place: Place, path: KeyPath, marks: Marks, key: KeyPath) -> Any:
    if not isinstance(value, str):
        raise marks.error(path, f"found {shown(value)}, expected 'module:name'")
    return {"$import": value}


def _live(value: Any, place: Place, path: KeyPath, marks: Marks, key: KeyPath) -> Any:
    raise live(value, path[:-1], marks)


_FORMS: dict[str, Callable[[Any, Place, KeyPath, Marks, KeyPath], Any]] = {
    "$random": _random,
    "$range": _range,
    "$cycle": _cycle,
    "$import": _import,
    "$live": _live,
}
_DRAWS: dict[str, Callable[[list[Any], random.Random, KeyPath, Marks], Any]] = {
    "uniform": _uniform,
    "loguniform": _loguniform,
    "integers": _integers,
    "choice": _choice,
}


# ------------------------------------------------------------------------------------- in an expanded file


def imported(value: Any, where: str, search: tuple[str, ...] = ()) -> Any:
    """Return expanded options with the objects that `{$import: name}` stands for; for those who build roles.

    Raises:
        ConfigError: an object cannot be imported; `where` says whose options they are.
    """
    if isinstance(value, dict):
        if set(value) == {"$import"}:
            return importing.load(value["$import"], where, search)
        return {key: imported(item, f"{where}.{key}", search) for key, item in value.items()}
    if type(value) is list:
        return [imported(item, f"{where}[{index}]", search) for index, item in enumerate(value)]
    return value
