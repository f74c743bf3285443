"""Resolve annotations late, wherever a role class was defined: in a module, a function or a notebook cell."""

from __future__ import annotations

import inspect
import re
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

__all__ = ("class_hint", "function_hints", "remember_scope", "type_name")

_SCOPE, _GLOBALS = "__rolecall_scope__", "__rolecall_globals__"
_NAME = re.compile(r"[^\W\d]\w*")


def remember_scope(cls: type) -> None:
    """Keep what the annotations of `cls` need that is visible only where `cls` is being defined.

    Without it the annotation `peers: rc.Group[Gossip]` could not be resolved for a class local to a function.
    """
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name in ("__init_subclass__", "__new__"):
        frame = frame.f_back
    if frame is None:
        return
    setattr(cls, _GLOBALS, frame.f_globals)
    if frame.f_locals is not frame.f_globals:
        names = _names_in_annotations(cls)
        setattr(cls, _SCOPE, {name: value for name, value in frame.f_locals.items() if name in names})


def class_hint(cls: type, name: str) -> Any:
    """Return the resolved annotation of attribute `name` of a class; raise `NameError` if it cannot be."""
    for base in cls.__mro__:
        annotation = inspect.get_annotations(base).get(name)
        if annotation is not None:
            return _resolve({name: annotation}, _globals(base), base)[name]
    return Any


def function_hints(function: Callable[..., Any], owner: type) -> dict[str, Any]:
    """Return the resolved parameter and result annotations of a method of `owner`, or raise `NameError`."""
    written: Any = inspect.unwrap(function)
    return _resolve(dict(written.__annotations__), written.__globals__, _defining(function, owner))


def type_name(hint: Any) -> str:
    """Return how a person would write a type: `Tensors`, `list[int]`, `int | None`."""
    if hint is None or hint is type(None):
        return "None"
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(type_name, args))
    if origin is typing.Annotated:
        return type_name(args[0])
    if isinstance(origin, type) and not any(isinstance(arg, list) for arg in args):
        return f"{type_name(origin)}[{', '.join('...' if arg is ... else type_name(arg) for arg in args)}]"
    if isinstance(hint, type):
        return hint.__qualname__.rpartition("<locals>.")[2]
    return str(hint).replace("typing.", "")


# ---------------------------------------------------------------------------------------------- resolving


def _resolve(annotations: dict[str, Any], globalns: dict[str, Any], cls: type) -> dict[str, Any]:
    """Resolve annotations written in the body of `cls`."""
    carrier = types.SimpleNamespace(__annotations__=annotations)
    return typing.get_type_hints(carrier, globalns, _locals(cls, globalns), include_extras=True)


def _locals(cls: type, globalns: dict[str, Any]) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        local = base.__dict__.get(_SCOPE)
        scope.update(local or {})
        # A module's own `Model` is not a base named `Model`, unless that is local to the same function.
        if local is not None or base.__name__ not in globalns:
            scope[base.__name__] = base
    return scope


def _globals(cls: type) -> dict[str, Any]:
    found: dict[str, Any] = cls.__dict__.get(_GLOBALS) or vars(sys.modules[cls.__module__])
    return found


def _defining(function: Callable[..., Any], owner: type) -> type:
    """Return the class in whose body a method of `owner` was written."""
    for base in owner.__mro__:
        member = base.__dict__.get(function.__name__)
        if member is not None and function in (member, getattr(member, "handler", None)):
            return base
    return owner


def _names_in_annotations(cls: type) -> set[str]:
    annotations = list(inspect.get_annotations(cls).values())
    for member in vars(cls).values():
        function = getattr(member, "handler", member)
        annotations += getattr(function, "__annotations__", {}).values() if callable(function) else ()
    return {name for text in annotations if isinstance(text, str) for name in _NAME.findall(text)}
