"""Calls of a whole group: quorum, deadline, and what becomes of those who are late."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Generator, Mapping
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio

from rolecall.core.channels import Bound
from rolecall.core.context import CURRENT
from rolecall.core.declarations import declarations
from rolecall.core.ends import GroupCall, Replies
from rolecall.core.errors import CallerError, DeadlineExceeded, QuorumMissed, RolecallError, RoleLost
from rolecall.core.groups import Within
from rolecall.core.ids import RoleId
from rolecall.runtime.calls import Invocation, outlive
from rolecall.runtime.deadlines import effective_deadline
from rolecall.runtime.requests import request

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("LocalGroupCall",)

T = TypeVar("T")
V = TypeVar("V")


class LocalGroupCall(GroupCall[T], Generic[T]):
    """One use of `group.call(...)` or `group.call_each(...)`."""

    def __init__(
        self, host: RoleInstance, attribute: str, calls: Mapping[RoleId, Bound[Any, T]], within: Within
    ) -> None:
        self._host, self._attribute, self._calls, self._within = host, attribute, calls, within
        self._declared = declarations(host.relations.role_class(attribute))
        self._pending: dict[Invocation, RoleId] = {}
        self._arrived: deque[Invocation] = deque()
        self._news: asyncio.Future[None] | None = None
        self._end = inf
        self.answers: dict[RoleId, T] = {}
        self.failures: dict[RoleId, Exception] = {}
        names = {bound.name for bound in calls.values()}
        self._channel = f"{attribute}.{'/'.join(sorted(names)) or '?'}"

    def __await__(self) -> Generator[Any, Any, Replies[T]]:
        return self._gather().__await__()

    async def as_completed(self) -> AsyncIterator[tuple[RoleId, T]]:
        try:
            self._send()
            async for role in self._arrivals():
                yield role, self.answers[role]
        except asyncio.CancelledError:
            await self._abandon()
            raise
        finally:
            self._leave()
        await outlive(effective_deadline(self._host.node.loop))
        self._require_quorum()

    async def _gather(self) -> Replies[T]:
        async for _ in self.as_completed():
            pass
        late = self._host.take_late(self._channel)
        return Replies(self._ordered(self.answers), self._ordered(self.failures), self._ordered(late) | late)

    def _ordered(self, by_role: Mapping[RoleId, V]) -> dict[RoleId, V]:
        return {role: by_role[role] for role in self._calls if role in by_role}

    # ------------------------------------------------------------------------------------------ sending

    def _send(self) -> None:
        least = self._within.least(len(self._calls))
        if least > len(self._calls):
            raise QuorumMissed(f"{self._host.id}: {self._channel}", least, 0, {})
        deadline = effective_deadline(self._host.node.loop)
        if self._within.deadline_s is not None:
            self._end = anyio.current_time() + self._within.deadline_s
        if self._within.late == "cancel":
            deadline = min(deadline, self._end)
        payloads: dict[int, Any] = {}  # one serialisation for all members that get the same arguments
        for role, bound in self._calls.items():
            try:
                self._send_one(role, bound, deadline, payloads)
            except RolecallError as error:
                self.failures[role] = error
        self._raise_mistake()

    def _send_one(self, role: RoleId, bound: Bound[Any, T], deadline: float, payloads: dict[int, Any]) -> None:
        dispatcher = self._host.node.dispatcher(role, bound.name, self._declared)
        invocation = request(
            self._host, dispatcher, bound.args, bound.kwargs, CURRENT.get(), deadline, shared=(payloads, id(bound))
        )
        self._pending[invocation] = role
        invocation.on_ended = self._note

    def _raise_mistake(self) -> None:
        """Raise what is wrong with the call itself, when it could be sent to nobody."""
        errors = list(self.failures.values())
        if errors and not self._pending and all(isinstance(error, CallerError) for error in errors):
            raise errors[0]

    def _note(self, invocation: Invocation) -> None:
        self._arrived.append(invocation)
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    # ------------------------------------------------------------------------------------------ waiting

    async def _arrivals(self) -> AsyncIterator[RoleId]:
        """Yield each role that has answered until enough have, none is left, or time is up."""
        members = len(self._calls)
        needed, least = self._within.needed(members), self._within.least(members)
        while self._pending and len(self.answers) < needed and len(self.answers) + len(self._pending) >= least:
            if not self._arrived and not await self._wait():
                self._time_out()
                return
            while self._arrived:
                role = self._settle(self._arrived.popleft())
                if role is not None:
                    yield role

    async def _wait(self) -> bool:
        """Wait for an arrival; return False when time is up."""
        self._news = asyncio.get_running_loop().create_future()
        if self._end == inf:
            await self._news
            return True
        with anyio.move_on_after(self._end - anyio.current_time()):
            await self._news
        return bool(self._arrived)

    def _settle(self, invocation: Invocation) -> RoleId | None:
        role = self._pending.pop(invocation)
        error = self._failure_of(invocation, role)
        if error is not None:
            self.failures[role] = error
        elif invocation.future is not None:
            self.answers[role] = invocation.future.result()
            return role
        return None

    def _failure_of(self, invocation: Invocation, role: RoleId) -> Exception | None:
        """Return why a call has no answer, None if it has; the group's own deadline is told as that."""
        overdue = anyio.current_time() >= self._end
        if invocation.future is None or invocation.future.cancelled():
            return self._overdue(role) if overdue else RoleLost(role, "the call was cancelled", "unknown")
        error = invocation.future.exception()
        if overdue and isinstance(error, DeadlineExceeded):
            return self._overdue(role)
        return error if error is None or isinstance(error, Exception) else RoleLost(role, repr(error), "unknown")

    def _time_out(self) -> None:
        for role in self._pending.values():
            self.failures[role] = self._overdue(role)

    def _overdue(self, role: RoleId) -> DeadlineExceeded:
        return DeadlineExceeded(f"{role}.{self._calls[role].name}", self._within.deadline_s or 0.0)

    # ------------------------------------------------------------------------------------------ leaving

    async def _abandon(self) -> None:
        """Cancel all calls, since the caller itself was cancelled, and wait for them as for a single call."""
        for invocation in self._pending:
            invocation.on_ended = None
        await self._host.give_up(*self._pending)
        self._pending.clear()

    def _leave(self) -> None:
        """Do with those who have not answered what `late` says."""
        keep = self._within.late == "keep"
        for invocation, role in self._pending.items():
            invocation.on_ended = None
            if self._within.late == "cancel":
                invocation.cancel()
            if invocation.future is not None:
                invocation.future.add_done_callback(self._host.late_answer(self._channel, role, keep))
        self._pending.clear()

    def _require_quorum(self) -> None:
        least = self._within.least(len(self._calls))
        if len(self.answers) < least:
            failures = self._ordered(self.failures)
            error = QuorumMissed(f"{self._host.id}: {self._channel}", least, len(self.answers), failures)
            raise error from next(iter(failures.values()), None)
