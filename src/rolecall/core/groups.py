"""Groups: the ordered members of a relationship, called and listened to together."""

from __future__ import annotations

import math
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, ParamSpec, Protocol, TypeAlias, TypeVar, cast, get_args

import msgspec

from rolecall.core.channels import Bound
from rolecall.core.ends import Endpoint, GroupCall, Subscription, TopicEnd
from rolecall.core.errors import RelationshipError
from rolecall.core.ids import RoleId
from rolecall.core.policies import EventOverflow
from rolecall.core.topics import Topic, UnboundTopic

if TYPE_CHECKING:
    from rolecall.core.host import Host

__all__ = ("Group", "Late", "Within")

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M")
M_contra = TypeVar("M_contra", contravariant=True)
RoleT = TypeVar("RoleT")
Role_co = TypeVar("Role_co", covariant=True)
EventHandler: TypeAlias = Callable[[Any, RoleId, M], Coroutine[Any, Any, None]]
MemberHandler: TypeAlias = Callable[[Any, RoleId], Coroutine[Any, Any, None]]
Late: TypeAlias = Literal["cancel", "ignore", "keep"]
_ROUNDING = 1e-9  # 0.07 * 100 is a little more than 7


class Within(msgspec.Struct, frozen=True):
    """What a group call settles for: see `Group.within`."""

    quorum: int | float | None = None
    deadline_s: float | None = None
    late: Late = "cancel"

    def needed(self, members: int) -> int:
        """Return how many answers end the wait."""
        if self.quorum is None:
            return members
        if isinstance(self.quorum, float):
            return math.ceil(self.quorum * members - _ROUNDING)
        return self.quorum

    def least(self, members: int) -> int:
        """Return how many answers the call fails without: the quorum, or one with only a deadline."""
        if self.quorum is None and self.deadline_s is not None:
            return min(1, members)
        return self.needed(members)

    def check(self) -> None:
        """Raise `ValueError` for what makes no sense."""
        if isinstance(self.quorum, float) and not 0 < self.quorum <= 1:
            raise ValueError(
                f"within(quorum={self.quorum}): a share is above 0 and at most 1; give an int for a number"
            )
        if isinstance(self.quorum, int) and self.quorum < 1:
            raise ValueError(f"within(quorum={self.quorum}): at least one answer must be wanted")
        if self.deadline_s is not None and not self.deadline_s > 0:
            raise ValueError(f"within(deadline_s={self.deadline_s}): give a number of seconds above 0")
        if self.late not in get_args(Late):
            raise ValueError(f"within(late={self.late!r}): give one of {', '.join(get_args(Late))}")


class _Puttable(Protocol[M_contra]):
    """An inbox of another role: it takes what is put into it, be it of a subclass of what it is declared for."""

    def put(self, item: M_contra, /) -> Coroutine[Any, Any, None]: ...


_WITHIN: Final = Within()


