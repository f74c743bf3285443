"""Relationships: how a role names the roles it works with, without knowing who or where they are."""

from __future__ import annotations

import typing
from typing import Any

import msgspec

from rolecall.core.annotations import class_hint, type_name
from rolecall.core.errors import DeclarationError
from rolecall.core.groups import EventHandler, Group, MemberHandler
from rolecall.core.members import members_of
from rolecall.core.policies import EventOverflow
from rolecall.core.role import Role
from rolecall.core.topics import Handles, UnboundTopic, marked

__all__ = ("Relationship", "RelationshipDeclaration", "declared_relationships", "many", "named_marks", "one")


class RelationshipDeclaration(msgspec.Struct, frozen=True):
    """A relationship a role class declares: its attribute, the configured name, and what its members are."""

    attribute: str
    name: str
    many: bool
    role_class: Any


class Relationship:
    """The descriptor behind `one()` and `many()`."""

    def __init__(self, name: str | None, many: bool) -> None:
        self.name, self.many = name, many
        self.attribute = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.attribute = name
        self.name = self.name or name

    def __get__(self, obj: Any, owner: type) -> Any:
        if obj is None:
            return self
        if self.many:
            return obj._host.group(self.attribute)
        found = obj._host.singles.get(self.attribute)
        return found if found is not None else obj._host.single(self.attribute)

    def on(
        self,
        topic: object,
        *,
        where: Any = None,
        capacity: int = 64,
        overflow: EventOverflow = "wait",
    ) -> Any:
        """Mark a method as a handler of a topic of the members."""
        if not isinstance(topic, UnboundTopic):
            problem = f"{topic!r} is no topic of a role class"
            raise DeclarationError("on(...)", problem, hint="Write it as `Trainer.trained`")

        def mark(handler: EventHandler[Any]) -> EventHandler[Any]:
            # The attribute's name is known only after the class body: this runs before __set_name__.
            return marked(handler, _Unnamed(self, topic, where, capacity, overflow))  # type: ignore[arg-type]

        return mark

    def on_join(self, handler: MemberHandler) -> MemberHandler:
        """Mark a method to be called with every member: those there at the start, then those that join."""
        return marked(handler, _Unnamed(self, None, None, 1024, "wait", "join", True))  # type: ignore[arg-type]

    def on_leave(self, handler: MemberHandler) -> MemberHandler:
        """Mark a method to be called with every member that leaves."""
        return marked(handler, _Unnamed(self, None, None, 1024, "wait", "leave", True))  # type: ignore[arg-type]

    def declaration(self, owner: type) -> RelationshipDeclaration:
        """Return what the annotation of `owner` says about the members.

        Raises:
            DeclarationError: the annotation is missing, cannot be resolved or is no role class.
        """
        place = f"{type_name(owner)}.{self.attribute}"
        wanted = "rc.Group[SomeRole] = rc.many()" if self.many else "SomeRole = rc.one()"
        try:
            hint = class_hint(owner, self.attribute)
        except NameError as error:
            raise DeclarationError(place, f"its annotation cannot be resolved: {error}") from error
        grouped = typing.get_origin(hint) is Group
        member = None if grouped != self.many else typing.get_args(hint)[0] if grouped else hint
        if not (isinstance(member, type) and issubclass(member, Role)):
            problem = "it has no annotation" if hint is Any else f"its annotation is {type_name(hint)}"
            raise DeclarationError(place, problem, hint=f"Write `{self.attribute}: {wanted}`")
        return RelationshipDeclaration(self.attribute, self.name or self.attribute, self.many, member)


class _Unnamed(msgspec.Struct, frozen=True):
    """A mark made in a class body, before the relationship knows its attribute."""

    relationship: Relationship
    topic: UnboundTopic[Any, Any] | None
    where: Any
    capacity: int
    overflow: EventOverflow
    what: str = ""
    membership: bool = False

    def named(self) -> Handles:
        """Return the mark with the relationship's attribute."""
        topic = self.topic
        return Handles(
            self.relationship.attribute,
            topic.name if topic is not None else self.what,
            topic.topic.type if topic is not None else None,
            self.where,
            self.capacity,
            self.overflow,
            self.membership,
        )


def named_marks(handler: Any) -> list[Handles]:
    """Return the marks of a method, with names."""
    marks = getattr(handler, "__rolecall_handles__", ())
    return [mark.named() if isinstance(mark, _Unnamed) else mark for mark in marks]


def one(name: str | None = None) -> Any:
    """Declare a relationship to one role: `server: Server = rc.one()`.

    Args:
        name: the configured relationship, where it is not the attribute's name. A name that is not configured
            means the role of that name on the same node.
    """
    return Relationship(name, many=False)


def many(name: str | None = None) -> Any:
    """Declare a relationship to any number of roles: `trainers: rc.Group[Trainer] = rc.many()`.

    Args:
        name: the configured relationship, where it is not the attribute's name; several attributes may see
            the same roles as different types.
    """
    return Relationship(name, many=True)


def declared_relationships(cls: type) -> dict[str, RelationshipDeclaration]:
    """Return the relationships a role class declares, by attribute."""
    return {attribute: found.declaration(cls) for attribute, found in members_of(cls, Relationship).items()}
