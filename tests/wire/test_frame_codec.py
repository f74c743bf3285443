from __future__ import annotations

from typing import Any, get_args

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.ids import RoleId
from rolecall.wire import LimitExceeded, Malformed, frames
from rolecall.wire.frame_codec import encode_frame, fitting_error
from rolecall.wire.frames import (
    Call,
    Cancel,
    Credit,
    Failed,
    Frame,
    Goodbye,
    Heartbeat,
    Put,
    Reply,
    Subscribe,
    WireError,
)

decoder = msgspec.msgpack.Decoder(Frame)

ids = st.integers(0, 2**63 - 1)
counts = st.integers(0, 2**31 - 1)
names = st.text(max_size=40)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
seconds = st.floats(-1e18, 1e18)
errors = st.builds(WireError, names, names, st.dictionaries(names, values, max_size=3), names, names)
SPECIAL: dict[type[Any], st.SearchStrategy[Frame]] = {
    Call: st.builds(
        Call,
        ids,
        names,
        names,
        names,
        ids,
        st.none() | seconds,
        st.lists(names, max_size=5),
        st.sampled_from(["call", "start", "stream"]),
        counts,
    ),
    Failed: st.builds(Failed, ids, errors),
    Put: st.builds(Put, ids, names, names, names, ids),
    Subscribe: st.builds(
        Subscribe,
        ids,
        names,
        names,
        names,
        st.lists(st.tuples(names, values), max_size=3),
        counts,
        st.sampled_from(["wait", "drop_oldest", "latest"]),
    ),
    frames.Ready: st.builds(frames.Ready, names, names, names),
    Credit: st.builds(Credit, ids, counts),
    frames.EventCredit: st.builds(frames.EventCredit, ids, counts),
    Heartbeat: st.builds(Heartbeat, seconds),
    frames.HeartbeatReply: st.builds(frames.HeartbeatReply, seconds),
    Goodbye: st.builds(Goodbye, names),
}
any_frame = st.one_of([SPECIAL[kind] if kind in SPECIAL else st.builds(kind, ids) for kind in get_args(Frame)])


@given(any_frame)
def test_round_trip(frame: Frame) -> None:
    assert decoder.decode(encode_frame(frame)) == frame


def test_the_number_of_a_kind_never_changes() -> None:
    tags = {kind.__name__: kind.__struct_config__.tag for kind in get_args(Frame)}
    assert tags == {
        "Call": 1,
        "Reply": 2,
        "Failed": 3,
        "Cancel": 4,
        "Cancelled": 5,
        "Full": 6,
        "Ready": 7,
        "Admitted": 8,
        "Progress": 9,
        "Item": 10,
        "Credit": 11,
        "Ended": 12,
        "Put": 13,
        "Subscribe": 14,
        "Subscribed": 15,
        "Unsubscribe": 16,
        "Event": 17,
        "EventCredit": 18,
        "Heartbeat": 30,
        "HeartbeatReply": 31,
        "Goodbye": 32,
    }


def test_the_bytes_of_a_call() -> None:
    frame = Call(7, "a/b", "f", "c/d", 0, 1.5, ["x"], "call", 0)
    assert encode_frame(frame) == bytes.fromhex("9a0107a3612f62a166a3632f64 00cb3ff8000000000000 91a178 a463616c6c 00")


def test_role_ids_are_text() -> None:
    plain = Call(1, "a/b", "f", "c/d", 0, None, ["a/b"])
    assert encode_frame(Call(1, RoleId("a/b"), "f", RoleId("c/d"), 0, None, [RoleId("a/b")])) == encode_frame(plain)


# ----------------------------------------------------------------------------------------- what is refused

