"""Services, tasks and streams: how a handler becomes a channel, with its types intact.

A channel is a descriptor. On the class, `Trainer.train` is *unbound*: a channel of any trainer, to be passed
to a group. On `self` it is the plain coroutine; through a relationship it is an endpoint. Static types do not
tell the last two apart, nor need they: both are awaited alike.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, ClassVar, Concatenate, Generic, ParamSpec, TypeVar, overload

from rolecall.core.annotations import type_name
from rolecall.core.ends import Endpoint, StreamEndpoint, TaskEndpoint, TaskHandle
from rolecall.core.errors import DeclarationError
from rolecall.core.policies import MAILBOX_BYTES, MAILBOX_MESSAGES, ChannelOptions, Overflow
from rolecall.core.signatures import Signature

__all__ = ("Bound", "Channel", "Service", "Stream", "Task", "Unbound", "service", "stream", "task")

P = ParamSpec("P")
T = TypeVar("T")
G = TypeVar("G")
T_co = TypeVar("T_co", covariant=True)
G_co = TypeVar("G_co", covariant=True)
O = TypeVar("O")  # noqa: E741 - the owner of a channel
O_contra = TypeVar("O_contra", contravariant=True)
Handler = Callable[Concatenate[Any, P], Coroutine[Any, Any, T]]


class Bound(Generic[O_contra, T_co]):
    """A call that has its arguments but not yet its role: `Trainer.train.bind(params, epochs=3)`."""

    __slots__ = ("args", "kwargs", "name")

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.name, self.args, self.kwargs = name, args, kwargs


class Unbound(Generic[O_contra, P, T_co]):
    """A service or task of any role of a class: what `Trainer.train` is."""

    def __init__(self, channel: Channel[P, T_co], owner: type) -> None:
        self.channel, self.owner, self.name = channel, owner, channel.name

    def bind(self, *args: P.args, **kwargs: P.kwargs) -> Bound[O_contra, T_co]:
        """Return the call with these arguments, for `group.call_each`."""
        return Bound(self.name, args, kwargs)

    def __call__(self, role: O_contra, /) -> Endpoint[P, T_co]:
        """Return this channel of `role`."""
        endpoint: Endpoint[P, T_co] = getattr(role, self.name)
        return endpoint

    def __repr__(self) -> str:
        return f"{self.owner.__qualname__}.{self.name}"


class UnboundTask(Unbound[O_contra, P, T_co], Generic[O_contra, P, T_co, G_co]):
    """A task of any role of a class."""

    def __call__(self, role: O_contra, /) -> TaskEndpoint[P, T_co, G_co]:
        """Return this task of `role`."""
        endpoint: TaskEndpoint[P, T_co, G_co] = getattr(role, self.name)
        return endpoint


class UnboundStream(Generic[O_contra, P, T_co]):
    """A stream of any role of a class."""

    def __init__(self, channel: Channel[P, T_co], owner: type) -> None:
        self.channel, self.owner, self.name = channel, owner, channel.name

    def __call__(self, role: O_contra, /) -> StreamEndpoint[P, T_co]:
        """Return this stream of `role`."""
        endpoint: StreamEndpoint[P, T_co] = getattr(role, self.name)
        return endpoint


class Channel(Generic[P, T_co]):
    """Base of the channels that have a handler."""

    kind: ClassVar[str]

    def __init__(self, handler: Callable[..., Any], options: ChannelOptions) -> None:
        self.handler, self.options = handler, options
        self.name = getattr(handler, "__name__", "")
        self.__doc__ = handler.__doc__
        self._signatures: dict[type, Signature] = {}
        self._check_handler()

    @property
    def __isabstractmethod__(self) -> bool:
        return bool(getattr(self.handler, "__isabstractmethod__", False))

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def signature(self, owner: type) -> Signature:
        """Return what the channel takes and returns, its annotations resolved for `owner`."""
        found = self._signatures.get(owner)
        if found is None:
            found = self._signatures[owner] = Signature(self.handler, owner, f"{type_name(owner)}.{self.name}")
        return found

    def overridden(self, handler: Callable[..., Any]) -> Channel[P, T_co]:
        """Return this channel with another handler: what an undecorated override in a subclass means."""
        return type(self)(handler, self.options)

    def _check_handler(self) -> None:
        if not inspect.iscoroutinefunction(self.handler):
            raise DeclarationError(
                self.handler.__qualname__,
                f"the handler of a {self.kind} must be an `async def` without `yield`",
            )


class Service(Channel[P, T_co]):
    """A request and its reply."""

    kind = "service"

    @overload
    def __get__(self, obj: None, owner: type[O]) -> Unbound[O, P, T_co]: ...
    @overload
    def __get__(self, obj: object, owner: type) -> Endpoint[P, T_co]: ...
    def __get__(self, obj: object | None, owner: type) -> Any:
        return Unbound(self, owner) if obj is None else self.handler.__get__(obj, owner)


class Task(Channel[P, T_co], Generic[P, T_co, G_co]):
    """Long work with progress, cancellation and a handle."""

    kind = "task"

    @overload
    def __get__(self, obj: None, owner: type[O]) -> UnboundTask[O, P, T_co, G_co]: ...
    @overload
    def __get__(self, obj: object, owner: type) -> TaskEndpoint[P, T_co, G_co]: ...
    def __get__(self, obj: object | None, owner: type) -> Any:
        return UnboundTask(self, owner) if obj is None else OwnTask(self, obj)


class OwnTask(TaskEndpoint[P, T_co, G_co]):
    """A task of the role that asks: calling it runs the plain coroutine, `start` sends the role a message."""

    def __init__(self, task: Task[P, T_co, G_co], role: Any) -> None:
        self.name, self._role = task.name, role
        self._run: Callable[..., Coroutine[Any, Any, Any]] = task.handler.__get__(role)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, T_co]:
        return self._run(*args, **kwargs)

    async def start(self, *args: P.args, **kwargs: P.kwargs) -> TaskHandle[T_co, G_co]:
        handle: TaskHandle[T_co, G_co] = await self._role._host.start_own(self.name, args, kwargs)
        return handle


class Stream(Channel[P, T_co]):
    """A reply of many items, with back-pressure."""

    kind = "stream"

    @overload
    def __get__(self, obj: None, owner: type[O]) -> UnboundStream[O, P, T_co]: ...
    @overload
    def __get__(self, obj: object, owner: type) -> StreamEndpoint[P, T_co]: ...
    def __get__(self, obj: object | None, owner: type) -> Any:
        return UnboundStream(self, owner) if obj is None else self.handler.__get__(obj, owner)

    def _check_handler(self) -> None:
        abstract = getattr(self.handler, "__isabstractmethod__", False)
        if not inspect.isasyncgenfunction(self.handler) and not abstract:
            raise DeclarationError(
                self.handler.__qualname__,
                "the handler of a stream must be an `async def` that yields its items",
            )


@overload
def service(handler: Handler[P, T], /) -> Service[P, T]: ...
@overload
def service(
    *,
    concurrent: bool | int = False,
    mailbox: int = MAILBOX_MESSAGES,
    mailbox_bytes: int = MAILBOX_BYTES,
    overflow: Overflow = "wait",
    allow: str | None = None,
    compress: bool = False,
    idempotent: bool = False,
) -> Callable[[Handler[P, T]], Service[P, T]]: ...
def service(handler: Any = None, /, **options: Any) -> Any:
    """Declare a service: a request answered by the coroutine below.

    Args:
        concurrent: how many calls are handled at once; one by default, `True` for as many as come.
        mailbox: how many calls may wait. mailbox_bytes: how many bytes they may hold.
        overflow: what gives way when the mailbox is full: `wait`, `fail`, `drop_oldest` or `latest`.
        allow: the relationship (of this role) whose members alone may call.
        compress: arguments, results, items and progress are packed with zstd on their way to other nodes, where that
            makes them smaller.
        idempotent: a call that is lost with its node is made again, under the same id, when the role is there again
            (3 times, within 30 s each): at least once, in no order.

    Raises:
        DeclarationError: the handler is no coroutine function, or takes `*args`.
    """
    return _decorator(Service, handler, options)


@overload
def task(handler: Handler[P, T], /) -> Task[P, T, None]: ...
@overload
def task(
    *,
    progress: type[G],
    concurrent: bool | int = False,
    mailbox: int = MAILBOX_MESSAGES,
    mailbox_bytes: int = MAILBOX_BYTES,
    overflow: Overflow = "wait",
    allow: str | None = None,
    compress: bool = False,
    idempotent: bool = False,
    resumable: bool = False,
) -> Callable[[Handler[P, T]], Task[P, T, G]]: ...
@overload
def task(
    *,
    concurrent: bool | int = False,
    mailbox: int = MAILBOX_MESSAGES,
    mailbox_bytes: int = MAILBOX_BYTES,
    overflow: Overflow = "wait",
    allow: str | None = None,
    compress: bool = False,
    idempotent: bool = False,
    resumable: bool = False,
) -> Callable[[Handler[P, T]], Task[P, T, None]]: ...
def task(handler: Any = None, /, **options: Any) -> Any:
    """Declare a task: long work that can be started, watched and cancelled. Options as for `service`, and:

    Args:
        progress: the type of what the handler passes to `rc.progress(...)`.
        resumable: the handler awaits `self.safe_point()`, may be ended there, and is entered again from its
            state.
    """
    return _decorator(Task, handler, options)


@overload
def stream(handler: Callable[Concatenate[Any, P], AsyncIterator[T]], /) -> Stream[P, T]: ...
@overload
def stream(
    *,
    concurrent: bool | int = False,
    mailbox: int = MAILBOX_MESSAGES,
    mailbox_bytes: int = MAILBOX_BYTES,
    overflow: Overflow = "wait",
    allow: str | None = None,
    compress: bool = False,
) -> Callable[[Callable[Concatenate[Any, P], AsyncIterator[T]]], Stream[P, T]]: ...
def stream(handler: Any = None, /, **options: Any) -> Any:
    """Declare a stream: an async generator whose items the caller iterates. Options as for `service`."""
    return _decorator(Stream, handler, options)


def _decorator(kind: type[Channel[Any, Any]], handler: Any, options: dict[str, Any]) -> Any:
    if handler is not None:
        return kind(handler, ChannelOptions())

    def declare(function: Callable[..., Any]) -> Channel[Any, Any]:
        try:
            return kind(function, ChannelOptions.of(**options))
        except ValueError as error:
            raise DeclarationError(function.__qualname__, str(error)) from None

    return declare
