"""The wire of each version of the protocol, captured: what is written, and that all of it is understood.

`captured/protocol-1.json` has the bytes of every step of the handshake, every kind of frame, every form of entry and
every kind of value, and what they say to somebody who reads them by `docs/wire-format.md` alone. Releases that speak
the same version must agree on both. A change that other releases would not understand needs a new version in
`wire.handshake.PROTOCOLS`, and a capture of its own: `python tests/wire/test_captured.py` writes that of the last one.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import hmac
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, get_args
from unittest import mock

import msgspec
import numpy as np
import pytest

from rolecall.core.ids import RoleId
from rolecall.core.tensors import Tensors
from rolecall.wire import Acks, ArgsCodec, Session, SessionLimits, chunk_decode, chunk_encode, decode, encode, handshake
from rolecall.wire import frames as f
from rolecall.wire.frame_codec import encode_frame
from rolecall.wire.head_codec import batch_start, decode_head, head_start, shared_head
from rolecall.wire.heads import Shared
from rolecall.wire.peers import Peer, RefusedByPeer
from rolecall.wire.shared_messages import (
    Announce,
    Message,
    Offer,
    Release,
    Retire,
    decode_message,
    encode_message,
    greeting_of,
)

FOLDER = Path(__file__).parent / "captured"
SECRET = b"a secret of sixteen bytes or more"
OFFER = Offer("rolecall-" + "0" * 32, 7, b"k" * 32)
SMALL = SessionLimits(bulk_bytes=100, piece_bytes=40, bulk_credit_bytes=100)

FRAMES: dict[type, f.Frame] = {
    type(frame): frame
    for frame in (
        f.Call(1, "a/r", "train", "b/r", 0, 2.5, ["b:1:1 b/r.run"], "start", 16),
        f.Reply(1),
        f.Failed(1, f.WireError("builtins:KeyError", "no such thing", {"key": "x"}, "Traceback", "a/r.train")),
        f.Cancel(2),
        f.Cancelled(2),
        f.Full(3),
        f.Ready("a/r", "train", "b/r"),
        f.Admitted(4),
        f.Progress(4),
        f.Item(5),
        f.Credit(5, 8),
        f.Ended(5),
        f.Put(6, "a/r", "box", "b/r", 3),
        f.Subscribe(7, "a/r", "news", "b/r", [("loss__lt", 0.5)], 16, "latest"),
        f.Subscribed(7),
        f.Unsubscribe(7),
        f.Event(7),
        f.EventCredit(7, 4),
        f.Heartbeat(1.5),
        f.HeartbeatReply(1.5),
        f.Goodbye("the node is stopping"),
    )
}


class Colour(enum.Enum):
    RED = "red"


class Report(msgspec.Struct):
    loss: float
    who: RoleId


@dataclasses.dataclass
class Plan:
    rounds: int


MOMENT = datetime.datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=datetime.UTC)
VALUES: dict[str, tuple[Any, Any]] = {
    "plain": ([None, True, -1, 2**40, 0.5, "text", b"bytes", {"a": [1]}], list[Any]),
    "tuple": ((1, "x"), tuple[int, str]),
    "set": ({3}, set[int]),
    "struct": (Report(0.5, RoleId("a/r")), Report),
    "dataclass": (Plan(3), Plan),
    "enum": (Colour.RED, Colour),
    "role id": (RoleId("a/r"), RoleId),
    "moment": (MOMENT, datetime.datetime),
    "date": (MOMENT.date(), datetime.date),
    "array": (np.arange(6, dtype=np.float32).reshape(2, 3), np.ndarray),
    "two arrays": ([np.arange(2, dtype=np.int8), np.ones(1, np.bool_)], list[np.ndarray]),
    "tensors": (
        Tensors({"w": np.ones((2, 2), np.float32), "n": np.array([1, 2], np.int64), "b": np.zeros(2, np.float32)}),
        Tensors,
    ),
}
ARGUMENTS = ArgsCodec("f", [("model", np.ndarray, False), ("epochs", int, True)])
GIVEN: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {
    "positional": ((np.zeros(1, np.int8),), {}),
    "both": ((np.zeros(1, np.int8),), {"epochs": 3}),
    "by name": ((), {"model": np.zeros(1, np.int8), "epochs": 3}),
}
SHARED: tuple[Message, ...] = (
    greeting_of(OFFER, "dialler", 1 << 30, 64),
    greeting_of(OFFER, "acceptor", 1 << 30, 64),
    Announce(3, 1 << 20),
    Retire(3),
    Release([5, 6]),
)


# ------------------------------------------------------------------------ reading by the documentation alone


def varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte, at = data[at], at + 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7


def segments_of(chunk: bytes) -> list[bytes]:
    """Return the segments of a `Chunk`, as any protobuf library does."""
    found, at = [], 0
    while at < len(chunk):
        tag, at = varint(chunk, at)
        size, at = varint(chunk, at)
        if tag == 1 << 3 | 2:
            found.append(chunk[at : at + size])
        at += size
    return found


def shown(value: Any) -> Any:
    """Return what MessagePack has said as JSON can hold it."""
    match value:
        case bytes():
            return {"bytes": value.hex()}
        case msgspec.msgpack.Ext():
            return {"extension": value.code, "of": shown(msgspec.msgpack.decode(value.data))}
        case datetime.datetime():
            return {"moment": value.isoformat()}
        case list():
            return [shown(item) for item in value]
        case dict():
            return {str(key): shown(item) for key, item in value.items()}
    return value


def read(packed: bytes) -> Any:
    return shown(msgspec.msgpack.decode(packed))


def said(segments: Sequence[bytes]) -> dict[str, Any]:
    """Return what segments say: the first is MessagePack, the others are raw."""
    first, *others = segments
    return {"says": read(first), "with": [other.hex() for other in others]}


# ------------------------------------------------------------------------------------------------- capturing


def captured(chunk: Iterable[Any]) -> dict[str, Any]:
    encoded = chunk_encode(list(chunk))
    return {"chunk": encoded.hex(), **said(segments_of(encoded))}


def hands_shaken() -> dict[str, Any]:
    nonces = iter([b"n" * 32, b"m" * 32])
    with mock.patch.object(handshake, "new_nonce", lambda: next(nonces)):
        dialling = handshake.Dialling(Peer("a", 11, None, ("shared-memory",)), SECRET, "127.0.0.1:1")
        accepting = handshake.Accepting(Peer("b", 22, "127.0.0.1:1"), SECRET, "127.0.0.1:2")
        steps = {"hello": dialling.hello()}
        accepting.greeted(views(steps["hello"]))
        steps["welcome"] = accepting.welcome()
        dialling.welcomed(views(steps["welcome"]))
        steps["confirm"] = dialling.confirm(
            handshake.Confirm(session=3, connection=1, resumed=True, acks=Acks(1, 2, 3))
        )
        accepting.confirmed(views(steps["confirm"]))
        steps["established"] = accepting.established(Acks(4, 5, 6), OFFER)
        steps["refused"] = handshake.encode_refused("secret", "another run")
    return {step: captured(chunk) for step, chunk in steps.items()}


def views(segments: Iterable[Any]) -> list[memoryview]:
    return [memoryview(bytes(segment)) for segment in segments]


def chunks_of(*sends: Callable[[Session], object], limits: SessionLimits = SMALL) -> list[dict[str, Any]]:
    """Return the chunks in which a session says something, to one that acknowledges it."""
    here, there = Session(limits), Session(limits)
    here.connected(there.acks)
    there.connected(here.acks)
    found = []
    for send in sends:
        send(here)
        while (chunk := here.next_chunk()) is not None:
            found.append(captured(chunk))
            there.receive(chunk_decode(bytes.fromhex(found[-1]["chunk"])))
            there.ack_soon()
            if (answer := there.next_chunk()) is not None:
                here.receive(chunk_decode(chunk_encode(answer)))
    return found


def sending(frame: f.Frame, *payload: bytes, **options: Any) -> Callable[[Session], None]:
    return lambda session: session.send(frame, payload, **options)


def entries() -> dict[str, list[dict[str, Any]]]:
    """Return a capture of each form that an entry may have."""
    call, put = FRAMES[f.Call], FRAMES[f.Put]

    def both(session: Session) -> None:
        session.send(call, [b"arguments"])
        session.send(FRAMES[f.Cancel])
        session.send(FRAMES[f.Credit])

    withdrawing = Session(SMALL)
    withdrawing.connected(Acks())
    withdrawing.send(call, [b"x" * 300])
    begun = withdrawing.next_chunk()
    assert begun is not None and withdrawing.withdraw(1)
    ended = withdrawing.next_chunk()
    assert ended is not None
    [compressed] = chunks_of(sending(call, b"y" * 2_000, b"z", compress=True), limits=SessionLimits())
    compressed["with"][0] = "zstd"  # releases of that library need not make the same bytes
    shared = shared_head(encode_frame(put), Shared(9, 3, [(0, 64), (128, 32)]))
    head = head_start(Acks(1, 2, 3), 1) + batch_start(3, 0, 1) + shared
    return {
        "on two lanes in one chunk": chunks_of(both),
        "numbered on": chunks_of(sending(call, b"1"), sending(call, b"2")),
        "urgent": chunks_of(sending(call, b"arguments", urgent=True)),
        "compressed": [compressed],
        "in pieces": chunks_of(sending(call, b"x" * 30, b"y" * 90)),
        "withdrawn": [captured(begun), captured(ended)],
        "in shared memory": [captured([head, b"arguments"])],
    }


def capture() -> dict[str, Any]:
    return {
        "handshake": hands_shaken(),
        "frames": {kind.__name__: chunks_of(sending(frame)) for kind, frame in FRAMES.items()},
        "entries": entries(),
        "values": {
            name: {"segments": (parts := [bytes(part).hex() for part in encode(value)])}
            | said([bytes.fromhex(part) for part in parts])
            for name, (value, _) in VALUES.items()
        },
        "arguments": {name: said([bytes(part) for part in ARGUMENTS.encode(*given)]) for name, given in GIVEN.items()},
        "shared memory": [
            {"message": (packed := encode_message(message)).hex(), "says": read(packed)} for message in SHARED
        ],
    }


BYTES = ("chunk", "segments", "message")


def meaning(capture: Any) -> Any:
    """Return what a capture says, without the bytes that say it, of which several may say the same."""
    if isinstance(capture, dict):
        return {key: meaning(item) for key, item in capture.items() if key not in BYTES}
    return [meaning(item) for item in capture] if isinstance(capture, list) else capture


# ----------------------------------------------------------------------------------------------------- tests


def version(number: int) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads((FOLDER / f"protocol-{number}.json").read_text())
    return kept


VERSIONS = range(handshake.PROTOCOLS[0], handshake.PROTOCOLS[1] + 1)


@pytest.fixture(params=VERSIONS)
def kept(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Return the capture of a version that nodes say they speak."""
    return version(request.param)


