"""Links by which two nodes on one machine share memory: what arrives, what is held, and what goes wrong."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import socket
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rolecall.wire import decode, encode, shared_lane
from rolecall.wire.exchange import ExchangeLimits
from rolecall.wire.frame_codec import encode_frame
from rolecall.wire.frames import Call, Put
from rolecall.wire.head_codec import batch_start, head_start, shared_head
from rolecall.wire.heads import BULK, Acks, Shared
from rolecall.wire.shared_limits import SharedMemoryLimits
from rolecall.wire.shared_listener import connected_to
from rolecall.wire.shared_messages import Announce, Greeting, Release, Retire, encode_message

pytestmark = pytest.mark.every_loop

BIG = 2_000_000
OFF = ExchangeLimits(shared_memory=None)


def put(number: int) -> Put:
    return Put(number, "b/role", "inbox", "a/role", number)


def sharing(**limits: Any) -> ExchangeLimits:
    return ExchangeLimits(shared_memory=SharedMemoryLimits(**limits))


def random_bytes(size: int, seed: int = 1) -> memoryview:
    return memoryview(random.Random(seed).randbytes(size))


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def mappings() -> int:
    return Path("/proc/self/maps").read_text().count("memfd:rolecall")


async def lanes(net: Any, *nodes: Any) -> None:
    """Wait until all links of the nodes share memory."""
    links = [link for node in nodes for link in node.exchange.links.values()]
    await net.until(lambda: all(link.lane is not None and link.lane.open for link in links))


async def pair(net: Any, **options: Any) -> tuple[Any, Any, Any]:
    a, b, proxy = await net.pair(**options)
    await lanes(net, a, b)
    return a, b, proxy


class Keeper:
    """Keeps what comes, as it comes."""

    def __init__(self) -> None:
        self.kept: list[Sequence[memoryview]] = []

    def __call__(self, link: Any) -> None:
        link.on_frame = lambda frame, payload: self.kept.append(payload)


async def keeping(net: Any, **options: Any) -> tuple[Any, Any, list[Sequence[memoryview]]]:
    """Open `a` and `b`, and return them and what `b` keeps."""
    keeper = Keeper()
    b = await net.node("b", on_link=keeper, **options)
    a = await net.node("a", listen=False, **options)
    await a.exchange.dial(b.address)
    await net.until(lambda: b.exchange.links)
    await lanes(net, a, b)
    return a, b, keeper.kept


# ---------------------------------------------------------------------------------------------------- what arrives


@pytest.mark.parametrize("sizes", [[BIG], [300_000, 0, 1, 65, 1_000_000], [1_000] * 900, [3 << 20]])
async def test_payloads_arrive_by_shared_memory(linked: Any, sizes: list[int]) -> None:
    payload = [b"head", *(random_bytes(size, seed) for seed, size in enumerate(sizes))]
    async with linked() as net:
        a, b, _ = await pair(net)
        for near, far in ((a, b), (b, a)):
            near.link(far.peer.name).send(put(0), payload)
            await net.until(lambda far=far: far.received)
            assert far.received == [(put(0), [bytes(part) for part in payload])]
            lane = near.link(far.peer.name).lane
            assert lane.sent_bytes >= sum(sizes) and near.link(far.peer.name).sent_bytes < sum(sizes) // 2
            pool = near.exchange.shared_memory.pool  # held until the frame is acknowledged as well
            await net.until(lambda lane=lane, pool=pool: not lane.leases and not pool.used)
    assert mappings() == 0


async def test_arrays_are_views_that_cannot_be_written(linked: Any) -> None:
    array = np.random.default_rng(1).random(BIG // 8)
    async with linked() as net:
        a, _, kept = await keeping(net)
        a.link("b").send(put(0), encode({"w": array}))
        await net.until(lambda: kept)
        found = decode(kept.pop())["w"]
        assert np.array_equal(found, array) and not found.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            found[0] = 1
        with pytest.raises(ValueError, match="WRITEABLE"):
            found.flags.writeable = True


@pytest.mark.parametrize(
    "payload",
    [
        [random_bytes(BIG)],
        [random_bytes(100_000), random_bytes(BIG)],
        [b"x"] * 1_200,
        [b"head", random_bytes(BIG).cast("b")],
    ],
)
async def test_what_shared_memory_is_not_for_takes_the_connection(linked: Any, payload: list[Any]) -> None:
    async with linked() as net:
        a, b, _ = await pair(net)
        a.link("b").send(put(0), payload)
        a.link("b").send(put(1), [b"head", bytes(300_000)], compress=True)
        await net.until(lambda: len(b.received) == 2)
        assert a.link("b").lane.sent_bytes == 0
        assert b.received[0] == (put(0), [bytes(part) for part in payload])


@pytest.mark.parametrize("without", ["a", "b"])
async def test_it_takes_two(linked: Any, without: str) -> None:
    async with linked() as net:
        b = await net.node("b", limits=OFF if without == "b" else None)
        a = await net.node("a", limits=OFF if without == "a" else None)
        await a.exchange.dial(b.address)
        a.link("b").send(put(0), [b"head", random_bytes(BIG)])
        await net.until(lambda: b.received)
        assert b.received == [(put(0), [b"head", bytes(random_bytes(BIG))])]
        assert a.link("b").lane is b.link("a").lane is None


async def test_order_is_kept_between_large_and_small(linked: Any) -> None:
    chance = random.Random(5)
    async with linked() as net:
        a, b, _ = await pair(net, limits=sharing(segments=3, total_bytes=6 << 20))
        for i in range(150):
            a.link("b").send(put(i), [b"head", bytes([i]) * chance.choice([10, 5_000, 300_000, 1_500_000])])
            if i % 10 == 0:
                await asyncio.sleep(0)
        await net.until(lambda: len(b.received) == 150)
        assert a.link("b").lane.sent_bytes > 0 and a.exchange.shared_memory.pool.bytes <= 6 << 20
    assert b.frames == [put(i) for i in range(150)]
    assert all(payload[1] == bytes([i]) * len(payload[1]) for i, (_, payload) in enumerate(b.received))


async def test_small_frames_overtake_what_is_being_written(linked: Any) -> None:
    async with linked() as net:
        a, b, _ = await pair(net)
        a.link("b").send(put(0), [b"head", bytes(20_000_000)])
        a.link("b").send(Call(1, "b/other", "ask", "a/role", 0))
        await net.until(lambda: len(b.received) == 2)
    assert [type(frame) for frame in b.frames] == [Call, Put]


async def test_a_call_can_be_withdrawn_while_it_is_written(linked: Any) -> None:
    async with linked() as net:
        a, b, _ = await pair(net)
        a.link("b").send(put(0), [b"head", bytes(20_000_000)])
        await asyncio.sleep(0)
        assert a.link("b").session.withdraw(0)
        a.link("b").send(put(1), [b"head", bytes(BIG)])
        await net.until(lambda: b.received)
        assert b.frames == [put(1)]
        assert not a.link("b").session.withdraw(1)
        await net.until(lambda: not a.exchange.shared_memory.pool.used)


async def test_one_write_reaches_many_readers(linked: Any) -> None:
    model = np.random.default_rng(2).random(BIG // 8)
    async with linked() as net:
        a = await net.node("a")
        others = [await net.node(f"n{i}", listen=False) for i in range(4)]
        for other in others:
            await other.exchange.dial(a.address)
        await net.until(lambda: len(a.exchange.links) == 4)
        await lanes(net, a, *others)
        for other in others:
            # Encoded for each, as the arguments of a group's calls are.
            a.link(other.peer.name).send(put(0), encode({"to": other.peer.name, "w": model}))
        await net.until(lambda: all(other.received for other in others))
        pool = a.exchange.shared_memory.pool
        assert pool.written_bytes == model.nbytes and pool.segments == 1
        for other in others:
            found = decode(other.received[0][1])
            assert found["to"] == other.peer.name and np.array_equal(found["w"], model)
        await net.until(lambda: not pool.used)


# ------------------------------------------------------------------------------------------------------- what is held


async def test_a_segment_is_used_again_once_the_reader_has_let_go(linked: Any) -> None:
    async with linked() as net:
        a, _, kept = await keeping(net)
        pool = lambda: a.exchange.shared_memory.pool  # noqa: E731
        for number in range(3):
            a.link("b").send(put(number), encode(np.full(BIG // 8, number)))
            await net.until(lambda number=number: len(kept) == number + 1)
        arrays = [decode(payload) for payload in kept]
        kept.clear()
        await a.link("b").acknowledged()
        assert pool().used == pool().segments == a.link("b").lane.leases == 3
        view = arrays[1][5:10]
        del arrays[0:2]
        gc.collect()
        await net.until(lambda: pool().used == 2)
        for number in range(20):
            a.link("b").send(put(number), encode(np.full(BIG // 8, 99)))
            await net.until(lambda: kept)
            kept.clear()
        assert pool().segments <= 5
        assert set(view) == {1} and set(arrays[0]) == {2}, "what is held is not written over"
        del view, arrays
        await net.until(lambda: pool().used == 0)


async def test_another_thread_may_let_go(linked: Any) -> None:
    async with linked() as net:
        a, _, kept = await keeping(net)
        a.link("b").send(put(0), encode(np.ones(BIG // 8)))
        await net.until(lambda: kept)
        thread = threading.Thread(target=kept.clear)
        thread.start()
        await net.until(lambda: not a.link("b").lane.leases)
        thread.join()


async def test_without_room_it_goes_over_the_connection(linked: Any) -> None:
    async with linked() as net:
        a, b, kept = await keeping(net, limits=sharing(segments=2))
        for number in range(5):
            a.link("b").send(put(number), encode(np.full(BIG // 8, number)))
        await net.until(lambda: len(kept) == 5)
        assert [int(decode(payload)[0]) for payload in kept] == [0, 1, 2, 3, 4]
        assert a.exchange.shared_memory.pool.segments == 2
        assert b.link("a").lane.received_bytes == 2 * BIG
        assert a.link("b").sent_bytes > 3 * BIG
        kept.clear()


async def test_a_reader_that_takes_less_gets_the_rest_over_the_connection(linked: Any) -> None:
    keeper = Keeper()
    async with linked() as net:
        b = await net.node("b", on_link=keeper, limits=sharing(total_bytes=5 << 20))
        a = await net.node("a", listen=False)
        await a.exchange.dial(b.address)
        await net.until(lambda: b.exchange.links)
        await lanes(net, a, b)
        for number in range(4):
            a.link("b").send(put(number), encode(np.full(BIG // 8, number)))
        await net.until(lambda: len(keeper.kept) == 4)
        assert [int(decode(payload)[0]) for payload in keeper.kept] == [0, 1, 2, 3]
        assert b.link("a").lane.received_bytes == 2 * BIG and a.lost == b.lost == []
        keeper.kept.clear()


async def test_arrays_outlive_the_link_and_their_memory_is_not_used_again(linked: Any) -> None:
    async with linked() as net:
        a, b, kept = await keeping(net)
        a.link("b").send(put(0), encode(np.full(BIG // 8, 5)))
        await net.until(lambda: kept)
        await a.link("b").acknowledged()
        array = decode(kept.pop())
        a.link("b").close("over")
        pool = a.exchange.shared_memory.pool
        assert pool.used == pool.segments == 0
        await net.until(lambda: b.lost)
        await a.exchange.dial(b.address)
        await net.until(lambda: b.exchange.links)
        await lanes(net, a, b)
        for number in range(5):
            a.link("b").send(put(number), encode(np.full(BIG // 8, 6)))
        await net.until(lambda: len(kept) == 5)
        assert set(array) == {5}
        kept.clear()
    assert set(array) == {5} and mappings() == 1
    del array
    assert mappings() == 0


async def test_unused_memory_is_given_up_on_both_sides(linked: Any, quick: ExchangeLimits) -> None:
    limits = msgspec.structs.replace(quick, shared_memory=SharedMemoryLimits(idle_s=0.05))
    async with linked() as net:
        a, b, _ = await pair(net, limits=limits)
        a.link("b").send(put(0), [b"head", bytes(BIG)])
        await net.until(lambda: b.received)
        await net.until(lambda: not mappings())
        a.link("b").send(put(1), [b"head", bytes(BIG)])
        await net.until(lambda: len(b.received) == 2)
        assert a.lost == b.lost == [] and a.link("b").lane.open


# ---------------------------------------------------------------------------------------------------- cuts and losses


@pytest.mark.parametrize("seed", range(3))
async def test_cut_connections_lose_double_and_reorder_nothing(linked: Any, seed: int) -> None:
    chance = random.Random(seed)
    cuts = [chance.randint(500, 6_000) for _ in range(12)]
    async with linked() as net:
        a, b, proxy = await net.pair(cuts=cuts)
        for i in range(200):
            a.link("b").send(put(i), [b"head", bytes([i]) * chance.choice([10, 400_000, 1_200_000])])
            if i % 3 == 0:
                await asyncio.sleep(0)
        await net.until(lambda: len(b.received) == 200)
        await a.link("b").acknowledged()
        assert proxy.cuts >= 5 and a.lost == b.lost == [] and a.link("b").lane.sent_bytes
        await net.until(lambda: not a.exchange.shared_memory.pool.used)
    assert b.frames == [put(i) for i in range(200)]
    assert all(payload[1] == bytes([i]) * len(payload[1]) for i, (_, payload) in enumerate(b.received))


@pytest.mark.parametrize("side", ["writer", "reader"])
@pytest.mark.parametrize("segments", [64, 2])
@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 12, 20])
async def test_what_was_on_its_way_goes_over_the_connection_when_the_lane_breaks(
    linked: Any, side: str, turns: int, segments: int
) -> None:
    async with linked() as net:
        a, b, proxy = await pair(net, limits=sharing(segments=segments))
        for i in range(12):
            a.link("b").send(put(i), [b"head", bytes([i]) * 400_000])
        for _ in range(turns):
            await asyncio.sleep(0)
        broken = a.link("b").lane if side == "writer" else b.link("a").lane
        broken.give_up("a test breaks it")
        if turns % 2:
            proxy.cut()
        await net.until(lambda: len(b.received) == 12)
        await a.link("b").acknowledged()
        assert a.lost == b.lost == []
        await net.until(lambda: a.link("b").lane.lost and b.link("a").lane.lost)
        a.link("b").send(put(12), [b"head", bytes(400_000)])
        b.link("a").send(put(0), [b"head", bytes(400_000)])
        await net.until(lambda: len(b.received) == 13 and a.received)
        assert a.exchange.shared_memory.pool.used == 0
    assert b.frames == [put(i) for i in range(13)]
    assert all(payload[1] == bytes([i]) * 400_000 for i, (_, payload) in enumerate(b.received[:12]))


async def test_a_link_that_has_ended_holds_no_memory_by_what_it_would_have_sent(linked: Any) -> None:
    async with linked() as net:
        a, b, proxy = await pair(net)
        link, lane = a.link("b"), a.link("b").lane
        link.send(put(0), [b"head", bytes(BIG)])
        while not lane.leases:  # noqa: ASYNC110 - before the other side has read anything
            await asyncio.sleep(0)
        lane.give_up("a test breaks it")
        proxy.cut()
        while link.session.statistics.connections < 2:  # noqa: ASYNC110 - it is cut into pieces then, views of it
            await asyncio.sleep(0)
        link.close("over")
        await net.until(lambda: b.lost)
        b.received.clear()
        gc.collect()
        assert mappings() == a.exchange.shared_memory.pool.segments == 0
        assert link.lost and lane.lost


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_happens_all_arrives_once_in_order_and_stays_what_it_is(linked: Any, seed: int) -> None:
    chance = random.Random(seed)
    held: dict[str, list[tuple[int, memoryview]]] = {"a": [], "b": []}
    arrived: dict[str, list[int]] = {"a": [], "b": []}

    def keep(link: Any) -> None:
        me = "b" if link.peer.name == "a" else "a"

        def on_frame(frame: Put, payload: Sequence[memoryview]) -> None:
            arrived[me].append(frame.id)
            held[me].append((frame.id, payload[1]))
            if chance.random() < 0.8:
                held[me].pop(chance.randrange(len(held[me])))

        link.on_frame = on_frame

    limits = sharing(segments=chance.choice([2, 4, 64]), total_bytes=chance.choice([3, 8, 1_000]) << 20)
    async with linked() as net:
        a, b, proxy = await pair(net, limits=limits, on_link=keep)
        breaks = chance.choice([None, chance.randrange(120)])
        for number in range(120):
            for near, far in (("a", "b"), ("b", "a")):
                body = bytes([number]) * chance.choice([9, 30_000, 300_000, 1_500_000])
                (a if near == "a" else b).link(far).send(put(number), [b"head", body])
            for _ in range(chance.randrange(6)):
                await asyncio.sleep(0)
            if number == breaks:
                chance.choice([a.link("b"), b.link("a")]).lane.give_up("a test breaks it")
            if chance.random() < 0.05:
                proxy.cut()
        await net.until(lambda: len(arrived["a"]) == len(arrived["b"]) == 120)
        assert arrived == {"a": list(range(120)), "b": list(range(120))} and a.lost == b.lost == []
        for number, view in [*held["a"], *held["b"]]:
            assert view[0] == number and not np.ptp(np.frombuffer(view, np.uint8))
        del view
        held["a"].clear()
        held["b"].clear()
        await net.until(lambda: not a.exchange.shared_memory.pool.used + b.exchange.shared_memory.pool.used)
    assert not mappings()


async def test_a_reader_that_cannot_map_gets_it_over_the_connection(
    linked: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(fd: int, size: int) -> Any:
        raise OSError(12, "Cannot allocate memory")

    async with linked() as net:
        a, b, _ = await pair(net)
        monkeypatch.setattr(shared_lane, "map_readonly", refuse)
        for i in range(6):
            a.link("b").send(put(i), [b"head", bytes([i]) * 400_000])
        await net.until(lambda: len(b.received) == 6)
        assert b.link("a").lane.lost == "a segment of 1,048,576 bytes could not be mapped: Cannot allocate memory"
        assert a.lost == b.lost == [] and b.link("a").session.statistics.connections == 2
    assert b.received == [(put(i), [b"head", bytes([i]) * 400_000]) for i in range(6)]


async def test_a_reader_without_descriptors_gets_it_over_the_connection(linked: Any) -> None:
    async with linked() as net:
        c = await net.node("c")
        a, b, _ = await net.pair()
        await a.exchange.dial(c.address)
        await net.until(lambda: c.exchange.links)
        await lanes(net, a, b, c)
        a.link("c").send(put(0), [b"head", bytes(BIG)])  # so that there is a segment to pass on
        await net.until(lambda: c.received and not a.exchange.shared_memory.pool.used)
        allowed = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (1 + max(map(int, os.listdir("/proc/self/fd"))), allowed[1]))
        fillers = []
        try:
            with suppress(OSError):
                while True:
                    fillers.append(os.dup(0))
            a.link("b").send(put(0), [b"head", bytes([3]) * BIG])
            await net.until(lambda: b.link("a").lane.lost)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, allowed)
            for fd in fillers:
                os.close(fd)
        assert b.link("a").lane.lost == "a descriptor could not be received"
        await net.until(lambda: b.received)
        assert b.received == [(put(0), [b"head", bytes([3]) * BIG])] and a.lost == b.lost == []


async def test_who_is_not_on_this_machine_gets_it_over_the_connection(linked: Any) -> None:
    async with linked() as net:
        a, b, _ = await pair(net)
        b.exchange.shared_memory._listener.close()  # as if its address existed elsewhere
        c = await net.node("c", listen=False)
        link = await c.exchange.dial(b.address)
        link.send(put(0), [b"head", bytes(BIG)])
        await net.until(lambda: b.received)
        assert link.lane is b.link("c").lane is None and a.link("b").lane.open
        b.exchange.shared_memory._listener = None


async def test_the_leases_of_a_lost_peer_are_freed(linked: Any) -> None:
    async with linked() as net:
        a, b, kept = await keeping(net)
        c = await net.node("c", listen=False)
        await c.exchange.dial(b.address)
        shared = random_bytes(BIG)
        a.link("b").send(put(0), [b"head", shared])
        await net.until(lambda: kept)
        await a.link("b").acknowledged()
        assert a.exchange.shared_memory.pool.used == 1
        a.link("b").lose("a test says so")
        pool = a.exchange.shared_memory.pool
        assert pool.used == pool.segments == pool.bytes == 0
        assert bytes(kept[0][1]) == bytes(shared)
        kept.clear()


async def test_many_links_leave_nothing(linked: Any) -> None:
    async with linked() as net:
        b = await net.node("b")
        before = None
        for number in range(12):
            a = await net.node(f"a{number}", listen=False)
            await a.exchange.dial(b.address)
            await net.until(lambda: b.exchange.links)
            if number % 3:
                await lanes(net, a, b)
            a.link("b").send(put(0), [b"head", bytes(BIG)])
            await net.until(lambda number=number: len(b.received) == number + 1)
            await a.exchange.close()
            await net.until(lambda: not b.exchange.links)
            await net.until(lambda: not mappings())
            if number == 3:
                before = descriptors()
        await net.until(lambda: descriptors() <= before)


# ------------------------------------------------------------------------------------------------------ who is refused


async def offered(net: Any) -> tuple[Any, str]:
    """Return a node with a link, and where it can be asked for shared memory."""
    _, b, _ = await pair(net)
    return b, b.exchange.shared_memory.address


def stranger(name: str, *messages: Any) -> socket.socket:
    connected = connected_to(name)
    for message in messages:
        connected.send(message if isinstance(message, bytes) else encode_message(message))
    return connected


async def hung_up(connected: socket.socket) -> None:
    try:
        while await asyncio.get_running_loop().sock_recv(connected, 1):
            pass
    except ConnectionError:
        pass
    connected.close()


@pytest.mark.parametrize(
    "message",
    [Greeting(1, bytes(32), 1 << 30, 64), Announce(1, 1), Release([1]), Retire(1), b"nonsense", bytes(9_000)],
)
async def test_a_process_that_is_no_peer_is_refused(linked: Any, message: Any) -> None:
    async with linked() as net:
        b, name = await offered(net)
        await hung_up(stranger(name, message))
        assert b.link("a").lane.open and len(b.exchange.shared_memory.lanes) == 1


async def test_who_says_nothing_is_not_waited_for_forever(linked: Any) -> None:
    async with linked() as net:
        _, b, _ = await pair(net, limits=sharing(handshake_s=0.1, pending=3))
        name = b.exchange.shared_memory.address
        silent = [stranger(name) for _ in range(6)]
        for connected in silent:
            await hung_up(connected)


async def test_descriptors_that_nobody_asked_for_are_closed(linked: Any) -> None:
    async with linked() as net:
        _, name = await offered(net)
        before = descriptors()
        connected = stranger(name)
        fd = os.open("/dev/null", os.O_RDONLY)
        socket.send_fds(connected, [encode_message(Announce(1, 1))], [fd] * 4)
        os.close(fd)
        await hung_up(connected)
        await net.until(lambda: descriptors() == before)


def chunk(shared: Shared, lane: int = BULK) -> list[bytes]:
    return [head_start(Acks(), 1) + batch_start(lane, 0, 1) + shared_head(encode_frame(put(0)), shared), b"head"]


@pytest.mark.parametrize(
    ("sent", "why"),
    [
        (chunk(Shared(0, 77, [(0, 1)])), "segment 77 of shared memory, which was not announced"),
        (chunk(Shared(0, 1, [((1 << 20) - 5, 6)])), "beyond segment 1"),
        (chunk(Shared(0, 1, [(2**62, 2**62)])), "message_bytes"),
        (chunk(Shared(0, 1, [(0, 1 << 20)] * 5_000)), "message_bytes"),
        (chunk(Shared(0, 1, [(0, 1)]), lane=2), "on lane 2"),
    ],
)
async def test_a_peer_that_lies_about_places_is_disconnected(linked: Any, sent: list[bytes], why: str) -> None:
    async with linked() as net:
        a, b, _ = await pair(net)
        a.link("b").send(put(0), [b"head", bytes(400_000)])
        await net.until(lambda: b.received)
        if "lane 2" not in why:
            sent = [sent[0].replace(batch_start(BULK, 0, 1), batch_start(BULK, 1, 1)), sent[1]]
        a.link("b")._pipe.write(sent)
        await net.until(lambda: b.lost)
        assert why in b.lost[0][1]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (Release([99]), "Lease 99"),
        (Retire(5), "Segment 5"),
        (Announce(5, 1 << 20), "announced twice, or did not come"),
        (Greeting(1, b"", 1, 1), "greeting"),
    ],
)
async def test_a_peer_that_lies_about_memory_is_disconnected(linked: Any, message: Any, why: str) -> None:
    async with linked() as net:
        a, b, _ = await pair(net)
        a.link("b").lane._socket.send(message)
        await net.until(lambda: b.lost)
        assert why in b.lost[0][1]
    assert mappings() == 0


async def test_a_peer_that_announces_too_much_is_disconnected(linked: Any) -> None:
    async with linked() as net:
        a, b, _ = await pair(net)
        fd = os.memfd_create("large", os.MFD_CLOEXEC)
        a.link("b").lane._socket.pass_on(Announce(5, 1 << 40), fd)
        os.close(fd)
        await net.until(lambda: b.lost)
        assert "bytes of shared memory" in b.lost[0][1] and mappings() == 0
