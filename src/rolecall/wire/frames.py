"""The frames of a link: what two nodes say to each other, each a small struct with raw payload segments beside it.

On the wire a frame is a MessagePack array that starts with the number of its kind. Ids are given by the side
that asks (`Call`, `Put`, `Subscribe`), and what answers it bears the same id. What a frame may hold is bounded
by its type, so that decoding one never takes more memory than a small multiple of its bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from rolecall.core.policies import EventOverflow
from rolecall.wire.limits import LimitExceeded, Malformed

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
    "check_free_form",
    "decode_frame",
    "encode_frame",
)

_ITEMS_MAX = 1_000
_NAME_CHARS = 1_000
_MESSAGE_CHARS = 10_000
_TRACEBACK_CHARS = 30_000
_FACTS_BYTES = 30_000
_FRAME_BYTES = 256 << 10  # without the payload
_FREE_FORM_LEVELS = 16
_FAR_S = 1e18

Id: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Count: TypeAlias = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Name: TypeAlias = Annotated[str, Meta(max_length=_NAME_CHARS)]
Chain: TypeAlias = Annotated[list[Name], Meta(max_length=_ITEMS_MAX)]
Seconds: TypeAlias = Annotated[float, Meta(ge=-_FAR_S, le=_FAR_S)]  # neither infinite nor "not a number"
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
    message: Annotated[str, Meta(max_length=_MESSAGE_CHARS)]
    facts: Annotated[dict[Name, Any], Meta(max_length=_ITEMS_MAX)] = {}
    traceback: Annotated[str, Meta(max_length=_TRACEBACK_CHARS)] = ""
    where: Name = ""

    @classmethod
    def fitting(
        cls, type: str, message: str, facts: Mapping[str, Any], traceback: str = "", where: str = ""
    ) -> WireError:
        """Return an error that can travel: long texts lose their middle, and facts that cannot travel go."""
        return cls(
            type=_clipped(type, _NAME_CHARS),
            message=_clipped(message, _MESSAGE_CHARS),
            facts=_portable(facts),
            traceback=_clipped(traceback, _TRACEBACK_CHARS),
            where=_clipped(where, _NAME_CHARS),
        )


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
    where: Annotated[list[tuple[Name, Any]], Meta(max_length=_ITEMS_MAX)]
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


# --------------------------------------------------------------------------------------------------- encoding


def _plain(value: Any) -> Any:
    if isinstance(value, str):  # a role id
        return str(value)
    if isinstance(value, float):  # numpy's
        return float(value)
    raise NotImplementedError(type(value).__qualname__)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)
_facts_decoder = msgspec.msgpack.Decoder(dict[Name, Any])
_SURELY_FINE = frozenset(get_args(Frame)) - {Failed, Subscribe, Heartbeat, HeartbeatReply}


def encode_frame(frame: Frame) -> bytes:
    """Return the frame, without its payload, as MessagePack.

    Raises `LimitExceeded` or `Malformed` for a frame that the other side would refuse.
    """
    if type(frame) is Call and frame.remaining_s is not None and not -_FAR_S <= frame.remaining_s <= _FAR_S:
        raise Malformed(f"Call: remaining_s={frame.remaining_s} is no finite number of seconds; None is for ever.")
    encoded = _encoder.encode(frame)
    # No list and no text can be too long in less than this; most frames take about 60 bytes.
    if len(encoded) > _ITEMS_MAX or type(frame) not in _SURELY_FINE:
        _check(frame, encoded)
    return encoded


def decode_frame(encoded: bytes) -> Frame:
    """Return the frame that `encode_frame` made the bytes of, one that is not about the connection.

    Raises `Malformed` or `LimitExceeded` for bytes that are none.
    """
    if len(encoded) > _FRAME_BYTES:
        raise LimitExceeded("frame without its payload", len(encoded), _FRAME_BYTES)
    try:
        frame = _decoder.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"This is no frame: {error}.") from None
    if isinstance(frame, Heartbeat | HeartbeatReply | Goodbye):
        raise Malformed(f"{type(frame).__name__} is about a connection, and not for what is relayed.")
    check_free_form(frame)
    return frame


def _check(frame: Frame, encoded: bytes) -> None:
    if len(encoded) > _FRAME_BYTES:
        raise LimitExceeded(f"{type(frame).__name__} without its payload", len(encoded), _FRAME_BYTES)
    try:
        check_free_form(_decoder.decode(encoded))
    except msgspec.ValidationError as error:
        raise Malformed(f"{type(frame).__name__}: the other side would refuse it: {error}.") from None


def check_free_form(frame: Frame) -> None:
    """Raise `LimitExceeded` where the facts of an error or the values of a filter are nested too deeply."""
    if isinstance(frame, Failed):
        _check_levels(frame.error.facts, _FREE_FORM_LEVELS)
    elif isinstance(frame, Subscribe):
        _check_levels(frame.where, _FREE_FORM_LEVELS)


def _check_levels(value: Any, levels: int) -> None:
    if not isinstance(value, (dict, list, tuple)):
        return
    if not levels:
        raise LimitExceeded("levels of values in a frame", _FREE_FORM_LEVELS + 1, _FREE_FORM_LEVELS)
    for inner in value.values() if isinstance(value, dict) else value:
        _check_levels(inner, levels - 1)


def _clipped(text: str, limit: int) -> str:
    if not text.isascii():  # half characters, as in odd file names, do not travel
        text = text.encode(errors="backslashreplace").decode()
    if len(text) <= limit:
        return text
    half = (limit - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def _portable(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return the facts that can travel, as long as there is room for them."""
    kept: dict[str, Any] = {}
    room = _FACTS_BYTES
    for name, value in list(facts.items())[:_ITEMS_MAX]:
        size = _size_or_none(name, value)
        if size is not None and size <= room:
            kept[name] = value
            room -= size
    return kept


def _size_or_none(name: str, value: Any) -> int | None:
    try:
        encoded = _encoder.encode({name: value})
        _facts_decoder.decode(encoded)
        _check_levels(value, _FREE_FORM_LEVELS - 1)
    except (TypeError, ValueError, OverflowError, NotImplementedError, RecursionError, Malformed):
        return None
    except msgspec.DecodeError:
        return None
    return len(encoded)
