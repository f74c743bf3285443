from __future__ import annotations

import tracemalloc
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from rolecall.wire import (
    Acks,
    LimitExceeded,
    Limits,
    LinkOverflow,
    Malformed,
    Segment,
    Session,
    SessionLimits,
    chunk_decode,
    chunk_encode,
    decode,
    encode,
)
from rolecall.wire.frame_codec import fitting_error
from rolecall.wire.frames import (
    Call,
    Cancel,
    Cancelled,
    Credit,
    Ended,
    Event,
    Failed,
    Frame,
    Full,
    Heartbeat,
    Item,
    Put,
    Ready,
    Reply,
    Subscribe,
    Subscribed,
)

SMALL = SessionLimits(
    bulk_bytes=100, piece_bytes=40, bulk_credit_bytes=100, ack_frames=4, ack_bytes=1_000, outbox_bytes=20_000
)
Got = list[tuple[Frame, list[bytes]]]


def call(order: int = 0, *, id: int | None = None, caller: str = "a/r") -> Call:
    return Call(order if id is None else id, "b/r", "f", caller, order)


def pair(limits: SessionLimits | None = None) -> tuple[Session, Session]:
    left, right = Session(limits, peer="right"), Session(limits, peer="left")
    left.connected(right.acks)
    right.connected(left.acks)
    return left, right


def write(session: Session) -> bytes | None:
    chunk = session.next_chunk()
    return None if chunk is None else chunk_encode(chunk)


def read(session: Session, buffer: bytes) -> Got:
    received = session.receive(chunk_decode(buffer))
    return [(frame, [bytes(segment) for segment in payload]) for frame, payload in received]


def flow(source: Session, target: Session) -> Got:
    """Carry everything across, and the acknowledgements back."""
    got: Got = []
    while True:
        forth, back = write(source), write(target)
        if forth is None and back is None:
            return got
        if forth is not None:
            got += read(target, forth)
        if back is not None:
            assert read(source, back) == []


def reconnect(left: Session, right: Session) -> None:
    left.disconnected()
    right.disconnected()
    left.connected(right.acks)
    right.connected(left.acks)


# ------------------------------------------------------------------------------------------- one connection


def test_a_frame_and_its_payload_arrive() -> None:
    left, right = pair()
    left.send(call(), [b"args", b"", memoryview(b"tensor")])
    assert flow(left, right) == [(call(), [b"args", b"", b"tensor"])]
    right.send(Reply(0))
    assert flow(right, left) == [(Reply(0), [])]
    assert left.next_chunk() is None


def test_what_is_ready_goes_into_one_chunk() -> None:
    left, right = pair()
    for i in range(100):
        left.send(call(i), [b"x" * i])
    buffer = write(left)
    assert buffer is not None and left.next_chunk() is None
    assert read(right, buffer) == [(call(i), [b"x" * i]) for i in range(100)]


def test_a_chunk_is_about_as_long_as_wanted() -> None:
    left, right = pair()
    for i in range(20):
        left.send(call(i), [b"x" * 1_000])
    sizes, got = [], []
    while (chunk := left.next_chunk(5_000)) is not None:
        sizes.append(sum(map(len, chunk)))
        got += read(right, chunk_encode(chunk))
    assert max(sizes) <= 5_000 and len(sizes) == 5
    assert [frame for frame, _ in got] == [call(i) for i in range(20)]


def test_one_frame_may_be_larger_than_a_chunk_should_be() -> None:
    left, right = pair()
    left.send(call(0), [b"x" * 1_000])
    left.send(call(1), [b"x" * 1_000])
    first, second = left.next_chunk(10), left.next_chunk(10)
    assert first is not None and second is not None and left.next_chunk(10) is None
    assert read(right, chunk_encode(first)) == [(call(0), [b"x" * 1_000])]


def test_control_goes_before_normal_and_normal_before_bulk() -> None:
    left, right = pair()
    big = [b"x" * (1 << 20)]
    sent: list[tuple[Frame, list[bytes]]] = [
        (Put(1, "b/r", "i", "a/r", 0), big),
        (call(), []),
        (Ready("b", "f", "a"), []),
    ]
    for frame, payload in sent:
        left.send(frame, payload)
    left.send(Call(9, "b/node", "stop", "a/node", 0), urgent=True)
    left.send(Heartbeat(1.5))
    got = [frame for frame, _ in flow(left, right)]
    assert got == [Heartbeat(1.5), sent[2][0], Call(9, "b/node", "stop", "a/node", 0), sent[1][0], sent[0][0]]


def test_tensors_are_passed_through_uncopied() -> None:
    left, right = pair()
    for size in (1_000, 1_000_000):
        array = np.arange(size, dtype=np.float32)
        left.send(call(), encode(array))
        chunk: list[Segment] = []
        while (some := left.next_chunk()) is not None:
            chunk += some
            for acknowledging in (right.receive(chunk_decode(chunk_encode(some))), right.next_chunk()):
                if acknowledging and isinstance(acknowledging[0], bytes):
                    left.receive(chunk_decode(chunk_encode(acknowledging)))
        raw = [np.frombuffer(segment, np.uint8) for segment in chunk if len(segment) > 900]
        assert raw and all(np.shares_memory(array, part) for part in raw if len(part) > 1_500)


