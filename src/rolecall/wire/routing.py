"""Which lane a frame takes, and which frames must not overtake one another.

Small frames overtake large ones, which travel on a lane of their own, except within one *flow*: the messages of
one (caller, role, channel), the answers to one call, the events of one subscription, and a call and its
cancellation. A frame whose flow has something on the bulk lane that may not have arrived takes that lane too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from rolecall.wire.frames import (
    Admitted,
    Call,
    Cancel,
    Cancelled,
    Credit,
    Ended,
    Event,
    EventCredit,
    Failed,
    Frame,
    Full,
    Goodbye,
    Heartbeat,
    HeartbeatReply,
    Item,
    Progress,
    Put,
    Ready,
    Reply,
    Subscribed,
)
from rolecall.wire.heads import CONTROL, UNNUMBERED

__all__ = ("LANES", "Flow", "flows_of")

Flow = Hashable

LANES: dict[type[Frame], int] = {
    **dict.fromkeys((Heartbeat, HeartbeatReply, Goodbye), UNNUMBERED),
    **dict.fromkeys((Full, Ready, Admitted, Credit, EventCredit), CONTROL),
}
"""The lane of each kind; the others are normal. `Cancel` is, since it must not overtake its call."""


def flows_of(frame: Frame) -> tuple[Flow, ...]:
    """Return the flows a frame belongs to."""
    find = _FLOWS.get(type(frame))
    return find(frame) if find else ()


def _call(frame: Any) -> tuple[Flow, ...]:
    return (frame.caller, frame.to, frame.channel), ("call", frame.id)


def _put(frame: Any) -> tuple[Flow, ...]:
    return (frame.caller, frame.to, frame.inbox), ("call", frame.id)


def _cancel(frame: Any) -> tuple[Flow, ...]:
    return (("call", frame.id),)


def _answer(frame: Any) -> tuple[Flow, ...]:
    return (("answer", frame.id),)


def _event(frame: Any) -> tuple[Flow, ...]:
    return (("event", frame.id),)


_FLOWS: dict[type[Frame], Callable[[Any], tuple[Flow, ...]]] = {
    Call: _call,
    Put: _put,
    Cancel: _cancel,
    **dict.fromkeys((Reply, Failed, Progress, Item, Ended, Cancelled), _answer),
    **dict.fromkeys((Subscribed, Event), _event),
}
