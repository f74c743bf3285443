from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest

from rolecall.wire.exchange import ExchangeLimits
from rolecall.wire.frames import Call, Goodbye, Put, Reply
from rolecall.wire.session_limits import SessionLimits

pytestmark = pytest.mark.every_loop


def put(number: int) -> Put:
    return Put(number, "b/role", "inbox", "a/role", number)


async def test_frames_arrive_in_order_in_both_directions(linked: Any) -> None:
    async with linked() as net:
        a, b, _ = await net.pair()
        for i in range(200):
            a.link("b").send(put(i), [b"%d" % i])
            b.link("a").send(Reply(i))
        await net.until(lambda: len(a.received) == len(b.received) == 200)
    assert b.received == [(put(i), [b"%d" % i]) for i in range(200)]
    assert a.frames == [Reply(i) for i in range(200)]


@pytest.mark.parametrize("size", [0, 1, 1_000, 16_384, 262_144, 1_048_577, 5_000_000])
async def test_payloads_of_any_size_arrive(linked: Any, size: int) -> None:
    payload = random.Random(1).randbytes(size)
    async with linked() as net:
        a, b, _ = await net.pair(limits=ExchangeLimits(shared_memory=None))
        a.link("b").send(put(0), [b"head", memoryview(payload)])
        await net.until(lambda: b.received)
        await a.link("b").acknowledged()
    assert b.received == [(put(0), [b"head", payload])]


async def test_what_comes_before_on_frame_is_set_waits_for_it(linked: Any) -> None:
    late: list[Any] = []
    async with linked() as net:
        b = await net.node("b", on_link=lambda link: setattr(link, "on_frame", lambda *frame: late.append(frame)))
        a = await net.node("a", listen=False)
        link = await a.exchange.dial(b.address)
        link.send(put(0))
        await net.until(lambda: late)
    assert [frame for frame, _ in late] == [put(0)]


@pytest.mark.parametrize("seed", range(3))
async def test_cut_connections_lose_double_and_reorder_nothing(linked: Any, seed: int) -> None:
    chance = random.Random(seed)
    cuts = [chance.randint(2_000, 60_000) for _ in range(15)]
    count = 600
    async with linked() as net:
        a, b, proxy = await net.pair(cuts=cuts)
        for i in range(count):
            size = chance.choice([0, 10, 500, 5_000])
            a.link("b").send(put(i), [bytes([i % 251]) * size])
            b.link("a").send(Reply(i), [bytes([i % 241]) * size])
            await asyncio.sleep(0)
        await net.until(lambda: len(a.received) >= count and len(b.received) >= count)
        await a.link("b").acknowledged()
        assert proxy.cuts >= 5
        assert a.lost == b.lost == []
        assert b.link("a").session.statistics.connections == proxy.cuts + 1
    assert b.frames == [put(i) for i in range(count)]
    assert a.frames == [Reply(i) for i in range(count)]
    assert {part for i, (_, (part,)) in enumerate(b.received) if part != bytes([i % 251]) * len(part)} == set()


async def test_a_large_payload_survives_cuts_in_its_middle(linked: Any) -> None:
    payload = random.Random(2).randbytes(6_000_000)
    async with linked() as net:
        a, b, proxy = await net.pair(cuts=[700_000, 1_500_001, 300_000, 3_000_000])
        a.link("b").send(put(0), [payload])
        a.link("b").send(put(1))
        await net.until(lambda: len(b.received) == 2)
        assert proxy.cuts == 4
    assert b.received == [(put(0), [payload]), (put(1), [])]


async def test_small_frames_overtake_large_ones(linked: Any) -> None:
    payload = bytes(20_000_000)
    async with linked() as net:
        a, b, _ = await net.pair()
        a.link("b").send(put(0), [payload])
        a.link("b").send(Call(1, "b/other", "ask", "a/role", 0))
        await net.until(lambda: len(b.received) == 2)
    assert [type(frame) for frame in b.frames] == [Call, Put]


async def test_heartbeats_measure_the_round_trip(linked: Any, quick: ExchangeLimits) -> None:
    async with linked() as net:
        a, b, _ = await net.pair(limits=quick)
        await net.until(lambda: a.link("b").round_trip_s is not None and b.link("a").round_trip_s is not None)
        assert 0 <= a.link("b").round_trip_s < 5
        assert a.link("b").sent_bytes and a.link("b").received_bytes


async def test_an_idle_link_lives_on(linked: Any, quick: ExchangeLimits) -> None:
    async with linked() as net:
        a, b, _ = await net.pair(limits=quick)
        before = b.link("a").received_bytes
        await net.until(lambda: b.link("a").received_bytes > before + 1_000)  # heartbeats, for longer than suspicion
        assert a.lost == b.lost == []


async def test_a_silent_peer_is_lost_on_both_sides(linked: Any, quick: ExchangeLimits) -> None:
    async with linked() as net:
        a, b, proxy = await net.pair(limits=quick)
        await net.until(lambda: a.link("b").round_trip_s is not None)
        proxy.silence()
        await net.until(lambda: a.lost and b.lost)
        assert not a.exchange.links and not b.exchange.links
    assert a.lost[0][0] == "b" and a.lost[0][1].startswith("nothing was heard for more than 0.")