def test_payloads_are_read_only_and_aligned() -> None:
    left, right = pair()
    arrays = [np.arange(n, dtype=np.float64) for n in (100, 3, 200_000, 7, 100_000)]
    for value in (arrays[0], arrays):
        left.send(Put(1, "b/r", "i", "a/r", 0), encode(value))
        received: list[Any] = []
        while (chunk := left.next_chunk()) is not None:
            received += right.receive(chunk_decode(chunk_encode(chunk)))
            if (back := right.next_chunk()) is not None:
                left.receive(chunk_decode(chunk_encode(back)))
        ((_, payload),) = received
        assert all(segment.readonly for segment in payload)
        for segment in payload[1:]:
            assert np.frombuffer(segment, np.uint8).ctypes.data % 16 == 0
        again = decode(payload)
        np.testing.assert_equal(again, value)


def test_nothing_is_sent_without_a_connection() -> None:
    left, right = Session(), Session()
    left.send(call())
    assert left.next_chunk() is None and left.queued_bytes > 0
    left.connected(right.acks)
    right.connected(left.acks)
    assert len(flow(left, right)) == 1
    left.disconnected()
    left.send(call(1))
    assert left.next_chunk() is None


# ------------------------------------------------------------------------------------------ acknowledgements


def test_acknowledgements_travel_with_what_goes_anyway() -> None:
    left, right = pair()
    left.send(call())
    read(right, write(left) or b"")
    assert not left.idle and right.next_chunk() is None
    right.send(Heartbeat(1.0))
    assert read(left, write(right) or b"") == [(Heartbeat(1.0), [])]
    assert left.idle and left.unacknowledged == 0 and left.kept_bytes == 0


def test_many_frames_or_bytes_are_acknowledged_by_themselves() -> None:
    left, right = pair(SessionLimits(ack_frames=3, ack_bytes=1_000))
    for payload, needed in ([b"x"], 3), ([b"x" * 600], 2):
        for i in range(needed):
            assert right.next_chunk() is None
            left.send(call(i), payload)
            read(right, write(left) or b"")
        assert read(left, write(right) or b"") == [] and left.idle
        assert right.next_chunk() is None


def test_an_acknowledgement_can_be_asked_for() -> None:
    left, right = pair()
    right.ack_soon()
    assert right.next_chunk() is None  # there is nothing to acknowledge
    left.send(call())
    read(right, write(left) or b"")
    right.ack_soon()
    assert read(left, write(right) or b"") == [] and left.idle


def test_acknowledgements_are_not_acknowledged() -> None:
    left, right = pair(SMALL)
    for i in range(20):
        left.send(call(i), [b"x" * 500])
    flow(left, right)
    for _ in range(3):
        left.send(Heartbeat(0.0))
        read(right, write(left) or b"")
        assert right.next_chunk() is None


# ---------------------------------------------------------------------------------------------- reconnecting


def test_what_was_lost_is_sent_again_and_what_was_not_comes_once() -> None:
    left, right = pair()
    for i in range(10):
        left.send(call(i))
        buffer = write(left) or b""
        if i < 6:
            assert read(right, buffer) == [(call(i), [])]
    reconnect(left, right)
    assert left.statistics.entries_resent == 10 - 6  # what the other side has is not even sent
    assert [frame for frame, _ in flow(left, right)] == [call(i) for i in range(6, 10)]


def test_duplicates_are_dropped_with_their_payload() -> None:
    left, right = pair(SMALL)
    left.send(call(0), [b"0" * 50, b"1"])
    left.send(call(1), [b"2"])
    buffer = write(left) or b""
    assert len(read(right, buffer)) == 2
    assert read(right, buffer) == [] and right.statistics.duplicates == 2
    left.send(call(2), [b"3"])
    assert read(right, write(left) or b"") == [(call(2), [b"3"])]


def test_acknowledged_on_an_earlier_connection() -> None:
    """What arrives late, by a connection that is being replaced, counts."""
    left, right = pair(SMALL)
    left.send(call(0), [b"x" * 300])
    left.send(call(0, id=1, caller="a/other"))
    late = [write(left), write(left)]
    acks = right.acks
    left.connected(acks)  # before the other side has read what was sent
    for buffer in late:
        read(right, buffer or b"")
    left.connected(right.acks)  # and again, with nothing sent in between
    right.connected(left.acks)
    assert [frame for frame, _ in flow(left, right)] == [call(0)]
    assert left.idle


def test_a_chunk_that_comes_again_whole_changes_nothing() -> None:
    left, right = pair()
    buffers = []
    for i in range(3):
        left.send(call(i), [b"x"])
        buffers.append(write(left) or b"")
    for buffer in (*buffers[:2], buffers[0]):
        got = read(right, buffer)
    assert got == [] and right.acks == Acks(0, 2, 0)
    assert read(right, buffers[2]) == [(call(2), [b"x"])]


