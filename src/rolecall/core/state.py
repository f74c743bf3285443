"""Declared state: what of a role moves with it, survives a restart and is kept at the end of a run."""

from __future__ import annotations

from typing import Any, Generic, TypeVar, overload

import msgspec

from rolecall.core.annotations import type_name
from rolecall.core.errors import DeclarationError

__all__ = ("State", "declared_state")

S = TypeVar("S", bound=msgspec.Struct)


class State(Generic[S]):
    """Declare a role's state: `state = rc.State(TrainerState)`, a `msgspec.Struct` that needs no arguments.

    `self.state` starts as `TrainerState()`, or as what was saved; the role changes it freely. Tensors are
    allowed, and those that are there when a run ends are its final parameters.
    """

    def __init__(self, type_: type[S]) -> None:
        self.type, self.name = type_, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name
        if not issubclass(self.type, msgspec.Struct):
            raise DeclarationError(
                f"{owner.__qualname__}.{name}", f"{type_name(self.type)} is no msgspec.Struct"
            )

    @overload
    def __get__(self, obj: None, owner: type) -> State[S]: ...
    @overload
    def __get__(self, obj: object, owner: type) -> S: ...
    def __get__(self, obj: Any, owner: type) -> Any:
        if obj is None:
            return self
        if self.name not in obj.__dict__:
            obj.__dict__[self.name] = self.fresh(owner)
        return obj.__dict__[self.name]

    def __set__(self, obj: Any, value: S) -> None:
        obj.__dict__[self.name] = value

    def fresh(self, owner: type) -> S:
        """Return the state a new role starts with."""
        try:
            return self.type()
        except TypeError as error:
            raise DeclarationError(
                f"{type_name(owner)}.{self.name}",
                f"{type_name(self.type)} cannot start empty: {error}",
                hint="Give every field of a role's state a default",
            ) from None


def declared_state(cls: type) -> State[Any] | None:
    """Return the state a role class declares, or None.

    Raises:
        DeclarationError: it declares several.
    """
    found = {k: v for base in reversed(cls.__mro__) for k, v in vars(base).items() if isinstance(v, State)}
    if len(found) > 1:
        raise DeclarationError(
            type_name(cls), f"it declares several states: {', '.join(found)}", hint="Put them into one Struct"
        )
    return next(iter(found.values()), None)
