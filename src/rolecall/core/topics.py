"""Topics: what a role publishes to whoever subscribes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from types import UnionType
from typing import Any, Generic, TypeVar, overload

import msgspec

from rolecall.core.ends import TopicEnd
from rolecall.core.errors import DeclarationError
from rolecall.core.ids import RoleId
from rolecall.core.policies import EventOverflow, check_queue

__all__ = ("Handles", "Topic", "UnboundTopic", "on")

M = TypeVar("M")
O = TypeVar("O")  # noqa: E741 - the owner of a topic
O_contra = TypeVar("O_contra", contravariant=True)
EventHandler = TypeVar("EventHandler", bound=Callable[..., Coroutine[Any, Any, None]])


class UnboundTopic(Generic[O_contra, M]):
    """A topic of any role of a class: what `Trainer.trained` is."""

    def __init__(self, topic: Topic[M], owner: type) -> None:
        self.topic, self.owner, self.name = topic, owner, topic.name

    def __call__(self, role: O_contra, /) -> TopicEnd[M]:
        """Return this topic of `role`."""
        end: TopicEnd[M] = getattr(role, self.name)
        return end

    def __repr__(self) -> str:
        return f"{self.owner.__qualname__}.{self.name}"


class Topic(Generic[M]):
    """Declare a topic of events of one type: `trained = rc.Topic(TrainingReport)`.

    A type checker must be told of a union: `seen: rc.Topic[int | str] = rc.Topic(int | str)`. With `compress`, events
    are packed with zstd on their way to other nodes, where that makes them smaller.
    """

    kind = "topic"

    def __init__(self, type_: type[M] | UnionType, *, compress: bool = False) -> None:
        self.type: Any = type_
        self.compress = compress
        self.name = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    @overload
    def __get__(self, obj: None, owner: type[O]) -> UnboundTopic[O, M]: ...
    @overload
    def __get__(self, obj: object, owner: type) -> TopicEnd[M]: ...
    def __get__(self, obj: Any, owner: type) -> Any:
        return UnboundTopic(self, owner) if obj is None else obj._host.topic(self)


class Handles(msgspec.Struct, frozen=True):
    """The mark on a method that handles events or changes of a relationship.

    `what` is the topic's name or, with `membership`, `join` or `leave`.
    """

    relationship: str
    what: str
    item_type: Any = None
    where: Mapping[str, Any] | None = None
    capacity: int = 64
    overflow: EventOverflow = "wait"
    membership: bool = False


def on(
    relationship: str,
    topic: UnboundTopic[Any, M],
    *,
    where: Mapping[str, Any] | None = None,
    capacity: int = 64,
    overflow: EventOverflow = "wait",
) -> Callable[
    [Callable[[Any, RoleId, M], Coroutine[Any, Any, None]]],
    Callable[[Any, RoleId, M], Coroutine[Any, Any, None]],
]:
    """Handle the events of every member of a relationship, `one()` or `many()`, named by its attribute.

    The method takes the role that emitted and the event. Members that join later are subscribed, those that
    leave are not any more.

    Args:
        where: conditions checked at the source, such as `{"loss__lt": 0.1}`. An event on which they cannot be
            checked (None is not below 0.1) does not come, and is a dead letter.
        capacity: how many events may wait for the handler.
        overflow: what happens when they do: the emitter waits (`wait`), or the oldest event gives way
            (`drop_oldest`). With `latest` only the newest event of each source ever waits.

    Raises:
        DeclarationError: the options make no sense, or the method is no `async def`; when the class is used:
            a field in `where` that the events do not have.
    """
    mark = Handles(relationship, topic.name, topic.topic.type, where, capacity, overflow)
    return lambda handler: marked(handler, mark)


def marked(handler: EventHandler, mark: Handles) -> EventHandler:
    """Add a mark to a method; a method may carry several.

    Raises:
        DeclarationError: the method is no coroutine function or takes other arguments, or its queue makes
            no sense.
    """
    _check_handler(handler, ("source",) if mark.membership else ("source", "event"))
    check_queue(handler.__qualname__, mark.capacity, mark.overflow)
    handler.__dict__.setdefault("__rolecall_handles__", []).append(mark)
    return handler


def _check_handler(handler: Callable[..., Any], arguments: tuple[str, ...]) -> None:
    expected = f"async def {handler.__name__}(self, {', '.join(arguments)})"
    if not inspect.iscoroutinefunction(handler):
        raise DeclarationError(handler.__qualname__, f"it must be a coroutine function: `{expected}`")
    try:
        inspect.signature(handler).bind("self", *arguments)
    except TypeError as error:
        raise DeclarationError(
            handler.__qualname__, f"it cannot be called with {' and '.join(arguments)}: {error}",
            hint=f"Write `{expected}`",
        ) from None  # fmt: skip
