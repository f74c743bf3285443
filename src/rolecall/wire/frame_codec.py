"""Writes and reads frames: as MessagePack, only such as the other side takes, which bounds what it reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast, get_args

import msgspec

from rolecall.wire.frames import (
    FACTS_BYTES,
    FAR_S,
    FRAME_BYTES,
    FREE_FORM_LEVELS,
    ITEMS_MAX,
    MESSAGE_CHARS,
    NAME_CHARS,
    TRACEBACK_CHARS,
    Call,
    Failed,
    Frame,
    Goodbye,
    Heartbeat,
    HeartbeatReply,
    Name,
    Subscribe,
    WireError,
)
from rolecall.wire.limits import LimitExceeded, Malformed

__all__ = ("check_free_form", "decode_frame", "encode_frame", "fitting_error")


def _plain(value: Any) -> Any:
    if isinstance(value, str):  # a role id
        return str(value)
    if isinstance(value, float):  # numpy's
        return float(value)
    raise NotImplementedError(type(value).__qualname__)


_encoder = msgspec.msgpack.Encoder(enc_hook=_plain)
_encode: Final = _encoder.encode
_decoder: msgspec.msgpack.Decoder[Frame] = msgspec.msgpack.Decoder(Frame)
_facts_decoder = msgspec.msgpack.Decoder(dict[Name, Any])
_CALL: Final = Call
_SURELY_FINE: Final = frozenset(get_args(Frame)) - {Failed, Subscribe, Heartbeat, HeartbeatReply}


def encode_frame(frame: Frame) -> bytes:
    """Return the frame, without its payload, as MessagePack.

    Raises `LimitExceeded` or `Malformed` for a frame that the other side would refuse.
    """
    kind = type(frame)
    if kind is _CALL:
        _check_remaining(cast(Call, frame).remaining_s)
    encoded = _encode(frame)
    # No list and no text can be too long in less than this; most frames take about 60 bytes.
    if len(encoded) > ITEMS_MAX or kind not in _SURELY_FINE:
        _check(frame, encoded)
    return encoded


def _check_remaining(remaining_s: float | None) -> None:
    if remaining_s is not None and not -FAR_S <= remaining_s <= FAR_S:
        raise Malformed(f"Call: remaining_s={remaining_s} is no finite number of seconds; None is for ever.")


def decode_frame(encoded: bytes) -> Frame:
    """Return the frame that `encode_frame` made the bytes of, one that is not about the connection.

    Raises `Malformed` or `LimitExceeded` for bytes that are none.
    """
    if len(encoded) > FRAME_BYTES:
        raise LimitExceeded("frame without its payload", len(encoded), FRAME_BYTES)
    try:
        frame = _decoder.decode(encoded)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"This is no frame: {error}.") from None
    if isinstance(frame, Heartbeat | HeartbeatReply | Goodbye):
        raise Malformed(f"{type(frame).__name__} is about a connection, and not for what is relayed.")
    check_free_form(frame)
    return frame


def _check(frame: Frame, encoded: bytes) -> None:
    if len(encoded) > FRAME_BYTES:
        raise LimitExceeded(f"{type(frame).__name__} without its payload", len(encoded), FRAME_BYTES)
    try:
        check_free_form(_decoder.decode(encoded))
    except msgspec.ValidationError as error:
        raise Malformed(f"{type(frame).__name__}: the other side would refuse it: {error}.") from None


def check_free_form(frame: Frame) -> None:
    """Raise `LimitExceeded` where the facts of an error or the values of a filter are nested too deeply."""
    if isinstance(frame, Failed):
        _check_levels(frame.error.facts, FREE_FORM_LEVELS)
    elif isinstance(frame, Subscribe):
        _check_levels(frame.where, FREE_FORM_LEVELS)


def _check_levels(value: Any, levels: int) -> None:
    if not isinstance(value, (dict, list, tuple)):
        return
    if not levels:
        raise LimitExceeded("levels of values in a frame", FREE_FORM_LEVELS + 1, FREE_FORM_LEVELS)
    for inner in value.values() if isinstance(value, dict) else value:
        _check_levels(inner, levels - 1)


# ------------------------------------------------------------------------------------------------------ errors


def fitting_error(type: str, message: str, facts: Mapping[str, Any], traceback: str = "", where: str = "") -> WireError:
    """Return an error that can travel: long texts lose their middle, and facts that cannot travel go."""
    return WireError(
        type=_clipped(type, NAME_CHARS),
        message=_clipped(message, MESSAGE_CHARS),
        facts=_portable(facts),
        traceback=_clipped(traceback, TRACEBACK_CHARS),
        where=_clipped(where, NAME_CHARS),
    )


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
    room = FACTS_BYTES
    for name, value in list(facts.items())[:ITEMS_MAX]:
        size = _size_or_none(name, value)
        if size is not None and size <= room:
            kept[name] = value
            room -= size
    return kept


def _size_or_none(name: str, value: Any) -> int | None:
    try:
        encoded = _encoder.encode({name: value})
        _facts_decoder.decode(encoded)
        _check_levels(value, FREE_FORM_LEVELS - 1)
    except (TypeError, ValueError, OverflowError, NotImplementedError, RecursionError, Malformed):
        return None
    except msgspec.DecodeError:
        return None
    return len(encoded)
