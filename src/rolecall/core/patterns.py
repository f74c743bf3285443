"""Names of many: ranges such as `client[1-10]`, patterns such as `client*/trainer`, and the natural order.

A range in brackets is a list of whole numbers and spans of them, `[1-10]`, `[01-03]` (padded to two digits)
or `[1,4-6]`. In a pattern `*` stands for any text, `?` for one character, and neither crosses the `/` of a
role id; a range stands there for the same names that it expands to.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

__all__ = ("expand_range", "has_range", "is_pattern", "matches", "natural_key", "select")

NAMES_LIMIT = 100_000
"""The most names that one range may stand for: a slip such as `[1-99999999]` must not eat the memory."""

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_SPAN = re.compile(r"([0-9]{1,18})(?:-([0-9]{1,18}))?")
_FORM = "a range is written [1-10], [01-10] (padded) or [1,4-6]"


class _Span(NamedTuple):
    """The numbers from `low` to `high`, written with at least `width` digits."""

    low: int
    high: int
    width: int

    def texts(self) -> Iterator[str]:
        return (str(number).zfill(self.width) for number in range(self.low, self.high + 1))

    def regex(self) -> str:
        shortest, longest = len(str(self.low).zfill(self.width)), len(str(self.high).zfill(self.width))
        return "|".join(self._of_length(length) for length in range(shortest, longest + 1))

    def _of_length(self, length: int) -> str:
        smallest = 0 if length == max(self.width, 1) else 10 ** (length - 1)
        low, high = max(self.low, smallest), min(self.high, 10**length - 1)
        return _between(str(low).zfill(length), str(high).zfill(length))


def _between(low: str, high: str) -> str:
    """Return a regular expression for the digit strings from `low` to `high`, which are equally long."""
    if low == high:
        return low
    if low[0] == high[0]:
        return f"{low[0]}(?:{_between(low[1:], high[1:])})"
    rest, first, last = len(low) - 1, int(low[0]), int(high[0])
    branches = []
    if low[1:] != "0" * rest:
        branches.append(f"{first}(?:{_between(low[1:], '9' * rest)})")
        first += 1
    if high[1:] != "9" * rest:
        branches.append(f"{last}(?:{_between('0' * rest, high[1:])})")
        last -= 1
    if first <= last:
        branches.append(f"[{first}-{last}]" + (f"[0-9]{{{rest}}}" if rest else ""))
    return "|".join(branches)


def natural_key(name: str) -> tuple[object, ...]:
    """Return a sort key under which `client2` comes before `client10`.

    Numbers compare by value; names that differ only in leading zeros (`a1`, `a01`) compare as text, so that
    the order is total and does not depend on where the names came from.
    """
    parts = re.split(r"([0-9]+)", name)  # text, digits, text, ...: like is always compared with like
    return tuple(_number_key(part) if index % 2 else part for index, part in enumerate(parts)), name


def _number_key(digits: str) -> tuple[int, str]:
    """Order digit strings by value without making integers of any length out of them."""
    significant = digits.lstrip("0")
    return len(significant), significant


def is_pattern(text: str) -> bool:
    """Say whether `text` may stand for more than one name (it has a `*`, a `?` or a range)."""
    return any(sign in text for sign in "*?[")


def has_range(text: str) -> bool:
    """Say whether `text` has something in brackets."""
    return "[" in text or "]" in text


def expand_range(text: str) -> list[str]:
    """Return the names that a text with any number of ranges stands for, in the order of the numbers.

    `client[1-3]` gives client1, client2, client3; `rack[1-2]-n[1-2]` gives four names, the last range
    changing fastest; a text without a range gives itself. Raises `ValueError` for a malformed, descending or
    overlong range.
    """
    literals, ranges = _parse(text)
    total = 1
    for spans in ranges:
        total *= sum(span.high - span.low + 1 for span in spans)
    if total > NAMES_LIMIT:
        raise ValueError(f"{text!r} stands for {total:,} names; at most {NAMES_LIMIT:,} are allowed")
    choices = [list(itertools.chain.from_iterable(span.texts() for span in spans)) for spans in ranges]
    return ["".join(_woven(literals, numbers)) for numbers in itertools.product(*choices)]


def _woven(literals: list[str], numbers: tuple[str, ...]) -> Iterator[str]:
    for literal, number in itertools.zip_longest(literals, numbers, fillvalue=""):
        yield literal
        yield number


@lru_cache(maxsize=4096)
def _parse(text: str) -> tuple[list[str], list[list[_Span]]]:
    """Split a text into its literal parts and, between them, the spans of its ranges."""
    parts = _BRACKETS.split(text)
    literals, bodies = parts[::2], parts[1::2]
    if any(has_range(literal) for literal in literals):
        raise ValueError(f"{text!r} has a bracket without its partner; {_FORM}")
    return literals, [[_span(text, item) for item in body.split(",")] for body in bodies]


def _span(text: str, item: str) -> _Span:
    found = _SPAN.fullmatch(item.strip())
    if not found:
        raise ValueError(f"{text!r} has {item!r} in brackets, which is no number and no span; {_FORM}")
    low, high = found[1], found[2] if found[2] is not None else found[1]
    if int(low) > int(high):
        raise ValueError(f"{text!r} has a range that runs backwards; write [{high}-{low}]")
    padded = (low.startswith("0") and len(low) > 1) or (high.startswith("0") and len(high) > 1)
    if padded and len(low) != len(high):
        raise ValueError(f"{text!r} pads {low} and {high} to different widths; use one")
    return _Span(int(low), int(high), len(low) if padded else 0)


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    first, *others = _segments(pattern)
    regex = first
    for segment in others[:-1]:
        # The first place where a fixed text fits is as good as any later one, so there is nothing to go back for;
        # without saying so, a name could take time that grows with a power of its length. Ranges vary in length.
        regex += f"[^/]*{segment}" if "(?:" in segment else f"(?>[^/]*?{segment})"
    return re.compile(regex + (f"[^/]*{others[-1]}" if others else "") + r"\Z")


def _segments(pattern: str) -> list[str]:
    """Return the regular expressions of what stands between the stars of a pattern."""
    literals, ranges = _parse(pattern)
    found = [""]
    for literal, spans in itertools.zip_longest(literals, ranges):
        head, *tail = (_literal_regex(part) for part in re.split(r"\*+", literal))
        found[-1] += head
        found.extend(tail)
        if spans is not None:
            found[-1] += f"(?:{'|'.join(span.regex() for span in spans)})"
    return found


def _literal_regex(literal: str) -> str:
    return "".join("[^/]" if sign == "?" else re.escape(sign) for sign in literal)


def matches(pattern: str, name: str) -> bool:
    """Say whether `name`, a node or a role id, is one of those that `pattern` stands for.

    Raises `ValueError` for a malformed range.
    """
    return _compiled(pattern).match(name) is not None


def select(pattern: str, names: Iterable[str]) -> list[str]:
    """Return those of `names` that `pattern` stands for, in natural order."""
    found = _compiled(pattern).match
    return sorted((name for name in names if found(name)), key=natural_key)
