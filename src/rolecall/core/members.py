"""The members of a class as its instances see them: what a subclass overrides is gone."""

from __future__ import annotations

from typing import Any, TypeVar

__all__ = ("members_of",)

T = TypeVar("T")


def members_of(cls: type, kind: type[T]) -> dict[str, T]:
    """Return the members of a class that are of a kind, by name, those of the bases first."""
    members: dict[str, Any] = {name: value for base in reversed(cls.__mro__) for name, value in vars(base).items()}
    return {name: value for name, value in members.items() if isinstance(value, kind)}
