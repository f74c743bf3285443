"""What a role asks of the runtime that hosts it; roles know no more of the runtime than this."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from rolecall.core.channels import Bound
from rolecall.core.ends import GroupCall, InboxEnd, Subscription, TopicEnd
from rolecall.core.groups import Group, Within
from rolecall.core.ids import RoleId
from rolecall.core.inboxes import Inbox
from rolecall.core.policies import EventOverflow
from rolecall.core.topics import Topic

if TYPE_CHECKING:
    import numpy as np

__all__ = ("Host",)


class Host(Protocol):
    """The runtime's half of one role instance."""

    id: RoleId
    seed: int
    singles: dict[str, Any]
    """What stands for the member of each `one()` relationship, as far as it has been asked for."""

    @property
    def logger(self) -> logging.Logger:
        """A logger that carries the role's name."""

    def group(self, attribute: str) -> Group[Any]:
        """Return the members of the relationship declared under `attribute`."""

    def single(self, attribute: str) -> Any:
        """Return the one member of the relationship declared under `attribute`."""

    def proxy(self, attribute: str, role: RoleId | None) -> Any:
        """Return what stands for a member of a relationship; None: any member, to learn a channel's name."""

    def wait_for_members(self, attribute: str, count: int) -> Coroutine[Any, Any, Group[Any]]:
        """Wait until a relationship has `count` members."""

    def group_call(self, attribute: str, calls: Mapping[RoleId, Bound[Any, Any]], within: Within) -> GroupCall[Any]:
        """Prepare calls to several members."""

    def start_own(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Coroutine[Any, Any, Any]:
        """Start a task of the role itself."""

    def leave(self) -> None:
        """End the role."""

    def group_put(self, attribute: str, ids: tuple[RoleId, ...], name: str, item: Any) -> Coroutine[Any, Any, None]:
        """Put one message into the inbox of several members."""

    def subscribe(
        self,
        attribute: str,
        ids: tuple[RoleId, ...],
        topic: Topic[Any],
        where: Mapping[str, Any],
        capacity: int,
        overflow: EventOverflow,
    ) -> Subscription[Any]:
        """Prepare a subscription to several members."""

    def topic(self, topic: Topic[Any]) -> TopicEnd[Any]:
        """Return the role's own topic."""

    def inbox(self, inbox: Inbox[Any]) -> InboxEnd[Any]:
        """Return the role's own inbox."""

    def compute(
        self, function: Callable[..., Any], args: tuple[Any, ...], cost: float | None
    ) -> Coroutine[Any, Any, Any]:
        """Run a function in a worker thread."""

    def draw(self, purpose: str, step: int | None) -> np.random.Generator:
        """Return a keyed generator; without a step, the next of a sequence of its own for each purpose."""

    def record(self, values: dict[str, float | int | str]) -> None:
        """Record metrics."""

    def safe_point(self) -> Coroutine[Any, Any, None]:
        """End the current resumable task here if the role is being paused."""