def test_heartbeats_are_not_kept() -> None:
    left, right = pair()
    left.send(Heartbeat(1.0))
    reconnect(left, right)
    assert left.next_chunk() is None and left.idle


@pytest.mark.parametrize("acks", [Acks(1, 0, 0), Acks(0, 3, 0), Acks(0, 0, 1), Acks(0, 2**62, 0)])
def test_a_peer_cannot_have_received_what_was_never_sent(acks: Acks) -> None:
    left, right = pair()
    for i in range(2):
        left.send(call(i))
    flow(left, right)
    left.send(call(2))
    left.disconnected()
    with pytest.raises(Malformed, match=r"acknowledges .* has been sent"):
        left.connected(acks)


def test_a_peer_cannot_forget() -> None:
    left, right = pair(SMALL)
    for i in range(4):
        left.send(call(i))
    flow(left, right)
    with pytest.raises(Malformed, match="acknowledges 3 entries of lane 2, where it had acknowledged 4"):
        left.connected(Acks(0, 3, 0))


def test_a_session_that_met_nonsense_is_over() -> None:
    left, right = pair()
    with pytest.raises(Malformed, match="without segments"):
        right.receive([])
    left.send(call())
    with pytest.raises(Malformed, match="without segments"):
        read(right, write(left) or b"")
    with pytest.raises(Malformed, match="without segments"):
        right.connected(left.acks)


# ------------------------------------------------------------------------------------------------------ bulk


def test_a_large_payload_goes_in_pieces_under_credit() -> None:
    left, right = pair(SMALL)
    payload = [bytes(range(256)), b"", b"y" * 77, b"z"]
    left.send(call(), payload)
    first = [left.next_chunk() for _ in range(6)]
    assert [sum(map(len, chunk[1:])) for chunk in first if chunk] == [40, 40]  # and no third within 100
    got: Got = []
    for chunk in first:
        if chunk:
            got += read(right, chunk_encode(chunk))
    assert got == []
    read(left, write(right) or b"")
    assert flow(left, right) == [(call(), payload)]
    assert left.idle and left.kept_bytes == 0 and left.queued_bytes == 0


def test_small_frames_overtake_large_ones_of_others() -> None:
    left, right = pair(SMALL)
    left.send(call(0, caller="a/slow"), [b"x" * 1_000])
    for i in range(5):
        left.send(call(i, id=i + 1, caller="a/quick"), [b"y"])
    got = [frame.caller for frame, _ in flow(left, right) if isinstance(frame, Call)]
    assert got == ["a/quick"] * 5 + ["a/slow"]


BIG, LITTLE = [b"x" * 1_000], [b"y"]
FLOWS: list[list[tuple[Frame, list[bytes]]]] = [
    [(call(0), BIG), (call(1), LITTLE), (call(2), BIG), (call(3), [])],
    [(call(7), BIG), (Cancel(7), [])],
    [(Item(1), LITTLE), (Item(1), BIG), (Item(1), LITTLE), (Ended(1), [])],
    [(Subscribed(1), []), (Event(1), BIG), (Event(1), LITTLE)],
    [(Reply(3), BIG), (Cancelled(3), [])],
    [(Put(i, "b/r", "i", "a/r", i), BIG if i % 2 else LITTLE) for i in range(5)],
]


@pytest.mark.parametrize("frames", FLOWS)
def test_what_belongs_together_keeps_its_order(frames: list[tuple[Frame, list[bytes]]]) -> None:
    left, right = pair(SMALL)
    for frame, payload in frames:
        left.send(frame, payload)
    assert flow(left, right) == frames


def test_a_large_frame_never_arrives_before_small_ones_of_its_own() -> None:
    left, right = pair(msgspec.structs.replace(SMALL, outbox_bytes=100_000))
    for i in range(150):
        left.send(call(i), [b"y"])
    left.send(call(150), [b"x" * 500])
    got: Got = []
    pieces = 0
    while len(got) < 151:  # the large one gets its turns, and has but its last piece left to send
        chunk = left.next_chunk(10)
        assert chunk is not None
        got += read(right, chunk_encode(chunk))
        if (back := write(right)) is not None:
            pieces += len(got) < 150
            read(left, back)
    assert [frame for frame, _ in got] == [call(i) for i in range(151)] and pieces > 12


def arrive(left: Session, right: Session) -> None:
    flow(left, right)


def arrive_late(left: Session, right: Session) -> None:
    late = []
    while (buffer := write(left)) is not None:
        late.append(buffer)
    left.connected(right.acks)
    for buffer in late:
        read(right, buffer)
    left.connected(right.acks)
    flow(left, right)


def is_withdrawn(left: Session, right: Session) -> None:
    read(right, write(left) or b"")
    assert left.withdraw(0)
    flow(left, right)