def test_every_kind_of_frame_is_captured(kept: dict[str, Any]) -> None:
    assert set(FRAMES) == set(get_args(f.Frame))
    assert kept["frames"].keys() == {kind.__name__ for kind in FRAMES}


@pytest.mark.parametrize("part", ["handshake", "frames", "entries", "values", "arguments", "shared memory"])
def test_what_is_written_says_what_it_said_when_the_version_was_made(part: str) -> None:
    now = meaning(json.loads(json.dumps(capture()[part])))
    assert now == meaning(version(handshake.PROTOCOLS[1])[part]), "raise PROTOCOLS: see the head of this module"


def test_every_frame_is_understood(kept: dict[str, Any]) -> None:
    for kind, frame in FRAMES.items():
        [chunk] = kept["frames"][kind.__name__]
        assert Session(SMALL).receive(segments(chunk)) == [(frame, [])]


def segments(capture: dict[str, Any]) -> list[memoryview]:
    return list(chunk_decode(bytes.fromhex(capture["chunk"])))


def received(chunks: list[dict[str, Any]]) -> list[tuple[f.Frame, list[bytes]]]:
    session = Session(SMALL)
    session.connected(Acks())
    return [
        (frame, [bytes(part) for part in payload])
        for chunk in chunks
        for frame, payload in session.receive(segments(chunk))
    ]