async def test_a_peer_that_cannot_be_reached_again_is_lost_on_both_sides(linked: Any, quick: ExchangeLimits) -> None:
    async with linked() as net:
        a, b, proxy = await net.pair(limits=quick)
        proxy.open = False
        proxy.cut()
        await net.until(lambda: a.lost and b.lost)
    assert a.lost[0][1].startswith("there was no connection for 0.") and b.lost[0][1] == b.lost[0][1]


async def test_who_was_only_cut_off_is_fenced(linked: Any, quick: ExchangeLimits) -> None:
    async with linked() as net:
        a, b, proxy = await net.pair(limits=quick)
        proxy.open = False
        proxy.cut()
        await net.until(lambda: a.lost and b.lost)
        c = await net.node("c", limits=quick)
        with pytest.raises(Exception, match=r"has given up node 'a' .* start it again") as raised:
            await net_dial_as(a, b)
        assert getattr(raised.value, "code", "") == "fenced"
        assert (await c.exchange.dial(b.address)).connected


async def net_dial_as(a: Any, b: Any) -> None:
    a.exchange._roster._fenced.clear()  # as if a had not noticed
    await a.exchange.dial(b.address)


async def test_closing_tells_the_other_side_why(linked: Any) -> None:
    async with linked() as net:
        a, b, _ = await net.pair()
        link = a.link("b")
        link.close("enough")
        assert link.lost and link.ended == "enough" and not a.exchange.links
        link.send(put(0))  # nothing happens
        await net.until(lambda: b.lost)
        again = await a.exchange.dial(b.address)
        again.send(put(1))
        await net.until(lambda: b.received)
    assert b.lost == [("a", "it has ended the link: enough"), ("a", "it has ended the link: the node is stopping")]
    assert a.lost == []
    assert b.frames == [put(1)]


async def test_what_waits_is_bounded_and_can_be_waited_for(linked: Any) -> None:
    limits = ExchangeLimits(session=SessionLimits(outbox_bytes=3_000_000))
    async with linked() as net:
        a, b, _ = await net.pair(limits=limits)
        link = a.link("b")
        for i in range(40):
            await link.drained(1_000_000)
            assert link.session.queued_bytes < 1_000_000
            link.send(put(i), [bytes(400_000)])
        await link.acknowledged()
        assert link.session.idle
    assert b.frames == [put(i) for i in range(40)]


async def test_who_waits_is_told_when_the_link_ends(linked: Any) -> None:
    async with linked() as net:
        a, b, proxy = await net.pair()
        proxy.silence()
        link = a.link("b")
        link.send(put(0), [bytes(30_000_000)])
        waiting = [asyncio.create_task(link.drained()), asyncio.create_task(link.acknowledged())]
        await asyncio.sleep(0)
        link.close("enough")
        await asyncio.gather(*waiting)
        proxy.speak()
        await net.until(lambda: b.lost)


async def test_a_handler_that_raises_ends_the_link(linked: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(frame: object, payload: object) -> None:
        raise RuntimeError("a mistake in the runtime")

    def take(link: Any) -> None:
        link.on_frame = broken

    async with linked() as net:
        b = await net.node("b", on_link=take)
        a = await net.node("a", listen=False)
        (await a.exchange.dial(b.address)).send(put(0))
        await net.until(lambda: a.lost and b.lost)
    assert "this node's fault" in b.lost[0][1]
    assert "a mistake in the runtime" in caplog.text


@pytest.mark.parametrize(
    ("harm", "problem"),
    [
        (lambda pipe: pipe.write([b"\xc1"]), "first segment of a chunk is not what it should be"),
        (lambda pipe: pipe.write([]), "without segments"),
        (lambda pipe: pipe.write([b"\x92\x93\x05\x00\x00\x90"]), "acknowledges 5 entries"),
        (lambda pipe: pipe._stream.write([b"\x01\x00\x00\x00\x02ab"], 7), "flags 0x01"),
        (lambda pipe: pipe._stream.write([b"\x00\xff\xff\xff\xff"], 5), "`frame_bytes`: 4,294,967,295"),
        (lambda pipe: pipe._stream.write([b"\x00\x00\x00\x00\x02\x0a\x7f"], 7), "announces 127 bytes"),
    ],
    ids=["no MessagePack", "empty", "acknowledgement", "compressed", "too long", "no chunk"],
)
async def test_a_peer_that_breaks_the_protocol_is_lost(
    linked: Any, harm: Callable[[Any], None], problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked() as net:
        a, b, _ = await net.pair()
        harm(a.link("b")._pipe)
        await net.until(lambda: a.lost and b.lost)
    assert "does not keep to the protocol" in b.lost[0][1] and problem in b.lost[0][1]
    assert "does not keep to the protocol" in a.lost[0][1] and problem in a.lost[0][1]
    assert sum(problem in record.getMessage() and "a: lost" in record.getMessage() for record in caplog.records) == 1


async def test_more_frames_than_nobody_takes_end_the_link(linked: Any) -> None:
    async with linked() as net:
        a, b, _ = await net.pair()
        b.link("a")._on_frame = None
        for i in range(5_000):
            a.link("b").send(put(i))
        await net.until(lambda: a.lost and b.lost)
    assert "nobody took the first 4,096 frames" in b.lost[0][1]


async def test_a_goodbye_is_a_chunk_like_others(linked: Any) -> None:
    async with linked() as net:
        a, b, _ = await net.pair()
        a.link("b").send(Goodbye("so long"))
        await net.until(lambda: b.lost and a.lost)
    assert b.lost == [("a", "it has ended the link: so long")]