@pytest.mark.parametrize("end", [arrive, arrive_late, is_withdrawn])
def test_what_has_ended_on_the_bulk_lane_holds_nothing_up(end: Callable[[Session, Session], None]) -> None:
    left, right = pair(msgspec.structs.replace(SMALL, bulk_credit_bytes=200))
    left.send(call(0), [b"x" * 190])
    end(left, right)
    assert left.idle
    left.send(call(0, id=1, caller="a/slow"), BIG)
    left.send(call(1, id=2))
    assert [frame.id for frame, _ in flow(left, right) if isinstance(frame, Call)] == [2, 1]


def test_resuming_a_large_payload_does_not_start_over() -> None:
    left, right = pair(SMALL)
    payload = [bytes(i % 251 for i in range(2_000))]
    left.send(call(), payload)
    got: Got = []
    written = 0
    while not got:
        for _ in range(3):
            if (buffer := write(left)) is not None:
                written += 1
                got += read(right, buffer)
            if (back := write(right)) is not None:
                read(left, back)
        if (lost := write(left)) is not None:
            written += 1
            assert lost
        reconnect(left, right)
    assert got == [(call(), payload)] and written < 90


def test_bulk_is_not_starved_by_small_frames() -> None:
    left, right = pair(SMALL)
    left.send(call(0, caller="a/slow"), [b"x" * 1_000])
    for order in range(500):
        left.send(call(order, id=order + 1, caller="a/quick"))
        for frame, _payload in read(right, write(left) or b""):
            if isinstance(frame, Call) and frame.caller == "a/slow":
                return
        if (back := write(right)) is not None:
            read(left, back)
    pytest.fail("the large frame never arrived")


def test_control_waits_for_no_more_than_the_credit() -> None:
    left, _ = pair()
    left.send(call(), [bytes(8 << 20)])
    ahead = 0
    while (chunk := left.next_chunk()) is not None:  # until the credit is used up
        ahead += sum(map(len, chunk))
    left.send(Credit(5, 1))
    left.send(call(1, id=2, caller="a/other"))
    chunk = left.next_chunk()
    assert chunk is not None and sum(map(len, chunk)) < 200
    assert ahead < left.limits.bulk_credit_bytes + 200


def test_many_small_segments() -> None:
    left, right = pair()
    payload = [b"x"] * 5_000 + [b""] * 5_000
    left.send(call(), payload)
    left.send(call(1), [b""] * 2_000)
    assert flow(left, right) == [(call(), payload), (call(1), [b""] * 2_000)]


