"""Declared state: what of a role moves with it, survives a restart and is kept at the end of a run."""

from __future__ import annotations

import copy
from typing import Any, Generic, TypeVar, overload

import msgspec

from rolecall.core.annotations import type_name
from rolecall.core.errors import DeclarationError, WrongType
from rolecall.core.members import members_of

__all__ = ("State", "declared_state")

S = TypeVar("S", bound=msgspec.Struct)


class State(Generic[S]):
    """Declare a role's state: `state = rc.State(TrainerState)`, a `msgspec.Struct` that needs no arguments.

    `self.state` starts as `TrainerState()`, or as what was saved; the role changes it freely. Tensors are
    allowed, and those that are there when a run ends are its final parameters.
    """

    def __init__(self, type_: type[S]) -> None:
        self.type, self.name = type_, ""
        # Here rather than in __set_name__, whose errors Python 3.11 wraps.
        given: object = type_
        if not (isinstance(given, type) and issubclass(given, msgspec.Struct)):
            name = type_name(type_)
            raise DeclarationError(f"rc.State({name})", f"{name} is no msgspec.Struct")

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

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
        if not isinstance(value, self.type):
            place = f"{type_name(type(obj))}.{self.name}"
            raise WrongType(place, type_name(self.type), type_name(type(value)))
        obj.__dict__[self.name] = value

    def read(self, role: object) -> Any:
        """Return the state of a role."""
        return getattr(role, self.name)

    def write(self, role: object, value: Any) -> None:
        """Replace the state of a role."""
        setattr(role, self.name, value)

    def fresh(self, owner: type) -> S:
        """Return the state a new role starts with; nothing in it is shared with another role."""
        try:
            return copy.deepcopy(self.type())  # msgspec gives every struct the same default array
        except TypeError as error:
            raise DeclarationError(
                f"{type_name(owner)}.{self.name}",
                f"{type_name(self.type)} cannot start empty: {error}",
                hint="Give every field of a role's state a default",
            ) from None


class _States(State[Any]):
    """The states of a role and its extensions as one: a struct with a field for each, by its name."""

    def __init__(self, parts: dict[str, State[Any]]) -> None:
        super().__init__(msgspec.defstruct("States", [(name, part.type) for name, part in parts.items()]))
        self._parts = parts

    def read(self, role: object) -> Any:
        return self.type(**{name: part.read(role) for name, part in self._parts.items()})

    def write(self, role: object, value: Any) -> None:
        for name, part in self._parts.items():
            part.write(role, getattr(value, name))


def declared_state(cls: type) -> State[Any] | None:
    """Return the state a role class declares, or None; several (a role's and its extensions') as one.

    Raises:
        DeclarationError: it declares one that cannot start empty.
    """
    found = members_of(cls, State)
    for state in found.values():
        state.fresh(cls)
    return _States(found) if len(found) > 1 else next(iter(found.values()), None)
