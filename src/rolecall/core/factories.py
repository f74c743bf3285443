"""Factories by name: what `@rc.factory("shard")` marks, application files call `factory: shard`.

A name is known once the module that registers it has been imported, as the modules of an application's roles
are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from rolecall.core.errors import DeclarationError

__all__ = ("factories", "factory")

F = TypeVar("F", bound=Callable[..., Any])

_FACTORIES: dict[str, Callable[..., Any]] = {}


def factory(name: str) -> Callable[[F], F]:
    """Register a function or class under a name that application files may use.

    Raises:
        DeclarationError: the name is taken by another, or has a colon, which sets names of modules apart.
    """

    def register(function: F) -> F:
        place = f"factory {name!r}"
        if not name or ":" in name:
            raise DeclarationError(place, "a factory's name is one or more characters without a colon")
        known = _FACTORIES.get(name)
        if known is not None and _origin(known) != _origin(function):
            raise DeclarationError(place, f"the name is taken by {_origin(known)}", hint="Choose another name")
        _FACTORIES[name] = function
        return function

    return register


def factories() -> Mapping[str, Callable[..., Any]]:
    """Return a view of the factories by name."""
    return MappingProxyType(_FACTORIES)


def _origin(function: Callable[..., Any]) -> str:
    """Return where a function was written: importing its module anew registers it again."""
    return f"{function.__module__}:{getattr(function, '__qualname__', '')}"