def test_a_large_payload_takes_its_memory_once() -> None:
    left, right = pair()
    size = 16 << 20
    left.send(call(), [memoryview(np.ones(size, np.uint8))])
    tracemalloc.start()
    try:
        received: list[Any] = []
        while not received:
            received += right.receive(chunk_decode(chunk_encode(left.next_chunk() or [])))
            if (back := right.next_chunk()) is not None:
                left.receive(chunk_decode(chunk_encode(back)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size <= peak < 1.1 * size


def test_a_withdrawn_call_never_arrives() -> None:
    left, right = pair(SMALL)
    left.send(call(0), [b"x" * 1_000])
    left.send(call(1), [b"y" * 1_000])
    left.send(call(2), [b"z"])
    read(right, write(left) or b"")
    assert left.withdraw(0) and not left.withdraw(0)  # it is under way
    assert left.withdraw(1) and not left.withdraw(17)  # it waits
    assert flow(left, right) == [(call(2), [b"z"])]
    assert left.idle and left.kept_bytes == 0
    left.send(call(3), [b"w" * 1_000])
    assert flow(left, right) == [(call(3), [b"w" * 1_000])]
    assert not left.withdraw(3)


# ---------------------------------------------------------------------------------------------------- limits


def test_too_much_waiting_is_an_error_that_says_so() -> None:
    left, right = pair(SessionLimits(outbox_frames=10))
    for i in range(10):
        left.send(call(i))
    with pytest.raises(LinkOverflow, match=r"link to right holds 10 frames.*outbox_frames"):
        left.send(call(10))
    left.send(Full(1))  # another lane
    assert len(flow(left, right)) == 11
    right.ack_soon()
    flow(left, right)
    left.send(call(10))


def test_too_many_bytes_waiting() -> None:
    left, right = pair(SMALL)
    left.send(call(0), [b"x" * 100_000])  # one may be larger
    for frame, allowed in ((call(1), "20,000"), (call(0, caller="a/other"), "20,000"), (Reply(1), "40,000")):
        assert not left.has_room
        with pytest.raises(LinkOverflow, match=rf"100,\d\d\d bytes.* {allowed} .*outbox_bytes"):
            left.send(frame, [b""])
    left.send(Ready("b", "f", "a"))  # control passes
    assert len(flow(left, right)) == 2
    assert left.has_room
    left.send(call(1))


def test_results_find_more_room_than_calls_and_all_else_still_more() -> None:
    left, right = pair(SMALL)
    left.send(call(0), [b"x" * 30_000])
    left.send(Reply(1), [b"y" * 20_000])
    for frame in (Reply(2), Item(2), call(1)):
        with pytest.raises(LinkOverflow):
            left.send(frame, [b""])
    left.send(Cancelled(3))
    left.send(Cancel(4), [b"z" * 10_000])
    with pytest.raises(LinkOverflow, match=r"60,000"):
        left.send(Cancelled(5))
    assert len(flow(left, right)) == 4


def test_queued_bytes_fall_as_they_are_sent() -> None:
    left, right = pair(SMALL)
    assert left.queued_bytes == 0
    left.send(call(0), [b"x" * 90])
    left.send(call(0, id=1, caller="a/o"), [b"x" * 500])
    before = left.queued_bytes
    assert 590 < before < 1_500
    left.next_chunk()
    left.next_chunk()
    assert left.queued_bytes == 460 and left.kept_bytes == before
    reconnect(left, right)
    assert left.queued_bytes == before


def test_messages_the_other_side_would_refuse() -> None:
    left, right = pair(SessionLimits(wire=Limits(message_bytes=1 << 20, segments=2_000)))
    for compress in (False, True):
        with pytest.raises(LimitExceeded, match="message_bytes"):
            left.send(call(), [bytes(1 << 20), b"x"], compress=compress)
    with pytest.raises(LimitExceeded, match="segments"):
        left.send(call(), [b""] * 2_001)
    with pytest.raises(Malformed, match="remaining_s"):
        left.send(Call(1, "r", "f", "c", 0, float("inf")))
    assert left.idle and left.next_chunk() is None
    left.send(call())
    assert flow(left, right) == [(call(), [])]


def test_statistics() -> None:
    left, right = pair(SMALL)
    left.send(call(), [b"x" * 101])
    flow(left, right)
    reconnect(left, right)
    assert left.statistics == (2, 4, 0, 0, 0, 0, 0)
    assert right.statistics._asdict() == {
        "connections": 2,
        "entries_sent": 0,
        "entries_resent": 0,
        "entries_received": 4,
        "duplicates": 0,
        "queued_bytes": 0,
        "unacknowledged": 0,
    }


# ----------------------------------------------------------------------------------------------- compression


@pytest.mark.parametrize("size", [10, 1_000, 300_000])
def test_compression_by_choice(size: int) -> None:
    left, right = pair()
    payload = [b"compress me " * size, b"tiny", np.random.default_rng(1).bytes(size), b""]
    left.send(call(0), payload, compress=True)
    assert left.kept_bytes < 0.2 * sum(map(len, payload[:1])) + size + 1_000
    assert flow(left, right) == [(call(0), payload)]


def test_never_by_default() -> None:
    left, _ = pair()
    left.send(call(), [b"a" * 10_000])
    assert left.kept_bytes > 10_000


def test_compressed_payloads_in_many_pieces() -> None:
    left, right = pair(SMALL)
    payload = [np.arange(500, dtype=np.int32).tobytes(), b"x" * 10_000, b"y" * 50]
    left.send(call(), payload, compress=True)
    assert flow(left, right) == [(call(), payload)]


def zstd(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor().compress(data)


def without_size(data: bytes) -> bytes:
    import zstandard

    return zstandard.ZstdCompressor(write_content_size=False).compress(data)


def test_large_payloads_are_not_compressed_in_the_way_of_others() -> None:
    left, right = pair(SessionLimits(wire=Limits(packed_bytes=10_000)))
    left.send(call(), [bytes(9_990), b"x"], compress=True)
    with pytest.raises(LimitExceeded, match="packed_bytes"):
        left.send(call(1), [bytes(10_000), b"x"], compress=True)
    assert len(flow(left, right)) == 1
    with pytest.raises(LimitExceeded, match="packed_bytes"):
        right.receive(chunk_of([2, 1, [[1, [2, 1], [10_001]]]], payload=[zstd(bytes(10_001))]))


def chunk_of(*batches: Any, acks: Any = (0, 0, 0), payload: Iterable[bytes] = ()) -> list[memoryview]:
    return [memoryview(msgspec.msgpack.encode([acks, batches])), *map(memoryview, payload)]


BOMB = zstd(bytes(1 << 20))


@pytest.mark.parametrize(
    ("unpacked", "payload", "message"),
    [
        ([1 << 20], [BOMB], "message_bytes"),
        ([2**62], [BOMB], "message_bytes"),
        ([1_000], [BOMB], "should unpack to 1,000 bytes, and says 1,048,576"),
        ([1_000], [without_size(bytes(1_000))], "should unpack to 1,000 bytes, and says"),
        ([1_000], [zstd(bytes(1_000))[:-1]], "damaged"),
        ([1_000], [zstd(bytes(1_000)) + b"x"], "damaged"),
        ([1_000], [b"nonsense"], "damaged"),
        ([1_000], [b""], "damaged"),
        ([1_000, 0], [zstd(bytes(1_000))], "1 segments, and the unpacked sizes of 2"),
    ],
)
def test_what_is_badly_compressed(unpacked: list[int], payload: list[bytes], message: str) -> None:
    _, right = pair(SessionLimits(wire=Limits(message_bytes=100_000)))
    tracemalloc.start()
    try:
        with pytest.raises(Malformed, match=message):
            right.receive(chunk_of([2, 0, [[len(payload), [2, 1], unpacked]]], payload=payload))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000


# ------------------------------------------------------------------------------- what keeps to no protocol

REPLY = [2, 1]


@pytest.mark.parametrize(
    ("chunk", "message"),
    [
        ([memoryview(b"")], "first segment.*truncated"),
        ([memoryview(b"\x92")], "first segment"),
        ([memoryview(b"\xc1")], "first segment"),
        ([memoryview(b"\x92\x93\x00\x00\x00\xdd\xff\xff\xff\xff")], "first segment"),
        ([memoryview(b"\x91" * 100_000)], "first segment"),
        ([memoryview(bytes(2 << 20))], "bytes of a chunk's first segment"),
        (chunk_of([2, 0, [[0, [99, 1]]]]), "Invalid value 99"),
        (chunk_of([2, 0, [[0, [2, "x"]]]]), "Expected `int`"),
        (chunk_of([4, 0, []]), "first segment"),
        (chunk_of([2, -1, []]), "first segment"),
        (chunk_of([2, 2**64 - 1, []]), "first segment"),
        (chunk_of([2, 0, [[-1, REPLY]]]), "first segment"),
        (chunk_of(acks=(1, 0, 0)), "acknowledges 1 entries of lane 1"),
        (chunk_of(acks=(0, 0, 2**63 - 1)), "acknowledges"),
        (chunk_of([2, 1, [[0, REPLY]]]), "Lane 2: entry 1 came, where 0 is the next"),
        (chunk_of([2, 2**63 - 1, []]), "Lane 2: entry 9,223"),
        (chunk_of([2, 0, [[1, REPLY]]]), "0 segments of payload, where its head says 1"),
        (chunk_of([2, 0, [[0, REPLY]]], payload=[b"x"]), "1 segments of payload, where its head says 0"),
        (chunk_of(payload=[b"x"]), "1 segments of payload"),
        (chunk_of([2, 0, [[1, None]]], payload=[b"x"]), "pieces came on lane 2"),
        (chunk_of([0, 0, [[0, REPLY, [], [5]]]]), "pieces came on lane 0"),
        (chunk_of([3, 0, [[1, None]]], payload=[b"x"]), "belongs to no frame"),
        (chunk_of([3, 0, [[0, None]]]), "belongs to no frame"),
        (chunk_of([3, 0, [[0, REPLY, [], [5]], [0, REPLY, [], [5]]]]), "before the one before it was complete"),
        (chunk_of([3, 0, [[1, REPLY, [], [5]]]], payload=[b"x"]), "segments of its own"),
        (chunk_of([3, 0, [[0, REPLY, [], [5]], [1, None]]], payload=[b"x" * 6]), "piece of 6 bytes came, where 5"),
        (chunk_of([3, 0, [[0, REPLY, [], [5]], [1, None]]], payload=[b""]), "piece of 0 bytes"),
        (chunk_of([3, 0, [[0, REPLY, [], [2**62]]]]), "message_bytes"),
        (chunk_of([3, 0, [[0, REPLY, [], [2**31, 2**31, 2**31]]]]), "message_bytes"),
        (chunk_of([3, 0, [[0, REPLY, [2**62], [5]]]]), "message_bytes"),
        (chunk_of([3, 0, [[0, REPLY, [5, 5], [5]]]]), "1 segments, and the unpacked sizes of 2"),
        (chunk_of([3, 0, [[0, REPLY, [], [1] * 70_000]]]), "segments"),
        (chunk_of([2, 0, [[0, [3, 1, ["a:b", "m", {"x": [[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]}, "", ""]]]]]), "levels"),
        (
            chunk_of(
                [2, 0, [[0, [14, 1, "r", "t", "s", [["x", {"a": [[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]}]], 1, "wait"]]]]
            ),
            "levels",
        ),
    ],
)
def test_nonsense_is_refused_by_name(chunk: list[memoryview], message: str) -> None:
    _, right = pair()
    with pytest.raises(Malformed, match=message):
        right.receive(chunk)


def test_announced_memory_is_not_touched_before_it_comes() -> None:
    """A peer that announces much and sends nothing costs address space only, until `message_bytes`."""
    _, right = pair(SessionLimits(wire=Limits(message_bytes=1 << 30)))
    received = right.receive(chunk_of([3, 0, [[0, REPLY, [], [1 << 30]]]]))
    assert received == []


VALID: list[list[bytes]] = []


def record() -> None:
    left, right = pair(SMALL)
    left.send(call(0), [b"x" * 300, b"y"], compress=True)
    left.send(call(1), [np.random.default_rng(1).bytes(250), b"y"], compress=True)
    left.send(call(0, id=9, caller="a/other"), [b"abc", b"defg"])
    left.send(Failed(3, fitting_error("m:E", "message", {"a": [1, {"b": 2}]}, "trace", "where")))
    left.send(Subscribe(4, "b/r", "t", "a/r", [("loss__lt", 0.1)], 10, "latest"))
    left.send(Credit(1, 2))
    left.send(Heartbeat(2.5))
    while (chunk := left.next_chunk()) is not None:
        VALID.append([bytes(segment) for segment in chunk])
        right.receive([memoryview(segment) for segment in VALID[-1]])
        if (back := right.next_chunk()) is not None:
            left.receive([memoryview(segment) for segment in back])


record()
odd = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5)
)


def mutated_structure(data: st.DataObject, value: Any) -> Any:
    """Return the value with something in it replaced, dropped, doubled, or off by a little."""
    if isinstance(value, list) and value and data.draw(st.integers(0, 5)):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], mutated_structure(data, value[at]), *value[at + 1 :]]
    changes: list[Callable[[], Any]] = [lambda: data.draw(odd), list, lambda: [value, value]]
    if isinstance(value, int):
        changes += [lambda: value + data.draw(st.sampled_from([1, -1, 1 << 20, 1 << 40]))] * 4
    if isinstance(value, list):
        changes += [lambda: value[:-1], lambda: value + value, lambda: value[1:], lambda: value[::-1]]
    return data.draw(st.sampled_from(changes))()


def mutated_bytes(data: st.DataObject, raw: bytes) -> bytes:
    at = data.draw(st.integers(0, len(raw)))
    cut = data.draw(st.integers(0, 4))
    return raw[:at] + data.draw(st.binary(max_size=4)) + raw[at + cut :]


def mutate(data: st.DataObject, chunk: list[bytes]) -> list[bytes]:
    head, payload = chunk[0], list(chunk[1:])
    what = data.draw(st.integers(0, 5))
    if what <= 2:
        try:
            head = msgspec.msgpack.encode(mutated_structure(data, msgspec.msgpack.decode(head)))
        except OverflowError:
            return chunk
    elif what == 3:
        head = mutated_bytes(data, head)
    elif payload:
        at = data.draw(st.integers(0, len(payload) - 1))
        payload[at : at + 1] = [mutated_bytes(data, payload[at])] * data.draw(st.integers(0, 2))
    return [head, *payload]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_fuzz(data: st.DataObject) -> None:
    """Whatever comes, a session answers with a named error, and takes no more memory than its limits allow."""
    session = Session(SessionLimits(wire=Limits(message_bytes=50_000)))
    session.connected(Acks())
    hit = data.draw(st.integers(0, len(VALID) - 1))
    chunks = [
        mutate(data, chunk) if at == hit or not data.draw(st.integers(0, 6)) else chunk
        for at, chunk in enumerate(VALID)
    ]
    tracemalloc.start()
    try:
        for sent in chunks:
            try:
                session.receive([memoryview(segment) for segment in sent])
            except Malformed:
                break
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 2_000_000


# ------------------------------------------------------------------- connections that are cut anywhere

KINDS: dict[str, Callable[[int, int], Frame]] = {
    "call": lambda n, which: Call(n, "b/r", f"f{which}", "a/r", n),
    "put": lambda n, which: Put(n, "b/r", f"i{which}", "a/r", n),
    "item": lambda n, which: Item(which),
    "event": lambda n, which: Event(which),
    "credit": lambda n, which: Credit(which, n % 1_000),
}


class Cuts(RuleBasedStateMachine):
    """Two sessions, joined by a pipe that loses what is in it whenever it is cut."""

    @initialize()
    def start(self) -> None:
        self.sessions = [Session(SMALL), Session(SMALL)]
        self.pipes: list[deque[bytes]] = [deque(), deque()]  # towards 0 and 1
        self.sent: list[dict[tuple[str, int], list[bytes]]] = [defaultdict(list), defaultdict(list)]
        self.got: list[dict[tuple[str, int], list[bytes]]] = [defaultdict(list), defaultdict(list)]
        self.made = 0
        self.up = False
        self.connect()

    # ------------------------------------------------------------------------------------------------- sending

    @rule(
        side=st.integers(0, 1),
        kind=st.sampled_from(sorted(KINDS)),
        which=st.integers(0, 2),
        sizes=st.lists(st.sampled_from([0, 1, 30, 90, 101, 400]), max_size=3),
        compress=st.booleans(),
    )
    def send(self, side: int, kind: str, which: int, sizes: list[int], compress: bool) -> None:
        if kind == "credit":
            sizes = []
        mark = self.made.to_bytes(4, "big")
        payload = [mark, *[(mark * size)[:size] for size in sizes]]
        try:
            self.sessions[side].send(KINDS[kind](self.made, which), payload, compress=compress)
        except LinkOverflow:
            return
        self.sent[side][kind, which].append(b"|".join(payload))
        self.made += 1

    @rule(side=st.integers(0, 1), which=st.integers(0, 2), back=st.integers(1, 3))
    def withdraw(self, side: int, which: int, back: int) -> None:
        sent = self.sent[side]["call", which]
        if len(sent) >= back:
            number = int.from_bytes(sent[-back][:4], "big")
            if self.sessions[side].withdraw(number):
                del sent[-back]

    @rule(side=st.integers(0, 1))
    def beat(self, side: int) -> None:
        self.sessions[side].send(Heartbeat(0.0))

    # ---------------------------------------------------------------------------------------------- connections

    @precondition(lambda self: self.up)
    @rule(side=st.integers(0, 1), max_bytes=st.sampled_from([10, 300, 1 << 20]))
    def write(self, side: int, max_bytes: int) -> None:
        chunk = self.sessions[side].next_chunk(max_bytes)
        if chunk is not None:
            self.pipes[1 - side].append(chunk_encode(chunk))

    @precondition(lambda self: self.up)
    @rule(side=st.integers(0, 1), count=st.integers(1, 3))
    def read(self, side: int, count: int) -> None:
        for _ in range(min(count, len(self.pipes[side]))):
            self.take(side, self.pipes[side].popleft())

    @precondition(lambda self: self.up)
    @rule(late=st.integers(0, 3), side=st.integers(0, 1))
    def cut(self, late: int, side: int) -> None:
        """Cut the connection; one side may still read some of what is in the pipe."""
        self.up = False
        self.sessions[1 - side].disconnected()
        self.read(side, late)
        self.sessions[side].disconnected()
        for pipe in self.pipes:
            pipe.clear()

    @precondition(lambda self: not self.up)
    @rule()
    def connect(self) -> None:
        left, right = self.sessions
        hellos = left.acks, right.acks
        left.connected(hellos[1])
        right.connected(hellos[0])
        self.up = True

    @precondition(lambda self: self.up)
    @rule(side=st.integers(0, 1), late=st.integers(0, 3))
    def reconnect_with_late_data(self, side: int, late: int) -> None:
        """A new connection replaces one from which one side is still reading."""
        other = self.sessions[1 - side]
        acks = self.sessions[side].acks
        self.read(side, late)
        other.connected(acks)
        self.sessions[side].connected(other.acks)
        for pipe in self.pipes:
            pipe.clear()

    # -------------------------------------------------------------------------------------------------- checking

    def take(self, side: int, buffer: bytes) -> None:
        for frame, payload in self.sessions[side].receive(chunk_decode(buffer)):
            if isinstance(frame, Heartbeat):
                continue
            kind = type(frame).__name__.lower()
            text = getattr(frame, "channel", None) or getattr(frame, "inbox", None)
            which = int(text[1:]) if text else getattr(frame, "id", -1)
            got = self.got[side][kind, which]
            got.append(b"|".join(map(bytes, payload)))
            expected = self.sent[1 - side][kind, which]
            assert got[-1] == expected[len(got) - 1], "out of order, twice, or damaged"

    @invariant()
    def bounded(self) -> None:
        for session in getattr(self, "sessions", ()):
            assert 0 <= session.queued_bytes <= session.kept_bytes < SMALL.outbox_bytes + 2_000
            assert session.idle == (session.unacknowledged == 0)

    def teardown(self) -> None:
        if not hasattr(self, "sessions"):
            return
        if not self.up:
            self.connect()
        for _ in range(10_000):
            if not any(self.pipes) and all(session.idle for session in self.sessions):
                break
            for side in (0, 1):
                self.sessions[side].ack_soon()
                self.write(side, 1 << 20)
                self.read(side, 3)
        assert self.got == [self.sent[1], self.sent[0]] or self.compared() == []
        assert all(session.kept_bytes == 0 for session in self.sessions)

    def compared(self) -> list[Any]:
        """Return the flows that differ, those that were never used aside."""
        return [
            (side, key)
            for side in (0, 1)
            for key in {*self.got[side], *self.sent[1 - side]}
            if self.got[side][key] != self.sent[1 - side][key]
        ]


TestCuts = Cuts.TestCase
TestCuts.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_exactly_once_in_order_however_often_it_is_cut(seed: int, every: int) -> None:
    """The long run: 300 calls of mixed size, and the connection lost every few chunks."""
    random = Random(seed)
    left, right = pair(SMALL)
    sent, got = deque(range(300)), []
    chunks = 0
    while len(got) < 300:
        while sent and left.kept_bytes < 5_000:
            n = sent.popleft()
            left.send(call(n), [n.to_bytes(2, "big") * random.choice([1, 10, 60, 300])])
        for source, target in ((left, right), (right, left)):
            if (buffer := write(source)) is not None:
                chunks += 1
                if random.randrange(every + 1) == 0:
                    reconnect(left, right)  # which loses the chunk
                    break
                got += [frame.id for frame, _ in read(target, buffer) if isinstance(frame, Call)]
        right.ack_soon()
    assert got == list(range(300))
