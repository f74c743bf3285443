"""What a role gets when reaching for a channel: endpoints, handles, readers; the runtime implements them."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Coroutine, Generator, Hashable, Iterable, Mapping
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar

from rolecall.core.ids import RoleId
from rolecall.core.policies import EventOverflow

__all__ = (
    "Endpoint",
    "GroupCall",
    "InboxEnd",
    "ItemStream",
    "Outcome",
    "Replies",
    "StreamEndpoint",
    "Subscription",
    "TaskEndpoint",
    "TaskHandle",
    "TopicEnd",
)

P = ParamSpec("P")
T = TypeVar("T")
M = TypeVar("M")
T_co = TypeVar("T_co", covariant=True)
G_co = TypeVar("G_co", covariant=True)


class Outcome(enum.Enum):
    """What became of a task that was told to stop."""

    CANCELLED = "cancelled"
    FINISHED = "finished"
    FAILED = "failed"
    UNKNOWN = "unknown"


class TaskHandle(ABC, Generic[T_co, G_co]):
    """A task that was started: await its result, iterate its progress, or cancel it.

    It belongs to the role that started it; when that role ends, the task is cancelled.
    """

    @property
    @abstractmethod
    def role(self) -> RoleId:
        """The role the task runs on."""

    @property
    @abstractmethod
    def done(self) -> bool:
        """Whether the task has ended, in any way."""

    @abstractmethod
    def result(self) -> Coroutine[Any, Any, T_co]:
        """Wait for the result; raises the handler's error. Leaving the wait does not stop the task."""

    @abstractmethod
    def cancel(self) -> Coroutine[Any, Any, Outcome]:
        """Stop the task, wait up to 1 s for it, and say what became of it."""

    @abstractmethod
    def __aiter__(self) -> AsyncIterator[G_co]:
        """Iterate the progress reports until the task ends; a slow reader misses the oldest."""

    def __await__(self) -> Generator[Any, Any, T_co]:
        return self.result().__await__()


class ItemStream(ABC, Generic[T_co]):
    """The items of a stream, read one at a time; the writer is never more than its window ahead.

    Ending the iteration, `aclose()`, or losing the last reference stops the writer.
    """

    @abstractmethod
    def __anext__(self) -> Coroutine[Any, Any, T_co]: ...

    @abstractmethod
    def aclose(self) -> Coroutine[Any, Any, None]:
        """Stop reading and stop the writer."""

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class Endpoint(ABC, Generic[P, T_co]):
    """A service of a role, wherever that role is: call it like a method."""

    name: str

    @abstractmethod
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]:
        """Call and wait for the answer, under the deadline of the enclosing cancel scope."""


class TaskEndpoint(Endpoint[P, T_co], Generic[P, T_co, G_co]):
    """A task of a role: call it to wait for its result, or `start` it for a handle."""

    @abstractmethod
    def start(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, TaskHandle[T_co, G_co]]:
        """Start the task; returns when its mailbox has admitted it. Deadlines around do not apply to it."""


class StreamEndpoint(ABC, Generic[P, T_co]):
    """A stream of a role: call it and iterate."""

    name: str

    @abstractmethod
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> ItemStream[T_co]:
        """Return the reader; the writer starts with the first item asked for."""


class Subscription(ABC, Generic[M]):
    """Events of a topic, kept until the role takes them: `async with group.subscribe(Topic) as events`.

    Its sources are the members of the group at that moment. Iterating it ends when all of them have ended.
    """

    @abstractmethod
    def take(self, *, source: RoleId | None = None) -> Coroutine[Any, Any, tuple[RoleId, M]]:
        """Wait for the next event (of `source`) and return it with the role that emitted it."""

    @abstractmethod
    def collect(self, sources: Iterable[RoleId]) -> Coroutine[Any, Any, dict[RoleId, M]]:
        """Wait for one event of each source and return them in the order of `sources`.

        Raises:
            RoleLost: a source ended, or left, before its event came.
        """

    @abstractmethod
    def drain(self) -> list[tuple[RoleId, M]]:
        """Return what is there now, without waiting."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    async def __aenter__(self) -> Self: ...

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def __aiter__(self) -> AsyncIterator[tuple[RoleId, M]]:
        return self

    async def __anext__(self) -> tuple[RoleId, M]:
        return await self.take()


class TopicEnd(ABC, Generic[M]):
    """A topic of a role: emit to one's own, subscribe to another's."""

    @abstractmethod
    def emit(self, item: M, /) -> Coroutine[Any, Any, None]:
        """Publish `item`; returns when the bounded queue of every subscriber has admitted or refused it.

        All are offered it at once: a slow subscriber holds up the emitter, never another subscriber. Leaving the
        wait takes the event back from the queues that had no room for it yet.
        """

    @abstractmethod
    def subscribe(
        self, *, where: Mapping[str, Any] | None = None, capacity: int = 64, overflow: EventOverflow = "wait"
    ) -> Subscription[M]:
        """Return a subscription, entered with `async with`, whose events the role takes when it wants."""


class InboxEnd(ABC, Generic[M]):
    """An inbox: `put` into another role's, `take` from one's own."""

    @abstractmethod
    def put(self, item: M, /) -> Coroutine[Any, Any, None]:
        """Send one way; returns when the inbox has admitted it, so a full inbox slows its senders.

        Leaving the wait takes the message back.
        """

    @abstractmethod
    def take(self, key: Hashable = None, *, source: RoleId | None = None) -> Coroutine[Any, Any, M]:
        """Wait for the oldest message that has this key (and came from `source`) and remove it."""

    @abstractmethod
    def collect(self, sources: Iterable[RoleId], *, key: Hashable = None) -> Coroutine[Any, Any, dict[RoleId, M]]:
        """Wait for one message of each source and return them in the order of `sources`.

        Raises:
            RoleLost: a source ended, or left, before its message came.
        """

    @abstractmethod
    def drain(self) -> list[tuple[RoleId, M]]:
        """Return all that is there now with its senders, without waiting."""

    @abstractmethod
    def __len__(self) -> int: ...


class Replies(Mapping[RoleId, T_co]):
    """The answers to a group call by role, in the group's order.

    Attributes:
        failures: the error of each role that failed or did not answer in time, in the group's order.
        late: answers that came too late for an earlier call of the same channel (`within(late="keep")`).
    """

    def __init__(
        self, answers: dict[RoleId, T_co], failures: dict[RoleId, Exception], late: dict[RoleId, T_co]
    ) -> None:
        self._answers = answers
        self.failures = failures
        self.late = late

    def __getitem__(self, role: RoleId) -> T_co:
        return self._answers[role]

    def __iter__(self) -> Any:
        return iter(self._answers)

    def __len__(self) -> int:
        return len(self._answers)

    def __repr__(self) -> str:
        return f"Replies({len(self._answers)} answers, {len(self.failures)} failures, {len(self.late)} late)"


class GroupCall(Awaitable[Replies[T_co]], Generic[T_co]):
    """A call of every member of a group: await it for `Replies`, or take answers as they come."""

    @abstractmethod
    def __await__(self) -> Generator[Any, Any, Replies[T_co]]: ...

    @abstractmethod
    def as_completed(self) -> AsyncIterator[tuple[RoleId, T_co]]:
        """Yield `(role, answer)` in the order of arrival; raises at the end if the quorum is missed."""
