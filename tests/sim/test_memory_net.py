"""The network of a simulation as asyncio sees it, and the real grpclib over it."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

import rolecall as rc
from rolecall.core.place import HERE
from rolecall.sim.courier import Courier
from rolecall.sim.errors import NotSimulated
from rolecall.sim.loop import VirtualLoop
from rolecall.sim.memory_net import MemoryNet
from rolecall.sim.network import Network, Path
from rolecall.sim.seam import Seam
from rolecall.wire.exchange import Exchange
from rolecall.wire.frames import Event
from rolecall.wire.link import Link
from rolecall.wire.peers import Peer, Unreachable

LATENCY_S = 0.001
SECRET = b"s" * 32


def net(path: Path | None = None) -> MemoryNet:
    """Give the running loop a network of nodes `a`, `b` and `c`."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    made = MemoryNet(loop, Courier(Network(loop.seed, path or Path(latency_s=LATENCY_S)), loop))
    for node in ("a", "b", "c"):
        made.host(node)
    return made


async def as_node(node: str, work: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> Any:
    """Do something in the name of a node."""

    async def there() -> Any:
        HERE.set(node)
        return await work(*args)

    return await asyncio.create_task(there())


async def echoing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(100_000):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


# ------------------------------------------------------------------------------------------ asyncio's own streams


def test_streams_of_asyncio_work_and_take_the_time_of_the_way() -> None:
    async def main() -> tuple[bytes, float, bytes]:
        net()
        server = await as_node("b", asyncio.start_server, echoing, "b", 7)
        reader, writer = await as_node("a", asyncio.open_connection, "b", 7)
        assert anyio.current_time() == pytest.approx(2 * LATENCY_S)
        assert writer.get_extra_info("peername") == server.sockets[0].getsockname()
        writer.write(b"hello, ")
        writer.write(b"world")
        got = await reader.readexactly(12)
        took_s = anyio.current_time()
        writer.close()
        await writer.wait_closed()
        server.close()
        await server.wait_closed()
        assert not server.sockets
        return got, took_s, await reader.read()

    got, took_s, rest = rc.simulate(main)
    assert (got, rest) == (b"hello, world", b"")
    assert took_s == pytest.approx(4 * LATENCY_S)


def test_megabytes_arrive_whole_and_writers_wait() -> None:
    async def main() -> float:
        net(Path(latency_s=LATENCY_S, bandwidth_bps=80e6))
        await as_node("b", asyncio.start_server, echoing, "b", 7)
        reader, writer = await as_node("a", asyncio.open_connection, "b", 7)
        sent = bytes(range(256)) * 8192

        async def write() -> None:
            for start in range(0, len(sent), 50_000):
                writer.write(sent[start : start + 50_000])
                await writer.drain()
                assert writer.transport.get_write_buffer_size() < 1 << 20

        writing = asyncio.create_task(write())
        assert await reader.readexactly(len(sent)) == sent
        await writing
        writer.close()
        return anyio.current_time()

    took_s = rc.simulate(main)
    assert took_s == pytest.approx(2 * 2 * 8 * 1.048576e6 / 80e6, rel=0.5)


def test_nobody_listens_and_nobody_is_there() -> None:
    async def main() -> None:
        made = net()
        with pytest.raises(ConnectionRefusedError):
            await as_node("a", asyncio.open_connection, "b", 7)
        with pytest.raises(socket.gaierror, match="no node 'd'"):
            await as_node("a", asyncio.open_connection, "d", 7)
        await as_node("b", asyncio.start_server, echoing, None, 7)
        with pytest.raises(OSError, match="already in use"):
            await as_node("b", asyncio.start_server, echoing, "localhost", 7)
        made.down("b")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5):
                await as_node("a", asyncio.open_connection, "b", 7)
        made.up("b")
        with pytest.raises(ConnectionRefusedError):
            await as_node("a", asyncio.open_connection, "b", 7)
        with pytest.raises(NotSimulated, match="TLS"):
            await asyncio.open_connection("a", 7, ssl=True)
        found = await asyncio.get_running_loop().getaddrinfo("c", 9)
        assert found[0][4] == (made.host("c"), 9)

    rc.simulate(main)


@pytest.mark.parametrize("how", ["reset", "silence"])
def test_a_cut_breaks_connections_or_silences_them(how: Any) -> None:
    async def main() -> None:
        made = net()
        ended: list[str] = []

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await echoing(reader, writer)
            except ConnectionResetError:
                ended.append("server")
                writer.close()

        await as_node("b", asyncio.start_server, serve, "b", 7)
        reader, writer = await as_node("a", asyncio.open_connection, "b", 7)
        await anyio.sleep(1)
        made.courier.cut("a", "b", how=how)
        writer.write(b"late")
        await anyio.sleep(10)
        made.courier.heal()
        if how == "reset":
            with pytest.raises(ConnectionResetError):
                await reader.read()
            await anyio.sleep(1)
            assert ended == ["server"]
        else:
            assert await reader.readexactly(4) == b"late"
        writer.close()

    rc.simulate(main)