def test_every_form_of_an_entry_is_understood(kept: dict[str, Any]) -> None:
    call, forms = FRAMES[f.Call], kept["entries"]
    assert received(forms["on two lanes in one chunk"]) == [
        (FRAMES[f.Credit], []), (call, [b"arguments"]), (FRAMES[f.Cancel], []),
    ]  # fmt: skip
    assert received(forms["numbered on"]) == [(call, [b"1"]), (call, [b"2"])]
    assert received(forms["urgent"]) == [(call, [b"arguments"])]
    assert received(forms["compressed"]) == [(call, [b"y" * 2_000, b"z"])]
    assert received(forms["in pieces"]) == [(call, [b"x" * 30, b"y" * 90])]
    assert received(forms["withdrawn"]) == []
    [entry] = decode_head(segments(forms["in shared memory"][0])[0]).batches[0].entries
    assert (entry.frame, entry.shared) == (FRAMES[f.Put], Shared(9, 3, [(0, 64), (128, 32)]))


def test_the_handshake_is_understood(kept: dict[str, Any]) -> None:
    steps = {name: segments(step) for name, step in kept["handshake"].items()}
    with mock.patch.object(handshake, "new_nonce", lambda: b"n" * 32):
        dialling = handshake.Dialling(Peer("a", 11, None, ("shared-memory",)), SECRET, "127.0.0.1:1")
        dialling.hello()
    assert dialling.welcomed(steps["welcome"]) == Peer("b", 22, "127.0.0.1:1")
    established = dialling.established(steps["established"])
    assert (established.acks, established.shared_memory) == (Acks(4, 5, 6), OFFER)
    with pytest.raises(RefusedByPeer, match="another run"):
        dialling.established(steps["refused"])
    with mock.patch.object(handshake, "new_nonce", lambda: b"m" * 32):
        accepting = handshake.Accepting(Peer("b", 22, "127.0.0.1:1"), SECRET, "127.0.0.1:2")
        assert accepting.greeted(steps["hello"]) == Peer("a", 11, None, ("shared-memory",))
        accepting.welcome()
    confirm = accepting.confirmed(steps["confirm"])
    assert (confirm.session, confirm.connection, confirm.resumed, confirm.acks) == (3, 1, True, Acks(1, 2, 3))


