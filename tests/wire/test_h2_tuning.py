"""The short way for DATA frames counts as h2 does; when a new h2 or grpclib counts differently, this fails."""

from __future__ import annotations

import inspect
import random
from collections.abc import Sequence
from typing import Any

import grpclib.protocol
import h2.connection
import pytest
from grpclib.config import Configuration
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, RequestReceived
from h2.exceptions import ProtocolError
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.wire.h2_tuning import (
    FRAME_BYTES,
    WINDOW_BYTES,
    FrameReader,
    FrameWriter,
    TunedConnection,
    TunedProtocol,
    configuration,
)

HEADERS = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "x")]


class Wire:
    """Takes the place of a transport."""

    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> None:
        self.written += data

    def writelines(self, parts: Sequence[bytes]) -> None:
        self.written += b"".join(parts)


def tuned(client: bool) -> H2Connection:
    """Return an h2 connection set up as `TunedProtocol` does it."""
    config = H2Configuration(client_side=client, header_encoding="ascii")

    class Transport(Wire):
        def get_extra_info(self, name: str) -> None:
            return None

    class Handler:
        def close(self) -> None:
            pass

    protocol = TunedProtocol(Handler(), configuration(), config)  # type: ignore[arg-type]
    protocol.connection_made(Transport())  # type: ignore[arg-type]
    h2 = protocol.connection._connection
    h2.clear_outbound_data_buffer()
    return h2


def connected() -> tuple[H2Connection, H2Connection]:
    """Return a client and a server that have exchanged their settings, with stream 1 open."""
    client, server = (H2Connection(H2Configuration(client_side=side)) for side in (True, False))
    for connection in (client, server):
        connection.initiate_connection()
        connection.increment_flow_control_window(WINDOW_BYTES - 65_535)
    client.update_settings({4: WINDOW_BYTES, 5: FRAME_BYTES})
    server.update_settings({4: WINDOW_BYTES, 5: FRAME_BYTES})
    for _ in range(2):
        server.receive_data(client.data_to_send())
        client.receive_data(server.data_to_send())
    client.send_headers(1, HEADERS)
    server.receive_data(client.data_to_send())
    return client, server


def windows(h2: H2Connection) -> tuple[int, ...]:
    """Return all that h2 counts."""
    stream = h2.streams[1]
    return (
        h2.outbound_flow_control_window,
        stream.outbound_flow_control_window,
        h2._inbound_flow_control_window_manager.current_window_size,
        stream._inbound_window_manager.current_window_size,
        h2.remote_flow_control_window(1),
        h2.local_flow_control_window(1),
    )


# --------------------------------------------------------------------------------------------------- reading


def messages() -> st.SearchStrategy[list[tuple[int, int]]]:
    return st.lists(st.tuples(st.sampled_from([0, 1, 5, 9, 16_384, 65_536]), st.integers(0, 2)), max_size=12)


@given(sizes=messages(), cuts=st.lists(st.integers(1, 40_000), min_size=1, max_size=8))
@settings(max_examples=60)
def test_it_reads_what_h2_reads_however_it_is_cut(sizes: list[tuple[int, int]], cuts: list[int]) -> None:
    client, plain = connected()
    _, direct = connected()
    reader = FrameReader(direct)
    reader._left = 0  # the preface has been read
    reader.direct.add(1)
    for i, (size, extra) in enumerate(sizes):
        client.send_data(1, bytes([i]) * size, pad_length=7 if extra == 1 else None)
        if extra == 2:
            client.ping(b"12345678")
    data = client.data_to_send()
    expected = plain.receive_data(data)
    found: list[Any] = []
    position = 0
    while position < len(data):
        step = cuts[len(found) % len(cuts)]
        found += reader.feed(data[position : position + step])
        position += step
    assert joined(found) == joined(expected)
    assert [type(event) for event in found if not isinstance(event, DataReceived)] == [
        type(event) for event in expected if not isinstance(event, DataReceived)
    ]
    assert flow(found) == flow(expected)
    assert windows(direct) == windows(plain)
    assert direct.data_to_send() == plain.data_to_send()


def joined(events: list[Any]) -> bytes:
    return b"".join(event.data for event in events if isinstance(event, DataReceived))


def flow(events: list[Any]) -> int:
    return sum(event.flow_controlled_length for event in events if isinstance(event, DataReceived))


def test_it_reads_from_the_very_beginning() -> None:
    client, server = H2Connection(), tuned(client=False)
    client.initiate_connection()
    client.send_headers(1, HEADERS)
    client.send_data(1, b"hello")
    reader = FrameReader(server)
    events = [event for byte in client.data_to_send() for event in reader.feed(bytes([byte]))]
    assert any(isinstance(event, RequestReceived) for event in events)
    assert joined(events) == b"hello"


