"""The signature of a channel: what may be passed, checked before a message leaves its sender."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable
from typing import Any

import msgspec

from rolecall.core.annotations import function_hints, type_name
from rolecall.core.errors import DeclarationError, WrongArgument

__all__ = ("ANYTHING", "Parameter", "Signature", "accepted_classes")

_UNCHECKED = (object,)


class Parameter(msgspec.Struct, frozen=True):
    """A parameter of a handler: its name, resolved annotation, and whether it may be left out."""

    name: str
    hint: Any
    optional: bool
    keyword_only: bool


class Signature:
    """What a handler takes and returns, without `self`."""

    def __init__(self, function: Callable[..., Any], owner: type, channel: str) -> None:
        try:
            hints = function_hints(function, owner)
        except NameError as error:
            raise DeclarationError(
                channel,
                f"its annotations cannot be resolved: {error}",
                hint="Import or define it where the class is, and not under `if TYPE_CHECKING:`",
            ) from error
        self.channel = channel
        self.parameters = tuple(self._parameters(function, hints))
        self.result = hints.get("return", Any)
        self._bindable = inspect.signature(function)
        self._text = _shown(self.parameters, self.result)
        self._accepted = tuple(accepted_classes(p.hint) for p in self.parameters if not p.keyword_only)
        self._required = sum(not p.optional and not p.keyword_only for p in self.parameters)
        self._needs_keywords = any(p.keyword_only and not p.optional for p in self.parameters)

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise `WrongArgument` unless the arguments fit in number, name and outermost type."""
        if kwargs or self._needs_keywords or not self._required <= len(args) <= len(self._accepted):
            self._bind(args, kwargs)
        for position in range(len(args)):  # not `enumerate(zip(...))`: it is done for every message
            if not isinstance(args[position], self._accepted[position]):
                self._complain(self.parameters[position], args[position])

    def _bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        try:
            self._bindable.bind(None, *args, **kwargs)
        except TypeError as error:
            raise WrongArgument(self.channel, str(error), self._text) from None
        by_name = {p.name: p for p in self.parameters}
        for name, value in kwargs.items():
            if not isinstance(value, accepted_classes(by_name[name].hint)):
                self._complain(by_name[name], value)

    def _complain(self, parameter: Parameter, value: Any) -> None:
        found = f"argument {parameter.name!r} is {type_name(type(value))}, not {type_name(parameter.hint)}"
        raise WrongArgument(self.channel, found, self._text)

    def _parameters(self, function: Callable[..., Any], hints: dict[str, Any]) -> list[Parameter]:
        found = []
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                stars = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
                raise DeclarationError(
                    self.channel,
                    f"it takes {stars}{parameter.name}",
                    hint="Name its parameters, so that both ends can check what is sent",
                )
            found.append(
                Parameter(
                    parameter.name,
                    hints.get(parameter.name, Any),
                    parameter.default is not parameter.empty,
                    parameter.kind is parameter.KEYWORD_ONLY,
                )
            )
        return found


class _Anything(Signature):
    """The signature of what the runtime itself sends."""

    def __init__(self) -> None:
        self.parameters, self.result = (), None

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Accept anything."""


ANYTHING: Signature = _Anything()


def accepted_classes(hint: Any) -> tuple[type, ...]:
    """Return classes of which a value must be one to fit the annotation; contents are not looked at."""
    if hint is None or hint is type(None):
        return (type(None),)
    if hint is float:
        return (float, int)
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        members = [accepted_classes(member) for member in typing.get_args(hint)]
        return _UNCHECKED if _UNCHECKED in members else tuple(c for group in members for c in group)
    if origin is typing.Annotated:
        return accepted_classes(typing.get_args(hint)[0])
    return _class_of(origin if origin is not None else hint)


def _class_of(candidate: Any) -> tuple[type, ...]:
    """Return the class itself where `isinstance` can use it."""
    if not isinstance(candidate, type) or candidate is typing.Any:
        return _UNCHECKED
    if getattr(candidate, "_is_protocol", False):
        return _UNCHECKED
    if typing.is_typeddict(candidate):
        return (dict,)
    return (candidate,)


def _shown(parameters: tuple[Parameter, ...], result: Any) -> str:
    """Return a signature as a person would write it."""
    shown = ", ".join(f"{p.name}: {type_name(p.hint)}{' = ...' if p.optional else ''}" for p in parameters)
    return f"({shown}) -> {type_name(result)}"
