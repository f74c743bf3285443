"""Attributes that are made when they are first looked at: a simulation has objects by the thousand, mostly idle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, Self, TypeVar, overload

__all__ = ("OnUse",)

T = TypeVar("T")


class OnUse(Generic[T]):
    """Declares an attribute, such as `errors = OnUse(dict[str, int])`: an object has none until it is looked at.

    Unlike `functools.cached_property` it leaves instances without a dictionary of their own.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, obj: None, owner: type) -> Self: ...

    @overload
    def __get__(self, obj: object, owner: type | None = None) -> T: ...

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        if obj is None:
            return self
        made = self._make()
        setattr(obj, self._name, made)  # which is found first from now on
        return made
