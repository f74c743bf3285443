"""The messages that a role sends: checked, and submitted to where they go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rolecall.core.context import CURRENT, Handling
from rolecall.runtime.calls import Invocation, Port
from rolecall.runtime.deadlines import effective_deadline
from rolecall.wire import size_bytes

if TYPE_CHECKING:
    from rolecall.runtime.instance import RoleInstance

__all__ = ("call", "request")

_SMALL: Final = frozenset((int, float, bool, type(None)))


def call(host: RoleInstance, dispatcher: Port, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Invocation:
    """Send a call on behalf of what the current task handles, and by the deadline of that."""
    return request(host, dispatcher, args, kwargs, CURRENT.get(), effective_deadline(dispatcher.node.loop))


def request(
    host: RoleInstance,
    dispatcher: Port,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    parent: Handling | None,
    deadline: float,
    *,
    reports: Any = None,
    items: Any = None,
    shared: tuple[dict[int, Any], int] | None = None,
) -> Invocation:
    """Check and submit a message of a role; never waits.

    One of several with the same arguments is `shared`: what they are encoded as is kept there, by a number.
    """
    dispatcher.signature.check(args, kwargs)
    if dispatcher.guarded:
        host.require_allowed_to(dispatcher)
    node = dispatcher.node
    future = node.loop.create_future()
    invocation = Invocation(dispatcher, host.id, args, kwargs, future=future, parent=parent, deadline=deadline)
    invocation.reports, invocation.items = reports, items
    checker = node.checker
    if checker is not None:
        checker.passed(invocation, shared)
    elif shared is not None:
        invocation.segments = shared[0].get(shared[1], ())
    invocation.bytes = _bytes_of(args, kwargs)
    dispatcher.submit(invocation)
    if shared is not None and checker is None and invocation.segments:
        shared[0][shared[1]] = invocation.segments
    return invocation


def _bytes_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> int:
    """Return about how many bytes arguments hold; plain numbers count as nothing."""
    size = 0
    for value in args:
        if type(value) not in _SMALL:
            size += size_bytes(value)
    for value in kwargs.values():
        size += size_bytes(value)
    return size
