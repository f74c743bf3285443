"""Attributes that are made when they are first looked at: there may be objects by the thousand, and most are idle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, Self, TypeVar, overload

__all__ = ("NONE_YET", "OnUse")

T = TypeVar("T")

NONE_YET: Final[dict[Any, Any]] = {}
"""What an attribute is until something is put into it, where it is looked at too often for `OnUse`.

Nothing is ever put into this one: whoever wants to, replaces it by a dictionary of its own.
"""


class OnUse(Generic[T]):
    """Declares an attribute such as `errors = OnUse(dict[str, int])`, which no object has until it is looked at.

    It is for classes with `__slots__`, and kept in a slot of its name with an underscore after it: `errors_`.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._slot = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._slot = f"{name}_"

    @overload
    def __get__(self, obj: None, owner: type) -> Self: ...

    @overload
    def __get__(self, obj: object, owner: type | None = None) -> T: ...

    def __get__(self, obj: Any, owner: type | None = None) -> Any:
        if obj is None:
            return self
        made = getattr(obj, self._slot, None)
        if made is None:
            made = self._make()
            setattr(obj, self._slot, made)
        return made

    def __set__(self, obj: object, value: T) -> None:
        setattr(obj, self._slot, value)
