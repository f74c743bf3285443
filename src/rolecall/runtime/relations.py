"""The relationships of one role instance: who is in them now, and what follows when that changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import msgspec

from rolecall.core.errors import RelationshipError, RolecallError, nearest
from rolecall.core.groups import Group
from rolecall.core.ids import RoleId
from rolecall.core.on_use import NONE_YET, OnUse
from rolecall.core.relationships import RelationshipDeclaration
from rolecall.runtime.endpoints import RoleProxy
from rolecall.runtime.listening import Listening

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("Relations", "Target")


class Target(msgspec.Struct, frozen=True):
    """Whom a relationship names: patterns and role ids in order, or another relationship."""

    patterns: tuple[str, ...] = ()
    alias: str | None = None


class Relations:
    """The members of each relationship a role declares, kept up to date as roles come and go."""

    __slots__ = ("_declared", "_groups", "_instance", "_listening", "_members", "_proxies", "_waiting_")

    _waiting = OnUse(list[tuple[str, int, asyncio.Future[None]]])

    def __init__(self, instance: RoleInstance) -> None:
        self._instance = instance
        self._declared = instance.declared.relationships
        self._members: dict[str, tuple[RoleId, ...]] = NONE_YET
        self._groups: dict[str, Group[Any]] = NONE_YET
        self._proxies: dict[tuple[str, RoleId | None], Any] = NONE_YET
        self._listening: Listening | None = None

    # ------------------------------------------------------------------------------------------ reading

    def members(self, attribute: str) -> tuple[RoleId, ...]:
        """Return the members of the relationship declared under `attribute`."""
        found = self._members.get(attribute)
        if found is None:
            found = self._resolve(self._declaration(attribute).name)
            if self._members is NONE_YET:
                self._members = {}
            self._members[attribute] = found
        return found

    def group(self, attribute: str) -> Group[Any]:
        """Return the members as a group."""
        found = self._groups.get(attribute)
        if found is None:
            found = Group(self._instance, attribute, self.members(attribute))
            if self._groups is NONE_YET:
                self._groups = {}
            self._groups[attribute] = found
        return found

    def single(self, attribute: str) -> Any:
        """Return what stands for the first and only member.

        Raises:
            RelationshipError: there is none, or there are several.
            RoleLost: there was one, and it has ended.
        """
        members = self._members.get(attribute)
        if members is None:
            members = self.members(attribute)
        if len(members) != 1:
            raise self._not_one(attribute, members)
        found = self.proxy(attribute, members[0])
        if self._instance.singles is NONE_YET:
            self._instance.singles = {}
        self._instance.singles[attribute] = found
        return found

    def proxy(self, attribute: str, role: RoleId | None) -> Any:
        """Return what stands for a member, typed as the annotation says."""
        found = self._proxies.get((attribute, role))
        if found is None:
            role_class = self._declaration(attribute).role_class
            found = RoleProxy(self._instance, role, role_class)
            if self._proxies is NONE_YET:
                self._proxies = {}
            self._proxies[attribute, role] = found
        return found

    def role_class(self, attribute: str) -> type:
        """Return the class that the annotation of a relationship names."""
        found: type = self._declaration(attribute).role_class
        return found

    def names(self, relationship: str) -> tuple[RoleId, ...]:
        """Return the members of a relationship by its attribute or configured name; none if it has neither."""
        if relationship in self._declared:
            return self.members(relationship)
        try:
            return self._resolve(relationship)
        except RelationshipError:
            return ()

    def require(self, relationship: str) -> None:
        """Raise `RelationshipError` where a relationship, by its configured name, leads nowhere or to itself."""
        self._patterns(relationship)

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
        if self._instance.declared.handlers:
            self._listening = Listening(self._instance, self.members)
            self._listening.start()

    def refresh(self) -> None:
        """Look again who is a member, after roles came or went."""
        changed = False
        for attribute, before in list(self._members.items()):
            after = self._resolve(self._declared[attribute].name)
            if after != before:
                changed = True
                self._members[attribute] = after
                self._groups.pop(attribute, None)
                self._instance.singles.pop(attribute, None)
                self._announce(attribute, before, after)
        if changed and self._listening is not None:
            self._listening.follow()

    def forget(self) -> None:
        """End all subscriptions of the class's handlers."""
        if self._listening is not None:
            self._listening.stop()

    def _announce(self, attribute: str, before: tuple[RoleId, ...], after: tuple[RoleId, ...]) -> None:
        was, now = set(before), set(after)
        left = tuple(role for role in before if role not in now)
        for role in left:
            self._proxies.pop((attribute, role), None)
        for waiting, count, future in self._waiting:
            if waiting == attribute and len(after) >= count and not future.done():
                future.set_result(None)
        if self._listening is not None:
            self._listening.tell(attribute, left, tuple(role for role in after if role not in was))

    # ------------------------------------------------------------------------------------------ resolving

    def _declaration(self, attribute: str) -> RelationshipDeclaration:
        if attribute not in self._declared:
            raise RelationshipError(self._instance.id, attribute, "the role does not declare it")
        return self._declared[attribute]

    def _resolve(self, name: str) -> tuple[RoleId, ...]:
        return self._instance.node.directory.select(self._patterns(name))

    def _patterns(self, name: str, seen: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Return whom a relationship names, aliases followed."""
        target = self._instance.node.target(self._instance.id.name, name)
        if target is None:
            return (self._implied(name),)
        if target.alias is None:
            return target.patterns
        if target.alias in (name, *seen):
            cycle = " -> ".join((*seen, name, target.alias))
            raise RelationshipError(self._instance.id, name, f"its alias leads back to itself: {cycle}")
        return self._patterns(target.alias, (*seen, name))

    def _implied(self, name: str) -> RoleId:
        """Return the role of that name on the same node: a relationship that needs no configuration."""
        node = self._instance.node
        local = RoleId(f"{node.name}/{name}")
        if node.directory.get(local) is not None or node.directory.loss(local) is not None:
            return local
        known = node.configured(self._instance.id.name)
        raise RelationshipError(
            self._instance.id,
            name,
            f"it is not configured on node {node.name!r}, and no role {name!r} is there either.{nearest(name, known)}",
            hint=f"Add it under `relationships:` (configured here: {', '.join(known) or 'none'})",
        )

    def _not_one(self, attribute: str, members: tuple[RoleId, ...]) -> RolecallError:
        """Return the error for a `one()` that is not one; a member that was there and has ended is lost."""
        if not members:
            patterns = self._patterns(self._declaration(attribute).name)
            loss = self._instance.node.directory.last_loss(patterns)
            if loss is not None:
                return loss
        found = f"has {len(members)} members ({', '.join(members)})" if members else "has no member"
        return RelationshipError(
            self._instance.id,
            attribute,
            f"is declared `one()` but {found}",
            hint="Configure exactly one role, or declare it `rc.many()`",
        )
