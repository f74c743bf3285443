"""The frames of a link: what two nodes say to each other, each a small struct with raw payload segments beside it.

On the wire a frame is a MessagePack array that starts with the number of its kind. Ids are given by the side
that asks (`Call`, `Put`, `Subscribe`), and what answers it bears the same id. What a frame may hold is bounded
by its type, so that decoding one never takes more memory than a small multiple of its bytes.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from rolecall.core.policies import EventOverflow

__all__ = (
    "Admitted",
    "Call",
    "CallKind",
    "Cancel",
    "Cancelled",
    "Credit",
    "Ended",
    "Event",
    "EventCredit",
    "Failed",
    "Frame",
    "Full",
    "Goodbye",
    "Heartbeat",
    "HeartbeatReply",
    "Item",
    "Progress",
    "Put",
    "Ready",
    "Reply",
    "Subscribe",
    "Subscribed",
    "Unsubscribe",
    "WireError",
)

ITEMS_MAX = 1_000
NAME_CHARS = 1_000
MESSAGE_CHARS = 10_000
TRACEBACK_CHARS = 30_000
FACTS_BYTES = 30_000
FRAME_BYTES = 256 << 10  # without the payload
FREE_FORM_LEVELS = 16
FAR_S = 1e18

Id: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Name: TypeAlias = Annotated[str, Meta(max_length=NAME_CHARS)]
Chain: TypeAlias = Annotated[list[Name], Meta(max_length=ITEMS_MAX)]
Seconds: TypeAlias = Annotated[float, Meta(ge=-FAR_S, le=FAR_S)]  # neither infinite nor "not a number"
CallKind: TypeAlias = Literal["call", "start", "stream"]


class _Frame(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False, tag_field="frame"):
    """Base of all frames; the tag of each is its number on the wire, and never changes its meaning."""


# ----------------------------------------------------------------------------------------- calls and answers


class Call(_Frame, frozen=True, tag=1):
    """Ask for `channel` of role `to`; the payload holds the arguments.

    `order` numbers the messages of one (caller, to, channel) from 0. `remaining_s` is what is left of the
    deadline at the time of sending, or None; it may be past (negative). `chain` names the calls this one is
    made on behalf of. `window` is how many items of a stream may come before credit is given.
    """

    id: Id
    to: Name
    channel: Name
    caller: Name
    order: Id
    remaining_s: Seconds | None = None
    chain: Chain = []
    kind: CallKind = "call"
    window: Count = 0


class Reply(_Frame, frozen=True, tag=2):
    """The result of a call, in the payload."""

    id: Id


class WireError(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, gc=False):
    """An error as it travels: `type` is "module:QualName", `where` names role, node and channel."""

    type: Name
    message: Annotated[str, Meta(max_length=MESSAGE_CHARS)]
    facts: Annotated[dict[Name, Any], Meta(max_length=ITEMS_MAX)] = {}
    traceback: Annotated[str, Meta(max_length=TRACEBACK_CHARS)] = ""
    where: Name = ""


class Failed(_Frame, frozen=True, tag=3):
    """The call, or the message to an inbox, or the subscription of that id failed."""

    id: Id
    error: WireError


class Cancel(_Frame, frozen=True, tag=4):
    """Stop the handler of my call; `Cancelled`, or the answer that was already under way, follows."""

    id: Id


class Cancelled(_Frame, frozen=True, tag=5):
    """The handler of your call has stopped, its thread included."""

    id: Id


class Full(_Frame, frozen=True, tag=6):
    """The mailbox was full and the message of that id was discarded: keep it, and those after it."""

    id: Id


class Ready(_Frame, frozen=True, tag=7):
    """The mailbox has room again: send what was kept for this (caller, to, channel), in order."""

    to: Name
    channel: Name
    caller: Name


class Admitted(_Frame, frozen=True, tag=8):
    """The mailbox has taken the message of that id, of a kind whose sender waits for that."""

    id: Id


class Progress(_Frame, frozen=True, tag=9):
    """A progress report of a task, in the payload."""

    id: Id


class Item(_Frame, frozen=True, tag=10):
    """The next item of a stream, in the payload."""

    id: Id


class Credit(_Frame, frozen=True, tag=11):
    """Another `count` items of the stream may come."""

    id: Id
    count: Count


class Ended(_Frame, frozen=True, tag=12):
    """The stream has no more items."""

    id: Id


# --------------------------------------------------------------------------------------- inboxes and topics


class Put(_Frame, frozen=True, tag=13):
    """A message for an inbox, in the payload; `order` numbers those of one (caller, to, inbox) from 0."""

    id: Id
    to: Name
    inbox: Name
    caller: Name
    order: Id


class Subscribe(_Frame, frozen=True, tag=14):
    """Send the events of `topic` of role `to` to `subscriber`, those that fit `where` (name, value) only."""

    id: Id
    to: Name
    topic: Name
    subscriber: Name
    where: Annotated[list[tuple[Name, Any]], Meta(max_length=ITEMS_MAX)]
    capacity: Count
    overflow: EventOverflow


class Subscribed(_Frame, frozen=True, tag=15):
    """Every event emitted from now on will come."""

    id: Id


class Unsubscribe(_Frame, frozen=True, tag=16):
    """End my subscription."""

    id: Id


class Event(_Frame, frozen=True, tag=17):
    """An event of your subscription, in the payload."""

    id: Id


class EventCredit(_Frame, frozen=True, tag=18):
    """Another `count` events of my subscription may come."""

    id: Id
    count: Count


# --------------------------------------------------------------------------- about the connection, unnumbered


class Heartbeat(_Frame, frozen=True, tag=30):
    """I am alive; `sent_s` is a time of the sender's own clock."""

    sent_s: Seconds


class HeartbeatReply(_Frame, frozen=True, tag=31):
    """Your heartbeat of that time has come."""

    sent_s: Seconds


class Goodbye(_Frame, frozen=True, tag=32):
    """This connection ends on purpose."""

    reason: Name = ""


Frame: TypeAlias = (
    Call
    | Reply
    | Failed
    | Cancel
    | Cancelled
    | Full
    | Ready
    | Admitted
    | Progress
    | Item
    | Credit
    | Ended
    | Put
    | Subscribe
    | Subscribed
    | Unsubscribe
    | Event
    | EventCredit
    | Heartbeat
    | HeartbeatReply
    | Goodbye
)
