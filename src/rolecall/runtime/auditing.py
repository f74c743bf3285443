"""What may stand in an audit log: bounded, and nothing that a terminal would act on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from rolecall.wire.peers import printable

__all__ = ("LIST_ITEMS", "TEXT_CHARS", "facts_of")

TEXT_CHARS: Final = 2_000
LIST_ITEMS: Final = 100


def facts_of(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return who, what and why by name, as plain data; what is None or empty is left out."""
    return {name: _plain(value) for name, value in given.items() if value not in (None, (), "")}


def _plain(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(_plain(key)): _plain(item) for key, item in list(value.items())[:LIST_ITEMS]}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value[:LIST_ITEMS]]
    return printable(str(value))[:TEXT_CHARS]
