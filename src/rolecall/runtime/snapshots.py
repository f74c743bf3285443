"""What of a role survives it: taken from one instance, kept in a file, given to another before its `setup()`."""

from __future__ import annotations

import copy
import os
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import msgspec

from rolecall.core.annotations import function_hints, type_name
from rolecall.core.declarations import declarations
from rolecall.core.errors import ConfigError, DeclarationError
from rolecall.core.role import Role
from rolecall.wire.values import load_value, save_value

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("RoleSnapshot", "load_snapshot", "put_back", "save_snapshot", "take_snapshot")

S = TypeVar("S")
E = TypeVar("E")


class RoleSnapshot(msgspec.Struct, Generic[S, E], frozen=True, kw_only=True):
    """A role at one moment: a copy that the role's going on does not change.

    Attributes:
        state: the declared `rc.State`, None where the class declares none.
        extra: what `snapshot()` of the role returned.
        draws: how often the role has drawn from each of its sequences of random numbers.
    """

    state: S
    extra: E
    draws: dict[str, int] = {}


def take_snapshot(instance: RoleInstance) -> RoleSnapshot[Any, Any]:
    """Return what of the role another instance could go on from. Pause it first where handlers may be halfway."""
    state, extra = copy.deepcopy((instance.state_value(), instance.role.snapshot()))
    return RoleSnapshot(state=state, extra=extra, draws=dict(instance.draws))


def put_back(instance: RoleInstance, snapshot: RoleSnapshot[Any, Any]) -> None:
    """Give a new instance what was taken from an earlier one; the snapshot may be used again.

    Raises:
        ConfigError: it was taken from a role with another state.
    """
    declared = instance.declared.state
    wanted = type(None) if declared is None else declared.type
    if not isinstance(snapshot.state, wanted):
        found, expected = type_name(type(snapshot.state)), type_name(wanted)
        raise ConfigError(str(instance.id), f"it cannot be restored: the snapshot's state is {found}, not {expected}")
    state, extra = copy.deepcopy((snapshot.state, snapshot.extra))
    if declared is not None:
        declared.write(instance.role, state)
    instance.draws.update(snapshot.draws)
    if extra is not None:
        instance.role.restore(extra)


def save_snapshot(path: str | os.PathLike[str], snapshot: RoleSnapshot[Any, Any]) -> None:
    """Write a snapshot to a safetensors file, at once or not at all; blocks, so call it in a worker thread.

    Raises:
        NotEncodable: something in it cannot travel.
        DataError: the file cannot be written.
    """
    save_value(path, snapshot)


def load_snapshot(path: str | os.PathLike[str], role_class: type[Role]) -> RoleSnapshot[Any, Any]:
    """Return the snapshot of a role of this class that `save_snapshot` wrote; blocks as that does.

    What `snapshot()` returned comes back as its annotation says; without one, structs come back as dicts.

    Raises:
        DataError: the file is missing or damaged.
        WrongType: it was taken from a role with another state.
    """
    state = declarations(role_class).state
    hint: Any = RoleSnapshot[None if state is None else state.type, _extra_type(role_class)]  # type: ignore[misc]
    loaded: RoleSnapshot[Any, Any] = load_value(path, hint)
    return loaded


def _extra_type(role_class: type[Role]) -> Any:
    try:
        return function_hints(role_class.snapshot, role_class).get("return", Any)
    except NameError as error:
        place = f"{type_name(role_class)}.snapshot"
        raise DeclarationError(place, f"its annotation cannot be resolved: {error}") from error
