"""Elements: the workload slots of a role (a model, a data set, a planner) that the configuration fills."""

from __future__ import annotations

import types
import typing
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import msgspec

from rolecall.core.annotations import class_hint, type_name
from rolecall.core.errors import DeclarationError, ElementError
from rolecall.core.members import members_of
from rolecall.core.signatures import accepted_classes

__all__ = ("Element", "ElementDeclaration", "Fresh", "Lazy", "check_element", "declared_elements", "element")

T_co = TypeVar("T_co", covariant=True)


class Lazy(Protocol[T_co]):
    """An element loaded when first asked for, off the event loop: `model: rc.Lazy[Model] = rc.element()`."""

    @abstractmethod
    def __call__(self) -> Coroutine[Any, Any, T_co]:
        """Return the element, loading it the first time."""


class Fresh(Protocol[T_co]):
    """An element built anew at each call, off the event loop: `planner: rc.Fresh[Planner] = rc.element()`."""

    @abstractmethod
    def __call__(self, **options: Any) -> Coroutine[Any, Any, T_co]:
        """Return a new one; `options` add to the configured ones."""


class ElementDeclaration(msgspec.Struct, frozen=True):
    """An element a role class declares. `load` is `eager`, `lazy` or `fresh`; `type` what it must be."""

    name: str
    type: Any
    load: str
    optional: bool
    default: Callable[[], Any] | None = None


class Element:
    """The descriptor behind `element()`."""

    def __init__(self, default: Callable[[], Any] | None, optional: bool) -> None:
        self.default, self.optional, self.name = default, optional or default is not None, ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, obj: Any, owner: type) -> Any:
        if obj is None:
            return self
        try:
            return obj.__dict__[self.name]
        except KeyError:
            raise ElementError(
                obj.id if "_host" in vars(obj) else type_name(owner),
                self.name,
                "is not loaded yet",
                hint="Elements are there from `setup()` on, not in `__init__`",
            ) from None

    def __set__(self, obj: Any, value: Any) -> None:
        obj.__dict__[self.name] = value

    def declaration(self, owner: type) -> ElementDeclaration:
        """Return what the annotation of `owner` says about the element."""
        try:
            hint = class_hint(owner, self.name)
        except NameError as error:
            place = f"{type_name(owner)}.{self.name}"
            raise DeclarationError(place, f"its annotation cannot be resolved: {error}") from error
        if hint in (Lazy, Fresh):
            place = f"{type_name(owner)}.{self.name}"
            raise DeclarationError(
                place, f"rc.{hint.__name__} does not say of what", hint=f"Write `rc.{hint.__name__}[SomeType]`"
            )
        load = {Lazy: "lazy", Fresh: "fresh"}.get(typing.cast(Any, typing.get_origin(hint)), "eager")
        wanted = typing.get_args(hint)[0] if load != "eager" else hint
        return ElementDeclaration(self.name, wanted, load, self.optional, self.default)


def element(*, default: Callable[[], Any] | None = None, optional: bool = False) -> Any:
    """Declare a slot that the configuration fills; the annotation is its type: `model: Model = rc.element()`.

    A plain annotation is loaded, in a worker thread, before `setup()`. `rc.Lazy[Model]` is loaded at the
    first `await self.model()`; `rc.Fresh[Model]` is built anew at each.

    Args:
        default: called for the value where the configuration has none.
        optional: where the configuration has none, the value is None.
    """
    return Element(default, optional)


def declared_elements(cls: type) -> dict[str, ElementDeclaration]:
    """Return the elements a role class declares, by name."""
    return {name: slot.declaration(cls) for name, slot in members_of(cls, Element).items()}


def check_element(role: str, declared: ElementDeclaration, value: Any) -> None:
    """Raise `ElementError` unless `value` is what was declared; protocols are checked member by member."""
    if value is None and declared.optional:
        return
    wanted = declared.type
    union = typing.get_origin(wanted) in (typing.Union, types.UnionType)
    if any(_fits(value, member) for member in (typing.get_args(wanted) if union else (wanted,))):
        return
    found, missing = type_name(type(value)), ", ".join(_missing(value, wanted))
    if missing:
        raise ElementError(role, declared.name, f"{found} is no {type_name(wanted)}: it has no {missing}")
    raise ElementError(role, declared.name, f"it is of type {found}, but the role declares {type_name(wanted)}")


def _fits(value: Any, wanted: Any) -> bool:
    return not _missing(value, wanted) and isinstance(value, accepted_classes(wanted))


def _missing(value: Any, wanted: Any) -> list[str]:
    """Return the members of a protocol that a value does not have."""
    protocol = typing.get_origin(wanted) or wanted
    if not getattr(protocol, "_is_protocol", False):
        return []
    import typing_extensions  # the one use of it, and slow to import

    return sorted(name for name in typing_extensions.get_protocol_members(protocol) if not hasattr(value, name))
