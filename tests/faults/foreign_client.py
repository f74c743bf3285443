"""A client as another language would have it, by `docs/wire-format.md` alone: stock gRPC, and MessagePack.

Arguments: where the stock compiler has put its code, the address of node `a`, the secret in hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import hmac
import queue
import struct
import sys
from collections.abc import Iterator
from typing import Any

sys.path.insert(0, sys.argv[1])

import grpc
from msgspec import msgpack

from rolecall.v1 import link_pb2, link_pb2_grpc  # type: ignore[import-not-found,attr-defined,unused-ignore]

SECRET = bytes.fromhex(sys.argv[3])
CONTROL, NORMAL, BULK = 1, 2, 3
PIECE, CREDIT = 256 << 10, 512 << 10


class Connection:
    """A stream of chunks, after the handshake."""

    def __init__(self, resume: tuple[int, list[int]] | None) -> None:
        self.outgoing: queue.Queue[Any] = queue.Queue()
        self.channel = grpc.insecure_channel(sys.argv[2], [("grpc.use_local_subchannel_pool", 1)])
        stub = link_pb2_grpc.LinkStub(self.channel)
        self.answers = stub.Connect(iter(self.outgoing.get, None), timeout=60)
        said: list[bytes] = []

        def say(step: dict[str, Any], label: str = "") -> None:
            said.append(msgpack.encode(step))
            self.write([said[-1], *([proof(label, said)] if label else [])])

        peer = {"name": "x", "incarnation": 42, "address": None, "capabilities": []}
        say({"step": "hello", "protocol_min": 1, "protocol_max": 1, "peer": peer, "nonce": b"n" * 32})
        welcome, of_node = self.read()
        said.append(welcome)
        step = msgpack.decode(welcome)
        assert (step["step"], step["protocol"], step["peer"]["name"]) == ("welcome", 1, "a"), step
        assert of_node == proof("rolecall link acceptor", said)
        number, acks = resume or (0, [0, 0, 0])
        resumed = resume is not None
        confirm = {"step": "confirm", "session": 1, "connection": number, "resumed": resumed, "acks": acks}
        say(confirm, "rolecall link dialler")
        established = msgpack.decode(self.read()[0])
        assert established["step"] == "established", established
        self.acks: list[int] = established["acks"]

    def write(self, segments: list[bytes]) -> None:
        self.outgoing.put(link_pb2.Chunk(segments=segments))

    def read(self) -> list[bytes]:
        return list(next(self.answers).segments)


def proof(label: str, said: list[bytes]) -> bytes:
    parts = [label.encode(), *said]
    return hmac.digest(SECRET, b"".join(struct.pack(">Q", len(part)) + part for part in parts), "sha256")


class Session:
    """What outlives a connection: numbers, what is not acknowledged, and what has come."""

    def __init__(self) -> None:
        self.connections = 1
        self.received = [0, 0, 0]
        self.kept: dict[int, list[tuple[int, Any, list[bytes]]]] = {CONTROL: [], NORMAL: [], BULK: []}
        self.numbers = {CONTROL: 0, NORMAL: 0, BULK: 0}
        self.opened: tuple[Any, list[int]] | None = None
        self.pieces = b""
        self.connection = Connection(None)

    def send(self, lane: int, entry: list[Any], payload: list[bytes]) -> None:
        number = self.numbers[lane]
        self.numbers[lane] += 1
        self.kept[lane].append((number, entry, payload))
        self._write(lane, number, entry, payload)

    def _write(self, lane: int, number: int, entry: list[Any], payload: list[bytes]) -> None:
        head = [self.received, [[lane, number, [entry]]]]
        self.connection.write([msgpack.encode(head), *payload])

    def resume(self) -> None:
        """Cut the connection, and go on with another."""
        self.connection.channel.close()
        self.connection = Connection((self.connections, self.received))
        self.connections += 1
        self._acknowledged(self.connection.acks)
        for lane, kept in self.kept.items():
            for number, entry, payload in kept:
                self._write(lane, number, entry, payload)

    def _acknowledged(self, acks: list[int]) -> None:
        for lane, count in zip((CONTROL, NORMAL, BULK), acks, strict=True):
            self.kept[lane] = [kept for kept in self.kept[lane] if kept[0] >= count]

    def frames(self) -> Iterator[tuple[Any, list[bytes]]]:
        """Yield frames with their payloads as they come; acknowledge each chunk."""
        while True:
            head, *payload = self.connection.read()
            acks, batches = msgpack.decode(head)
            self._acknowledged(acks)
            found = []
            for lane, first, entries in batches:
                for number, entry in enumerate(entries, first):
                    mine, payload = payload[: entry[0]], payload[entry[0] :]
                    if lane == 0:
                        self._about_connection(entry[1])
                    elif number == self.received[lane - 1]:
                        self.received[lane - 1] += 1
                        found += self._entry(entry, mine)
                    else:
                        assert number < self.received[lane - 1]
            if any(lane for lane, *_ in batches):
                self.connection.write([msgpack.encode([self.received, []])])
            yield from found

    def _about_connection(self, frame: list[Any]) -> None:
        if frame[0] == 30:
            self.connection.write([msgpack.encode([self.received, [[0, 0, [[0, [31, frame[1]]]]]]])])

    def _entry(self, entry: list[Any], payload: list[bytes]) -> list[tuple[Any, list[bytes]]]:
        if entry[1] is not None and len(entry) < 4:
            return [(entry[1], payload)]
        if entry[1] is not None:
            self.opened, self.pieces = (entry[1], entry[3]), b""
            return []
        assert self.opened is not None
        self.pieces += b"".join(payload)
        frame, sizes = self.opened
        if len(self.pieces) < sum(sizes):
            return []
        ends = [sum(sizes[: n + 1]) for n in range(len(sizes))]
        return [(frame, [self.pieces[end - size : end] for size, end in zip(sizes, ends, strict=True)])]

    def until(self, kind: int, id_: int) -> tuple[Any, list[bytes]]:
        """Return the next frame of a kind that is about an id."""
        for frame, payload in self.frames():
            if frame[:2] == [kind, id_]:
                return frame, payload
            assert frame[0] != 3, frame
        raise AssertionError("the link has ended")


def array(values: bytes) -> list[bytes]:
    """Return arguments with an array of float32."""
    header = msgpack.encode([1, "float32", [len(values) // 4]])
    return [msgpack.encode([[msgpack.Ext(2, header)]]), values]


def floats(payload: list[bytes]) -> tuple[float, ...]:
    extension = msgpack.decode(payload[0])
    segment, dtype, shape = msgpack.decode(extension.data)
    assert (extension.code, dtype) == (2, "float32")
    return struct.unpack(f"<{shape[0]}f", payload[segment])


def call(id_: int, channel: str, order: int, *more: Any) -> list[Any]:
    return [1, id_, "a/doubler", channel, "x/probe", order, *more]


def main() -> None:
    session = Session()

    # a call with an array, and its reply
    session.send(NORMAL, [2, call(1, "double", 0)], array(struct.pack("<2f", 1, 2)))
    assert floats(session.until(2, 1)[1]) == (2, 4)

    # a large one in pieces, under credit; the reply comes so too
    sent = array(struct.pack("<300000f", *range(300_000)))
    data = b"".join(sent)
    pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
    session.send(BULK, [0, call(2, "double", 1), [], [len(part) for part in sent]], [])
    for piece in pieces:
        while sum(len(part) for _, _, payload in session.kept[BULK] for part in payload) + len(piece) > CREDIT:
            acks = msgpack.decode(session.connection.read()[0])[0]
            session._acknowledged(acks)
        session.send(BULK, [1, None], [piece])
    assert floats(session.until(2, 2)[1])[-2:] == (599_996, 599_998)

    # a stream: two items may come at first, and one more for each that was taken
    session.send(NORMAL, [1, call(3, "count", 0, None, [], "stream", 2)], [msgpack.encode([[5]])])
    items = []
    for frame, payload in session.frames():
        if frame == [10, 3]:
            items.append(msgpack.decode(payload[0]))
            session.send(CONTROL, [0, [11, 3, 1]], [])
        elif frame == [2, 3]:
            break
    assert items == [0, 1, 2, 3, 4], items

    # an error says what and where
    session.send(NORMAL, [1, call(4, "fail", 0)], [msgpack.encode([[]])])
    failed = next(frame for frame, _ in session.frames() if frame[:2] == [3, 4])
    assert failed[2][1] == "no such thing" and "a/doubler.fail" in failed[2][4], failed

    # the connection is cut: what was sent comes once, and its answer too
    for id_, order in ((5, 2), (6, 3)):
        session.send(NORMAL, [2, call(id_, "double", order)], array(struct.pack("<1f", id_)))
    session.resume()
    session.send(NORMAL, [2, call(7, "double", 4)], array(struct.pack("<1f", 7)))
    replies = []
    for frame, payload in session.frames():
        replies.append((frame[1], floats(payload)))
        if frame == [2, 7]:
            break
    assert replies == [(5, (10,)), (6, (12,)), (7, (14,))], replies

    session.connection.write([msgpack.encode([session.received, [[0, 0, [[0, [32, "that was all"]]]]]])])
    with contextlib.suppress(grpc.RpcError):  # the connection ends with the stream
        for _ in session.connection.answers:
            pass
    sys.stdout.write("fine\n")


main()