def test_who_aborts_is_seen_to_have_broken_the_connection() -> None:
    async def main() -> None:
        net()
        broken = asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with pytest.raises(ConnectionResetError, match="aborted"):
                await reader.read()
            writer.close()
            broken.set()

        await as_node("b", asyncio.start_server, serve, "b", 7)
        _, writer = await as_node("a", asyncio.open_connection, "b", 7)
        writer.transport.abort()
        assert writer.transport.is_closing()
        await broken.wait()

    rc.simulate(main)


def test_a_dial_that_is_given_up_leaves_nothing() -> None:
    async def main() -> None:
        made = net(Path(latency_s=1.0))
        await as_node("b", asyncio.start_server, echoing, "b", 7)
        for patience_s in (0.5, 1.5):
            with anyio.move_on_after(patience_s):
                await as_node("a", asyncio.open_connection, "b", 7)
        await anyio.sleep(5)
        assert not made.courier.connections

    rc.simulate(main)


def test_reading_can_pause() -> None:
    async def main() -> list[bytes]:
        net()
        got: list[bytes] = []

        class Keeper(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                self.transport = transport

            def data_received(self, data: bytes) -> None:
                got.append(data)

        keepers: list[Keeper] = []

        def keeper() -> Keeper:
            keepers.append(Keeper())
            return keepers[-1]

        await as_node("b", asyncio.get_running_loop().create_server, keeper, "b", 7)
        _, writer = await as_node("a", asyncio.open_connection, "b", 7)
        kept: Any = keepers[0].transport
        kept.pause_reading()
        writer.writelines([b"one", b"two"])
        await anyio.sleep(1)
        assert got == [] and not kept.is_reading()
        kept.resume_reading()
        writer.close()
        await anyio.sleep(1)
        assert kept.is_closing()
        return got

    assert b"".join(rc.simulate(main)) == b"onetwo"


# ------------------------------------------------------------------------------------------ grpclib


class Talker:
    """A node with the real exchange, whose links answer each event with another."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.got: list[int] = []
        self.lost: list[str] = []
        self.heard, self.gone = asyncio.Event(), asyncio.Event()
        self.exchange = Exchange(
            Peer(name, 1), secret=SECRET, on_link=self.linked, on_lost=self.on_lost, limits=Seam.limits()
        )

    def linked(self, link: Link) -> None:
        link.on_frame = lambda frame, payload: self.took(link, frame)

    def on_lost(self, peer: Peer, why: str) -> None:
        self.lost.append(f"{peer.name}: {why}")
        self.gone.set()

    def took(self, link: Link, frame: Any) -> None:
        self.got.append(frame.id)
        if self.name == "b":
            link.send(Event(frame.id))
        self.heard.set()

    async def ask(self, link: Link, number: int) -> None:
        self.heard.clear()
        link.send(Event(number))
        await self.heard.wait()


async def talkers(made: MemoryNet) -> tuple[Talker, Talker, str]:
    async def start(name: str) -> tuple[Talker, str]:
        talker = Talker(name)
        await talker.exchange.__aenter__()
        return talker, await talker.exchange.listen(made.host(name))

    a, _ = await as_node("a", start, "a")
    b, address = await as_node("b", start, "b")
    return a, b, address


def test_the_real_grpclib_makes_three_thousand_round_trips_in_six_virtual_seconds() -> None:
    async def main() -> tuple[float, list[int]]:
        a, b, address = await talkers(net())

        async def talk() -> None:
            link = await a.exchange.dial(address, "b")
            for number in range(3_000):
                await a.ask(link, number)

        await as_node("a", talk)
        talked_s = anyio.current_time()
        await a.exchange.close()
        await b.exchange.close()
        return talked_s, a.got

    began = time.perf_counter()
    talked_s, got = rc.simulate(main, seed=7)
    assert got == list(range(3_000))
    assert 6.0 < talked_s < 6.2
    assert time.perf_counter() - began < 10


@pytest.mark.parametrize("seed", range(4))
def test_a_session_outlives_its_connection(seed: int) -> None:
    async def main() -> tuple[list[int], list[str], int]:
        made = net()
        a, b, address = await talkers(made)
        link = await as_node("a", a.exchange.dial, address, "b")
        for number in range(20):
            link.send(Event(number))
            await anyio.sleep(0.1)
            if number % 5 == 2:
                made.courier.cut("a", "b")
            if number % 5 == 4:
                made.courier.heal()
        await anyio.sleep(2)
        got, lost, connections = a.got, a.lost + b.lost, link.session.statistics.connections
        await a.exchange.close()
        await b.exchange.close()
        return list(got), list(lost), connections

    assert rc.simulate(main, seed=seed) == (list(range(20)), [], 5)


def test_a_silent_peer_is_lost() -> None:
    async def main() -> tuple[list[str], float]:
        made = net()
        a, b, address = await talkers(made)
        await as_node("a", a.exchange.dial, address, "b")
        await anyio.sleep(10)
        made.down("b")
        made.courier.down("b")
        await a.gone.wait()
        lost_s = anyio.current_time()
        with pytest.raises(Unreachable):
            await as_node("a", a.exchange.dial, address, "b")
        await a.exchange.close()
        await b.exchange.close()
        return a.lost, lost_s

    lost, lost_s = rc.simulate(main)
    assert len(lost) == 1 and "nothing was heard" in lost[0]
    assert 11.5 < lost_s < 13.5
