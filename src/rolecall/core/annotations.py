"""Resolve annotations late, wherever a role class was defined: in a module, a function or a notebook cell."""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Callable
from typing import Any

__all__ = ("class_hint", "function_hints", "remember_scope", "type_name")

_SCOPE = "__rolecall_scope__"


def remember_scope(cls: type) -> None:
    """Keep the names visible where `cls` is being defined, when that is inside a function.

    Without it the annotation `peers: rc.Group[Gossip]` could not be resolved for a class local to a function.
    """
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code.co_name in ("__init_subclass__", "__new__"):
        frame = frame.f_back
    if frame is not None and frame.f_locals is not frame.f_globals:
        setattr(cls, _SCOPE, {k: v for k, v in frame.f_locals.items() if isinstance(v, type)})


def class_hint(cls: type, name: str) -> Any:
    """Return the resolved annotation of attribute `name` of a class; raise `NameError` if it cannot be."""
    for base in cls.__mro__:
        annotation = inspect.get_annotations(base).get(name)
        if annotation is not None:
            return _resolve({name: annotation}, vars(sys.modules[base.__module__]), _locals(base))[name]
    return Any


def function_hints(function: Callable[..., Any], owner: type) -> dict[str, Any]:
    """Return the resolved parameter and result annotations of a method of `owner`."""
    plain = typing.cast(Any, function)
    hints = _resolve(dict(plain.__annotations__), plain.__globals__, _locals(owner))
    return hints


def type_name(hint: Any) -> str:
    """Return how a person would write a type: `Tensors`, `list[int]`, `int | None`."""
    if isinstance(hint, type) and not typing.get_args(hint):
        return hint.__qualname__.rpartition("<locals>.")[2]
    return str(hint).replace("typing.", "")


def _locals(cls: type) -> dict[str, Any]:
    scope: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        scope.update(base.__dict__.get(_SCOPE, {}))
        scope[base.__name__] = base
    return scope


def _resolve(annotations: dict[str, Any], globalns: dict[str, Any], localns: dict[str, Any]) -> dict[str, Any]:
    # The names of the class win only where the module has none: its own `Model` is not a base named `Model`.
    scope = {key: value for key, value in localns.items() if key not in globalns or _SCOPE in vars(value)}
    carrier = types.SimpleNamespace(__annotations__=annotations)
    return typing.get_type_hints(carrier, globalns, scope, include_extras=True)