def test_other_streams_are_left_to_h2() -> None:
    client, server = connected()
    reader = FrameReader(server)
    reader._left = 0
    client.send_data(1, b"hello")
    (event,) = reader.feed(client.data_to_send())
    assert type(event.data) is bytes


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (b"\x10\x00\x01\x00\x00\x00\x00\x00\x01", "kind 0 and 1,048,577 bytes"),
        (b"\x01\x00\x01\x01\x00\x00\x00\x00\x03", "kind 1 and 65,537 bytes"),
        (b"\x00\x00\x05\x00\x00\x00\x00\x00\x00hello", "non-zero"),
        (b"\x00\x00\x05\x00\x00\x00\x00\x00\x08hello", "2|8"),
        (b"\x00\x00\x05\x09\x00\x00\x00\x00\x01hello", "CONTINUATION"),
    ],
    ids=["long DATA", "long HEADERS", "DATA of stream 0", "DATA of a stream that never was", "CONTINUATION of nothing"],
)
def test_what_is_wrong_is_judged_by_h2(harm: bytes, problem: str) -> None:
    _, server = connected()
    reader = FrameReader(server)
    reader._left = 0
    reader.direct |= {0, 1, 8}
    with pytest.raises(ProtocolError, match=problem):
        reader.feed(harm)


def test_more_than_the_window_is_judged_by_h2() -> None:
    _, server = connected()
    reader = FrameReader(server)
    reader._left = 0
    reader.direct.add(1)
    frame = FRAME_BYTES.to_bytes(3, "big") + b"\0\0\0\0\0\x01" + bytes(FRAME_BYTES)
    for _ in range(WINDOW_BYTES // FRAME_BYTES):
        reader.feed(frame)
    with pytest.raises(ProtocolError, match="window"):
        reader.feed(frame)


def test_nothing_is_formatted_for_a_log(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(self: object) -> str:
        raise AssertionError("repr of a frame")

    client, server = connected()
    reader = FrameReader(server)
    reader._left = 0
    reader.direct.add(1)
    client.send_data(1, b"hello")
    monkeypatch.setattr("hyperframe.frame.DataFrame.__repr__", explode)
    assert joined(reader.feed(client.data_to_send())) == b"hello"


# --------------------------------------------------------------------------------------------------- writing


@given(st.lists(st.lists(st.integers(0, 50_000), min_size=1, max_size=5), min_size=1, max_size=5))
@settings(max_examples=40)
def test_it_writes_what_h2_writes(messages: list[list[int]]) -> None:
    plain, server = connected()
    direct, _ = connected()
    wire = Wire()
    writer = FrameWriter(direct, wire, 1)  # type: ignore[arg-type]
    chance = random.Random(0)
    for sizes in messages:
        parts: list[Any] = [chance.randbytes(size) for size in sizes]
        if sum(sizes):
            plain.send_data(1, b"".join(parts))
        writer.write([memoryview(part) for part in parts], sum(sizes))
    expected = plain.data_to_send()
    assert bytes(wire.written) == expected
    assert windows(direct) == windows(plain)
    assert not writer.waiting_bytes
    server.receive_data(bytes(wire.written))


def test_frames_are_as_large_as_allowed_and_the_window_is_kept() -> None:
    client, server = connected()
    wire = Wire()
    writer = FrameWriter(client, wire, 1)  # type: ignore[arg-type]
    payload = random.Random(0).randbytes(WINDOW_BYTES + 1_000_000)
    writer.write([b"head", payload], 4 + len(payload))
    assert writer.waiting_bytes == 1_000_004 and client.local_flow_control_window(1) == 0
    events = server.receive_data(bytes(wire.written))
    assert [len(event.data) for event in events] == [FRAME_BYTES] * 4
    wire.written.clear()
    writer.flush()
    assert not wire.written
    server.acknowledge_received_data(WINDOW_BYTES, 1)
    client.receive_data(server.data_to_send())
    writer.flush()
    assert not writer.waiting_bytes
    assert joined(events) + joined(server.receive_data(bytes(wire.written))) == b"head" + payload


def test_large_parts_are_not_joined() -> None:
    client, _ = connected()
    parts: list[Any] = []
    wire = Wire()
    wire.writelines = parts.extend  # type: ignore[method-assign,assignment]
    payload = bytes(300_000)
    FrameWriter(client, wire, 1).write([b"head", payload], 300_004)  # type: ignore[arg-type]
    assert parts[2] is payload


# ------------------------------------------------------------------------------------- what others are built on


def test_the_first_settings_ask_for_large_frames_and_windows() -> None:
    for client in (True, False):
        h2 = tuned(client)
        assert h2.local_settings.max_frame_size == h2.max_inbound_frame_size == FRAME_BYTES
        assert h2.local_settings.initial_window_size == WINDOW_BYTES
        assert h2.inbound_flow_control_window == WINDOW_BYTES
        assert h2.local_settings.max_concurrent_streams == 16


def test_h2_and_grpclib_have_what_is_replaced_here() -> None:
    """If this fails after an upgrade, read the new source of what is named, and then `h2_tuning`."""
    assert "repr(frame)" in inspect.getsource(h2.connection.H2Connection._receive_frame), "one reason is gone"
    feed = inspect.getsource(grpclib.protocol.Connection.feed)
    assert "return self._connection.receive_data(data)" in feed
    assert set(inspect.signature(grpclib.protocol.Connection.__init__).parameters) == {
        "self", "connection", "transport", "config",
    }  # fmt: skip
    made = inspect.getsource(grpclib.protocol.H2Protocol.connection_made)
    for step in ("_set_nodelay", "initiate_connection", "increment_flow_control_window", "EventsProcessor"):
        assert step in made
    received = inspect.getsource(grpclib.protocol.EventsProcessor.process_data_received)
    assert "stream.buffer.add(" in received
    assert "unacked_size" in inspect.getsource(grpclib.protocol.EventsProcessor.register)
    assert issubclass(TunedConnection, grpclib.protocol.Connection) and Configuration
