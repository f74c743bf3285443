"""The relationships of one role instance: who is in them now, and what follows when that changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from rolecall.core.conditions import compile_conditions
from rolecall.core.errors import RelationshipError, nearest
from rolecall.core.groups import Group
from rolecall.core.ids import RoleId
from rolecall.core.policies import ChannelOptions
from rolecall.core.relationships import RelationshipDeclaration
from rolecall.core.topics import Handles
from rolecall.runtime.dispatcher import Dispatcher
from rolecall.runtime.endpoints import RoleProxy
from rolecall.runtime.topics import HandlerSink

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("Relations", "Target")


class Target(msgspec.Struct, frozen=True):
    """Whom a relationship names: patterns and role ids in order, or another relationship."""

    patterns: tuple[str, ...] = ()
    alias: str | None = None


class Relations:
    """The members of each relationship a role declares, kept up to date as roles come and go."""

    def __init__(self, instance: RoleInstance) -> None:
        self._instance = instance
        self._declared = instance.declared.relationships
        self._members: dict[str, tuple[RoleId, ...]] = {}
        self._groups: dict[str, Group[Any]] = {}
        self._proxies: dict[tuple[str, RoleId | None], Any] = {}
        self._waiting: list[tuple[str, int, asyncio.Future[None]]] = []
        self._listening: dict[tuple[str, int], tuple[Handles, Dispatcher, HandlerSink]] = {}
        self._heard: dict[tuple[str, int], set[RoleId]] = {}

    # ------------------------------------------------------------------------------------------ reading

    def members(self, attribute: str) -> tuple[RoleId, ...]:
        """Return the members of the relationship declared under `attribute`."""
        found = self._members.get(attribute)
        if found is None:
            found = self._members[attribute] = self._resolve(self._declaration(attribute).name)
        return found

    def group(self, attribute: str) -> Group[Any]:
        """Return the members as a group."""
        found = self._groups.get(attribute)
        if found is None:
            found = self._groups[attribute] = Group(self._instance, attribute, self.members(attribute))
        return found

    def single(self, attribute: str) -> Any:
        """Return what stands for the first and only member.

        Raises:
            RelationshipError: there is none, or there are several.
        """
        members = self._members.get(attribute)
        if members is None:
            members = self.members(attribute)
        if len(members) != 1:
            raise self._not_one(attribute, members)
        return self.proxy(attribute, members[0])

    def proxy(self, attribute: str, role: RoleId | None) -> Any:
        """Return what stands for a member, typed as the annotation says."""
        found = self._proxies.get((attribute, role))
        if found is None:
            role_class = self._declaration(attribute).role_class
            found = self._proxies[attribute, role] = RoleProxy(self._instance, role, role_class)
        return found

    def names(self, relationship: str) -> tuple[RoleId, ...]:
        """Return the members of a relationship by its configured name, declared by the role or not."""
        return self._resolve(relationship)

    async def wait(self, attribute: str, count: int) -> Group[Any]:
        """Wait until there are `count` members."""
        while len(self.members(attribute)) < count:
            change: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            entry = (attribute, count, change)
            self._waiting.append(entry)
            try:
                await change
            finally:
                self._waiting.remove(entry)
        return self.group(attribute)

    # ------------------------------------------------------------------------------------------ changing

    def listen(self) -> None:
        """Subscribe the handlers of the class; raises what a wrong relationship or condition deserves."""
        for name, marks in self._instance.declared.handlers.items():
            for number, mark in enumerate(marks):
                self._listening[name, number] = (mark, *self._sink(name, mark))
                self._heard[name, number] = set()
                self.members(mark.relationship)
        self._subscribe()

    def refresh(self) -> None:
        """Look again who is a member, after roles came or went."""
        for attribute, before in list(self._members.items()):
            after = self._resolve(self._declared[attribute].name)
            if after != before:
                self._members[attribute] = after
                self._groups.pop(attribute, None)
                self._announce(attribute, before, after)
        if self._listening:
            self._subscribe()

    def forget(self) -> None:
        """End all subscriptions of the class's handlers."""
        for key, sources in self._heard.items():
            mark, _, sink = self._listening[key]
            for source in sources:
                topic = self._instance.node.find_topic(source, mark.what)
                if topic is not None:
                    topic.detach(sink)
        self._listening.clear()

    def _announce(self, attribute: str, before: tuple[RoleId, ...], after: tuple[RoleId, ...]) -> None:
        changes = {
            "join": [r for r in after if r not in before],
            "leave": [r for r in before if r not in after],
        }
        for waiting, count, future in self._waiting:
            if waiting == attribute and len(after) >= count and not future.done():
                future.set_result(None)
        for mark, dispatcher, _ in self._listening.values():
            if mark.relationship == attribute and mark.what in changes:
                for role in changes[mark.what]:
                    self._instance.notify(dispatcher, role)

    def _subscribe(self) -> None:
        """Attach the handlers' sinks to the topics of members that are new."""
        for key, (mark, _, sink) in self._listening.items():
            if mark.what in ("join", "leave") and mark.item_type is None:
                continue
            heard = self._heard[key]
            members = set(self.members(mark.relationship))
            for source in sorted(members - heard):
                place = f"{self._instance.id}.{key[0]}"
                condition = (
                    compile_conditions(mark.where, mark.item_type, self._instance.role, place)
                    if mark.where
                    else None
                )
                self._instance.node.topic(source, mark.what).attach(sink, condition)
            self._heard[key] = members

    def _sink(self, name: str, mark: Handles) -> tuple[Dispatcher, HandlerSink]:
        options = ChannelOptions(mailbox=mark.capacity, overflow=mark.overflow)
        handler = getattr(self._instance.role, name)
        dispatcher = self._instance.add_dispatcher(f"{name}", "event", handler, options)
        return dispatcher, HandlerSink(dispatcher)

    # ------------------------------------------------------------------------------------------ resolving

    def _declaration(self, attribute: str) -> RelationshipDeclaration:
        return self._declared[attribute] if attribute in self._declared else self._any(attribute)

    def _any(self, attribute: str) -> RelationshipDeclaration:
        raise RelationshipError(self._instance.id, attribute, "the role does not declare it")

    def _resolve(self, name: str, seen: tuple[str, ...] = ()) -> tuple[RoleId, ...]:
        target = self._instance.node.target(self._instance.id.name, name)
        if target is None:
            return self._implied(name)
        if target.alias is None:
            return self._instance.node.directory.select(target.patterns)
        if target.alias in seen:
            cycle = " -> ".join((*seen, target.alias))
            raise RelationshipError(self._instance.id, name, f"its alias leads back to itself: {cycle}")
        return self._resolve(target.alias, (*seen, target.alias))

    def _implied(self, name: str) -> tuple[RoleId, ...]:
        """Return the role of that name on the same node: a relationship that needs no configuration."""
        local = RoleId(f"{self._instance.node.name}/{name}")
        if self._instance.node.directory.get(local) is not None:
            return (local,)
        if self._instance.node.directory.loss(local) is not None:
            return ()
        known = self._instance.node.configured(self._instance.id.name)
        raise RelationshipError(
            self._instance.id, name, f"it is not configured on node {self._instance.node.name!r}, and "
            f"no role {name!r} is there either.{nearest(name, known)}",
            hint=f"Add it under `relationships:` (configured here: {', '.join(known) or 'none'})",
        )  # fmt: skip

    def _not_one(self, attribute: str, members: tuple[RoleId, ...]) -> RelationshipError:
        found = f"has {len(members)} members ({', '.join(members)})" if members else "has no member"
        return RelationshipError(
            self._instance.id, attribute, f"is declared `one()` but {found}",
            hint="Configure exactly one role, or declare it `rc.many()`",
        )  # fmt: skip