class Group(Generic[Role_co]):
    """An ordered, immutable set of roles: the members of a relationship at this moment, or some of them.

    Reading the relationship again (`self.trainers`) gives its members then; they change as roles come and go.
    """

    __slots__ = ("_host", "_ids", "_relationship", "_within")

    def __init__(self, host: Host, relationship: str, ids: tuple[RoleId, ...], within: Within | None = None) -> None:
        self._host, self._relationship, self._ids = host, relationship, ids
        self._within = within or _WITHIN

    # ------------------------------------------------------------------------------------------ members

    @property
    def ids(self) -> tuple[RoleId, ...]:
        """The members in order."""
        return self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __iter__(self) -> Iterator[RoleId]:
        return iter(self._ids)

    def __contains__(self, role: object) -> bool:
        return role in self._ids

    def __repr__(self) -> str:
        return f"Group({self._relationship}: {', '.join(self._ids)})"

    def __getitem__(self, role: RoleId) -> Role_co:
        """Return the member with this id.

        Raises:
            RelationshipError: it is not a member.
        """
        if role not in self._ids:
            raise self._error(f"has no member {str(role)!r}", hint=f"Its members: {', '.join(self._ids) or 'none'}")
        return cast("Role_co", self._host.proxy(self._relationship, role))

    def at(self, rank: int) -> Role_co:
        """Return the member at a position; positions wrap around, as on a ring."""
        if not self._ids:
            raise self._error("has no members", hint="Wait for some with `await group.wait(n)`")
        return self[self._ids[rank % len(self._ids)]]

    def rank(self, role: RoleId) -> int:
        """Return the position of a member."""
        try:
            return self._ids.index(role)
        except ValueError:
            raise self._error(f"has no member {str(role)!r}") from None

    @property
    def others(self) -> Group[Role_co]:
        """The members without the role that asks."""
        return self._with(tuple(role for role in self._ids if role != self._host.id))

    def only(self, roles: Iterable[RoleId]) -> Group[Role_co]:
        """Return the group of these members, in the order of the group."""
        wanted = set(roles)
        for role in wanted.difference(self._ids):
            raise self._error(f"has no member {str(role)!r}")
        return self._with(tuple(role for role in self._ids if role in wanted))

    def choice(self, step: int | None = None) -> Role_co:
        """Return a member drawn at random, never the role that asks.

        `step` keys the draw; without it every draw of this role from this relationship is the next of a
        sequence.
        """
        others = self.others
        if not others:
            raise self._error("has no other member to choose")
        return others.at(int(self._host.draw(f"choice/{self._relationship}", step).integers(len(others))))

    def sample(self, fraction: float, step: int | None = None) -> Group[Role_co]:
        """Return a random part of the members (at least one), in group order; `step` as in `choice`."""
        if not 0 < fraction <= 1:
            raise ValueError(f"sample({fraction}): the fraction must be above 0 and at most 1")
        count = max(1, int(fraction * len(self._ids) + 0.5)) if self._ids else 0
        chosen = self._host.draw(f"sample/{self._relationship}", step).choice(len(self._ids), count, replace=False)
        return self._with(tuple(self._ids[i] for i in sorted(chosen)))

    async def wait(self, count: int) -> Group[Role_co]:
        """Wait until the relationship has at least `count` members and return them."""
        return cast("Group[Role_co]", await self._host.wait_for_members(self._relationship, count))

    # ------------------------------------------------------------------------------------------ calling

    def within(
        self, *, quorum: int | float | None = None, deadline_s: float | None = None, late: Late = "cancel"
    ) -> Group[Role_co]:
        """Return the group with what a call to it settles for.

        Args:
            quorum: how many answers end the wait: a number, or a float for a share of the members (`0.8`).
                Without it all must answer, or, with a deadline, those who do until then (at least one).
            deadline_s: when the wait ends with what is there.
            late: what happens to those who have not answered: `cancel` their calls, `ignore` the answers, or
                `keep` them for `replies.late` of a later call of the same channel.

        A call to which too few answer raises `QuorumMissed`, which names each failure; it is not even sent
        where the group has too few members.
        """
        within = Within(quorum, deadline_s, late)
        within.check()
        return Group(self._host, self._relationship, self._ids, within)

    def call(
        self: Group[RoleT], channel: Callable[[RoleT], Endpoint[P, T]], *args: P.args, **kwargs: P.kwargs
    ) -> GroupCall[T]:
        """Call a service or task of every member with the same arguments, which are serialised once."""
        name = self._channel_name(channel)
        bound: Bound[RoleT, T] = Bound(name, args, kwargs)
        return self._host.group_call(self._relationship, dict.fromkeys(self._ids, bound), self._within)

    def call_each(self: Group[RoleT], plan: Callable[[RoleId], Bound[RoleT, T]]) -> GroupCall[T]:
        """Call each member with its own arguments: `call_each(lambda who: Trainer.train.bind(plan[who]))`."""
        return self._host.group_call(self._relationship, {role: plan(role) for role in self._ids}, self._within)

    async def put(self: Group[RoleT], inbox: Callable[[RoleT], _Puttable[M]], item: M) -> None:
        """Put a message into the inbox of every member; returns when all have admitted it.

        Raises:
            RoleLost: of the first member that is gone, after the others have the message.
        """
        await self._host.group_put(self._relationship, self._ids, self._channel_name(inbox), item)

    def subscribe(
        self: Group[RoleT],
        topic: Callable[[RoleT], TopicEnd[M]],
        *,
        where: Mapping[str, Any] | None = None,
        capacity: int = 64,
        overflow: EventOverflow = "wait",
    ) -> Subscription[M]:
        """Return a subscription to a topic of these members, entered with `async with`, then taken from."""
        return self._host.subscribe(self._relationship, self._ids, self._topic(topic), where or {}, capacity, overflow)

    # ------------------------------------------------------------------------------------------ handlers

    def on(
        self: Group[RoleT],
        topic: Callable[[RoleT], TopicEnd[M]],
        *,
        where: Mapping[str, Any] | None = None,
        capacity: int = 64,
        overflow: EventOverflow = "wait",
    ) -> Callable[[EventHandler[M]], EventHandler[M]]:
        """Handle a topic of every member, now and later (in the body of a role class); see `rc.on`."""
        raise self._class_body_only("on")

    def on_join(self, handler: MemberHandler) -> MemberHandler:
        """Call a method with the id of every member (in the body of a role class).

        First come those that are there when the role starts, in order, then those that join. Joins and leaves
        of a relationship are told one after the other, each once.
        """
        raise self._class_body_only("on_join")

    def on_leave(self, handler: MemberHandler) -> MemberHandler:
        """Call a method with the id of every role that leaves or is lost (in the body of a role class).

        See `on_join` for the order.
        """
        raise self._class_body_only("on_leave")

    # ------------------------------------------------------------------------------------------ inside

    def _with(self, ids: tuple[RoleId, ...]) -> Group[Role_co]:
        return Group(self._host, self._relationship, ids, self._within)

    def _channel_name(self, channel: Any) -> str:
        name = getattr(channel, "name", None)
        if isinstance(name, str):
            return name
        return cast(str, channel(self._host.proxy(self._relationship, None)).name)

    def _topic(self, topic: object) -> Topic[Any]:
        if isinstance(topic, UnboundTopic):
            return topic.topic
        raise self._error(f"{topic!r} is no topic of a role class", hint="Write it as `Trainer.trained`")

    def _error(self, problem: str, *, hint: str = "") -> RelationshipError:
        return RelationshipError(self._host.id, self._relationship, problem, hint=hint)

    def _class_body_only(self, name: str) -> RelationshipError:
        return self._error(f"`{name}` is for the body of the class", hint="To listen at run time, use `subscribe`")