def test_every_kind_of_value_is_understood(kept: dict[str, Any]) -> None:
    for name, (value, type_) in VALUES.items():
        parts = [memoryview(bytes.fromhex(part)) for part in kept["values"][name]["segments"]]
        found = decode(parts, type_)
        assert type(found) is type(value)
        assert [bytes(part) for part in encode(found)] == [bytes(part) for part in encode(value)]


def test_every_message_about_shared_memory_is_understood(kept: dict[str, Any]) -> None:
    assert tuple(decode_message(bytes.fromhex(one["message"])) for one in kept["shared memory"]) == SHARED


def test_the_proofs_are_what_the_documentation_says(kept: dict[str, Any]) -> None:
    steps = {name: segments_of(bytes.fromhex(step["chunk"])) for name, step in kept["handshake"].items()}
    for label, step, heard in (("acceptor", "welcome", 2), ("dialler", "confirm", 3)):
        firsts = [steps[name][0] for name in ("hello", "welcome", "confirm")[:heard]]
        parts = [f"rolecall link {label}".encode(), *firsts]
        message = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        assert steps[step][1] == hmac.digest(SECRET, message, "sha256")
    for side, message in zip(("dialler", "acceptor"), kept["shared memory"], strict=False):
        parts = [f"rolecall shared memory {side}".encode(), OFFER.name.encode()]
        proved = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        assert message["says"][2] == {"bytes": hmac.digest(OFFER.key, proved, "sha256").hex()}


def lines(value: Any, depth: int = 2) -> str:
    """Return JSON with a line for each capture."""
    if depth == 0 or not isinstance(value, dict):
        return json.dumps(value)
    items = [f"{json.dumps(key)}: {lines(item, depth - 1)}" for key, item in value.items()]
    return "\n".join(["{", ",\n".join(items), "}"])


if __name__ == "__main__":
    (FOLDER / f"protocol-{handshake.PROTOCOLS[1]}.json").write_text(lines(capture()) + "\n")
