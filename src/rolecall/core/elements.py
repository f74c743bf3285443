"""Elements: the workload slots of a role (a model, a data set, a planner) that the configuration fills."""

from __future__ import annotations

import typing
from abc import abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

import msgspec

from rolecall.core.annotations import class_hint, type_name
from rolecall.core.errors import DeclarationError, ElementError

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
                getattr(obj, "id", type_name(owner)),
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
    found: dict[str, Element] = {}
    for base in reversed(cls.__mro__):
        found.update({k: v for k, v in vars(base).items() if isinstance(v, Element)})
    return {name: slot.declaration(cls) for name, slot in found.items()}


def check_element(role: str, declared: ElementDeclaration, value: Any) -> None:
    """Raise `ElementError` unless `value` is what was declared; protocols are checked member by member."""
    wanted = declared.type
    if value is None and declared.optional:
        return
    if getattr(wanted, "_is_protocol", False):
        missing = sorted(name for name in _protocol_members(wanted) if not hasattr(value, name))
        if missing:
            raise ElementError(
                role,
                declared.name,
                f"{type_name(type(value))} is no {type_name(wanted)}: it has no {', '.join(missing)}",
            )
        return
    origin = typing.get_origin(wanted) or wanted
    if isinstance(origin, type) and not isinstance(value, origin):
        raise ElementError(
            role,
            declared.name,
            f"it is of type {type_name(type(value))}, but the role declares {type_name(wanted)}",
        )


def _protocol_members(protocol: type) -> set[str]:
    import typing_extensions

    return set(typing_extensions.get_protocol_members(protocol))
