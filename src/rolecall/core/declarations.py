"""What a role class declares, gathered once per class and checked before any instance runs."""

from __future__ import annotations

import functools
from typing import Any, cast

import msgspec

from rolecall.core.annotations import type_name
from rolecall.core.channels import Channel
from rolecall.core.conditions import check_conditions
from rolecall.core.elements import Element, ElementDeclaration, declared_elements
from rolecall.core.errors import DeclarationError, nearest
from rolecall.core.inboxes import Inbox
from rolecall.core.members import members_of
from rolecall.core.relationships import (
    Relationship,
    RelationshipDeclaration,
    declared_relationships,
    named_marks,
)
from rolecall.core.role import Extension, Role
from rolecall.core.safe_points import is_parked
from rolecall.core.state import State, declared_state
from rolecall.core.topics import Handles, Topic

__all__ = ("Declarations", "combined", "declarations")

_HOOKS = ("setup", "main", "teardown")


class Declarations(msgspec.Struct, frozen=True):
    """The channels, topics, inboxes, elements, relationships, handlers and state of a role class, by name."""

    role_class: type
    channels: dict[str, Channel[Any, Any]]
    topics: dict[str, Topic[Any]]
    inboxes: dict[str, Inbox[Any]]
    elements: dict[str, ElementDeclaration]
    relationships: dict[str, RelationshipDeclaration]
    handlers: dict[str, list[Handles]]
    state: State[Any] | None

    @property
    def names(self) -> list[str]:
        """The names of everything that can be reached from outside."""
        return [*self.channels, *self.topics, *self.inboxes]


@functools.cache
def declarations(cls: type) -> Declarations:
    """Return what `cls` declares.

    Raises:
        DeclarationError: an annotation cannot be resolved, a handler names an unknown relationship or field,
            or a name is one that every role has.
    """
    members = members_of(cls, object)
    _check_names(cls, members)
    found = Declarations(
        cls,
        members_of(cls, Channel),
        members_of(cls, Topic),
        members_of(cls, Inbox),
        declared_elements(cls),
        declared_relationships(cls),
        {k: marks for k, v in members.items() if callable(v) and (marks := _marks(cls, k))},
        declared_state(cls),
    )
    _check_signatures(found)
    _check_handlers(found)
    return found


def _marks(cls: type, name: str) -> list[Handles]:
    """Return the marks of a handler; an undecorated override keeps those of what it overrides."""
    for base in cls.__mro__:
        marks = named_marks(vars(base).get(name))
        if marks:
            return marks
    return []


def _check_names(cls: type, members: dict[str, Any]) -> None:
    for name, value in members.items():
        declared = isinstance(value, Channel | Topic | Inbox | Element | Relationship | State)
        if declared and name in vars(Role):
            place = f"{type_name(cls)}.{name}"
            raise DeclarationError(place, f"every role has a {name!r} of its own", hint="Choose another name")


def _check_signatures(found: Declarations) -> None:
    """Resolve the annotations of the channels now, so that what is wrong with them is found before a run."""
    for channel in found.channels.values():
        channel.signature(found.role_class)


def _check_handlers(found: Declarations) -> None:
    for handler, marks in found.handlers.items():
        place = f"{type_name(found.role_class)}.{handler}"
        for mark in marks:
            check_conditions(mark.where or {}, mark.item_type, place)
            if mark.relationship not in found.relationships:
                raise DeclarationError(
                    place,
                    f"it listens to the relationship {mark.relationship!r}, which the role does not declare."
                    + nearest(mark.relationship, found.relationships),
                )


@functools.cache
def combined(base: type[Role], extensions: tuple[type[Role], ...]) -> type[Role]:
    """Return a class that is `base` with the channels of the extensions.

    Raises:
        DeclarationError: an extension is no role class, or the classes do not go together.
    """
    if not extensions:
        return base
    given: tuple[object, ...] = extensions
    for extension in given:
        if not (isinstance(extension, type) and issubclass(extension, Role)):
            raise DeclarationError(type_name(base), f"the extension {extension!r} is no role class")
    name = "+".join((base.__name__, *(e.__name__ for e in extensions)))
    added = {hook for extension in extensions for hook in _hooks(extension)}
    hooks = {hook: _beside(hook, base, extensions) for hook in _HOOKS if hook in added}
    parts = [e for e in reversed(extensions) if not issubclass(base, e)]
    # Extensions first: the `super()` of a mixin then leads to the role, past hooks that never call it.
    parts.sort(key=lambda e: not issubclass(e, Extension))
    namespace = {**hooks, "__module__": base.__module__, "__doc__": base.__doc__}
    try:
        made: type[Role] = cast(Any, type(base))(name, (*parts, base), namespace)
    except TypeError as error:
        raise DeclarationError(type_name(base), f"it cannot be combined into {name}: {error}") from error
    return made


def _beside(hook: str, base: type[Role], extensions: tuple[type[Role], ...]) -> Any:
    """Return a hook that runs the role's own, then those of its extensions (`main`: side by side)."""
    own = [e for e in extensions if issubclass(e, Extension) and hook in _hooks(e)]
    mixins = [e for e in extensions if not issubclass(e, Extension) and hook in _hooks(e)]
    parts = [getattr(mixins[-1] if mixins else base, hook), *(vars(_hooks(e)[hook])[hook] for e in own)]

    async def run(self: Role) -> None:
        if hook == "main" and len(parts) > 1:
            await _side_by_side(self, parts)
        else:
            for part in parts:
                await part(self)

    run.__name__ = hook
    return run


async def _side_by_side(role: Role, routines: list[Any]) -> None:
    """Run main routines to their ends or safe points; the first error ends the others and is raised as it is."""
    import anyio

    errors: list[Exception] = []

    async def run(routine: Any) -> None:
        try:
            await routine(role)
        except Exception as error:
            errors.append(error)
            group.cancel_scope.cancel()
        except BaseException as error:
            if not is_parked(error):
                raise

    async with anyio.create_task_group() as group:
        for routine in routines:
            group.start_soon(run, routine)
    if errors:
        raise errors[0] if len(errors) == 1 else ExceptionGroup("several main routines failed", errors)


def _hooks(extension: type) -> dict[str, type]:
    """Return which class of an extension defines each of its hooks."""
    found: dict[str, type] = {}
    for cls in extension.__mro__:
        if cls in (Role, Extension):
            break
        found.update({name: cls for name in _HOOKS if name in vars(cls) and name not in found})
    return found