DEEP: list[Any] = []
for _ in range(20):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (Call(1, "r" * 1001, "f", "c", 0), r"Call.*length <= 1000.*`\$\[2\]`"),
        (Call(1, "r", "f", "c", 0, None, ["x"] * 1001), "Call.*length <= 1000"),
        (Call(1, "r", "f", "c", 0, float("-inf")), "remaining_s=-inf is no finite number"),
        (Call(1, "r", "f", "c", 0, float("nan")), "remaining_s=nan is no finite number"),
        (Goodbye("x" * 1001), "Goodbye"),
        (Heartbeat(float("nan")), "Heartbeat"),
        (Failed(1, WireError("a:b", "x" * 10_001)), "Failed.*length <= 10000"),
        (Failed(1, WireError("a:b", "x", {"deep": DEEP})), "levels of values in a frame"),
        (Subscribe(1, "r", "t", "s", [("x", DEEP)], 1, "wait"), "levels of values in a frame"),
        (Subscribe(1, "r", "t", "s", [("x", "y" * 300_000)], 1, "wait"), "Subscribe without its payload"),
    ],
)
def test_a_frame_the_other_side_would_refuse_is_refused_here(frame: Frame, message: str) -> None:
    with pytest.raises(Malformed, match=message):
        encode_frame(frame)


@pytest.mark.parametrize(
    "packed",
    [
        [99, 1],  # no such kind
        ["Call", 1],
        [2],  # an id is missing
        [2, 1, 2],  # one field too many
        [2, -1],
        [2, 2**63],
        [2, 1.0],
        [2, True],
        [11, 1, 2**31],
        [30, float("nan")],
        [30, float("inf")],
        [1, 1, "r", "f", "c", 0, None, [], "shout", 0],
        {"frame": 2, "id": 1},
    ],
)
def test_what_is_no_frame(packed: object) -> None:
    with pytest.raises(msgspec.ValidationError):
        decoder.decode(msgspec.msgpack.encode(packed))


def test_fields_at_the_end_may_be_left_out_of_a_call() -> None:
    assert decoder.decode(msgspec.msgpack.encode([1, 1, "r", "f", "c", 0])) == Call(1, "r", "f", "c", 0)


# ------------------------------------------------------------------------------------------------- errors


def test_an_error_is_made_to_fit() -> None:
    error = fitting_error(
        "m:E" * 1000,
        "start" + "." * 20_000 + "end",
        {
            "kept": [1, {"a": 2}],
            "number": np.float64(1.5),
            "role": RoleId("a/b"),
            "lost": object(),
            "deep": DEEP,
            "large": "x" * 50_000,
            "huge": 10**30,
            "key": {(1, 2): 3},
            "half": "\ud800",
            "half\ud800": 1,
            "long" * 300: 1,
        },
        "Traceback" + "\n" * 50_000 + "KeyError",
        "file\udc80",
    )
    assert error.message.startswith("start...") and error.message.endswith("...end") and " ... " in error.message
    assert error.traceback.startswith("Traceback") and error.traceback.endswith("KeyError")
    assert error.where == "file\\udc80"
    decoded = decoder.decode(encode_frame(Failed(1, error)))
    assert isinstance(decoded, Failed)
    assert decoded.error.facts == {"kept": [1, {"a": 2}], "number": 1.5, "role": "a/b", "key": {(1, 2): 3}}


def test_many_facts_are_made_to_fit() -> None:
    facts = {f"fact{i}": "x" * 100 for i in range(2_000)}
    error = fitting_error("m:E", "message", facts)
    assert 100 < len(error.facts) < 1_000
    encode_frame(Failed(1, error))


@given(names, st.text(max_size=200), st.dictionaries(names, values, max_size=5), st.text(max_size=200))
def test_an_error_that_fits_is_left_alone(kind: str, message: str, facts: dict[str, Any], traceback: str) -> None:
    error = fitting_error(kind, message, facts, traceback)
    assert error == WireError(kind, message, facts, traceback)
    encode_frame(Failed(1, error))


def test_frames_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Reply(1).id = 2  # type: ignore[misc]
    assert Cancel(1) == Cancel(1) != Cancel(2)


def test_limits_name_what_exceeds_them() -> None:
    with pytest.raises(LimitExceeded, match=r"^A message exceeds the limit.*Send less at once\.$"):
        encode_frame(Failed(1, WireError("a:b", "x", {"deep": DEEP})))
