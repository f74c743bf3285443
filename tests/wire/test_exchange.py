from __future__ import annotations

import asyncio
import logging
import random
import socket
import sys
from typing import Any

import psutil
import pytest

from rolecall.core.errors import ConfigError
from rolecall.wire import handshake
from rolecall.wire.exchange import Exchange, ExchangeLimits
from rolecall.wire.frames import Reply
from rolecall.wire.grpc_client import connect
from rolecall.wire.peers import LinkRefused, Peer, Unreachable

pytestmark = pytest.mark.every_loop


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def exchange(name: str = "a", **options: Any) -> Exchange:
    return Exchange(Peer(name, 1), on_link=lambda link: None, on_lost=lambda peer, reason: None, **options)


# --------------------------------------------------------------------------------------------------- listening


async def test_it_says_where_it_listens_and_tells_peers(linked: Any) -> None:
    async with linked() as net:
        a, b = await net.node("a"), await net.node("b", listen=False)
        assert a.address.startswith("127.0.0.1:") and a.exchange.me.address == a.address
        link = await b.exchange.dial(a.address)
        await net.until(lambda: a.exchange.links)
        assert link.peer == a.exchange.me and link.peer.address == a.address
        assert a.link("b").peer == b.exchange.me and a.link("b").peer.address is None
        assert link.dialled == a.address and a.link("b").dialled is None


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "some.host"])
async def test_off_this_machine_it_listens_with_tls_only(host: str) -> None:
    async with exchange(secret=bytes(16)) as a:
        with pytest.raises(ConfigError, match=r"other machines can reach this address.*certs init"):
            await a.listen(host)
        assert a.me.address is None


async def test_on_this_machine_it_listens_with_a_secret_only() -> None:
    async with exchange() as a:
        with pytest.raises(ConfigError, match="every user of this machine could join"):
            await a.listen()


async def test_nothing_listens_off_this_machine_without_tls(linked: Any) -> None:
    async with linked() as net:
        nodes = [await net.node(name) for name in "abc"]
        await asyncio.gather(*(x.exchange.dial(y.address) for x in nodes for y in nodes if x is not y))
        found = [
            connection.laddr.ip
            for connection in psutil.Process().net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        ]
        assert len(found) >= 3
        assert set(found) == {"127.0.0.1"}
        others = [
            address.address
            for addresses in psutil.net_if_addrs().values()
            for address in addresses
            if address.family == socket.AF_INET and not address.address.startswith("127.")
        ]
        for address in others:
            for node in nodes:
                with pytest.raises(OSError):
                    await asyncio.open_connection(address, int(node.address.rpartition(":")[2]))


STRANGER = """
import asyncio, sys
from rolecall.wire.exchange import Exchange
from rolecall.wire.peers import LinkRefused, Peer

async def main():
    for secret in (None, b"a guess, and no more than that"):
        async with Exchange(Peer("x", 1), secret=secret, on_link=print, on_lost=print) as exchange:
            try:
                await exchange.dial(sys.argv[1])
            except LinkRefused as refused:
                print(refused.code)

asyncio.run(main())
"""


async def test_another_process_without_the_secret_is_refused(linked: Any) -> None:
    async with linked() as net:
        a = await net.node("a")
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-c", STRANGER, a.address, stdout=asyncio.subprocess.PIPE
        )
        said, _ = await child.communicate()
        assert said.split() == [b"secret", b"secret"]
        assert not a.met and not a.exchange.links


async def test_an_address_in_use_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with exchange(secret=bytes(16)) as a:
            with pytest.raises(ConfigError, match=f"listen on 127.0.0.1:{port}: .*[Aa]ddress already in use"):
                await a.listen(port=port)


@pytest.mark.parametrize("address", ["", "4000", "host", "host:", ":4000", "host:70000", "host:port", "::1:4000"])
async def test_what_is_no_address_cannot_be_dialled(address: str) -> None:
    async with exchange() as a:
        with pytest.raises(ConfigError, match="no address"):
            await a.dial(address)


async def test_off_this_machine_it_dials_with_tls_only() -> None:
    async with exchange() as a:
        with pytest.raises(ConfigError, match=r"192.0.2.1:1: it is not on this machine"):
            await a.dial("192.0.2.1:1")


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="it has 5 bytes, and 16 are needed"):
        exchange(secret=b"short")


# ------------------------------------------------------------------------------------------------------ dialling


async def test_dialling_again_returns_the_link_there_is(linked: Any) -> None:
    async with linked() as net:
        a, b = await net.node("a"), await net.node("b")
        link = await a.exchange.dial(b.address)
        assert await a.exchange.dial(b.address) is link
        assert await a.exchange.dial("unused:1", name="b") is link
        await net.until(lambda: b.exchange.links)
        assert await b.exchange.dial(a.address) is b.link("a")
        assert [len(a.met), len(b.met)] == [1, 1]


async def test_dials_at_the_same_time_from_one_side_make_one_link(linked: Any) -> None:
    async with linked() as net:
        a, b = await net.node("a"), await net.node("b")
        links = await asyncio.gather(*(a.exchange.dial(b.address) for _ in range(10)))
        assert {id(link) for link in links} == {id(a.link("b"))}
        await net.until(lambda: b.exchange.links)
        a.link("b").send(Reply(1))
        await net.until(lambda: b.received)
        assert [len(a.met), len(b.met), a.lost, b.lost] == [1, 1, [], []]


async def test_simultaneous_dials_settle_on_one_link(linked: Any, count: Any) -> None:
    chance = random.Random(3)
    for _ in range(count(25, 1_000)):
        async with linked() as net:
            names = chance.sample(["a", "b"], 2)
            a, b = await net.node(names[0]), await net.node(names[1])

            async def dial(me: Any, other: Any, steps: int) -> Any:
                for _ in range(steps):
                    await asyncio.sleep(0)
                return await me.exchange.dial(other.address)

            of_a, of_b = await asyncio.gather(dial(a, b, chance.randrange(12)), dial(b, a, chance.randrange(12)))
            assert of_a is a.link(names[1]) and of_b is b.link(names[0])
            of_a.send(Reply(1))
            of_b.send(Reply(2))
            await net.until(lambda a=a, b=b: a.received and b.received)
            assert [a.lost, b.lost, len(a.met), len(b.met)] == [[], [], 1, 1]
            assert (of_a.dialled is None) != (of_b.dialled is None)


async def test_many_nodes_link_with_each_other_at_once(linked: Any) -> None:
    async with linked() as net:
        nodes = [await net.node(f"n{i}") for i in range(6)]
        await asyncio.gather(*(x.exchange.dial(y.address) for x in nodes for y in nodes if x is not y))
        for node in nodes:
            assert len(node.exchange.links) == len(node.met) == 5 and not node.lost


async def test_a_node_that_does_not_listen_can_be_called(linked: Any) -> None:
    async with linked() as net:
        hub = await net.node("hub")
        edges = [await net.node(f"edge{i}", listen=False) for i in range(3)]
        for edge in edges:
            await edge.exchange.dial(hub.address)
        await net.until(lambda: len(hub.exchange.links) == 3)
        for i in range(3):
            hub.link(f"edge{i}").send(Reply(i), [b"x" * 300_000])
        await net.until(lambda: all(edge.received for edge in edges))
        assert [edge.frames for edge in edges] == [[Reply(0)], [Reply(1)], [Reply(2)]]


async def test_nobody_there(linked: Any, quick: ExchangeLimits) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    async with linked() as net:
        a = await net.node("a", listen=False, limits=quick)
        with pytest.raises(Unreachable, match=r"no node could be reached, tried 3 times \(.*refused"):
            await a.exchange.dial(address)


async def test_somebody_who_says_nothing(linked: Any) -> None:
    limits = ExchangeLimits(handshake_s=0.05, dial_attempts=1)
    with socket.create_server(("127.0.0.1", 0)) as sock:
        async with linked() as net:
            a = await net.node("a", listen=False, limits=limits)
            with pytest.raises(Unreachable, match=r"tried once \(no answer within 0.05 s"):
                await a.exchange.dial(f"127.0.0.1:{sock.getsockname()[1]}")


async def test_somebody_who_speaks_something_else(linked: Any) -> None:
    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(chatter, "127.0.0.1", 0)
    async with server, linked() as net:
        a = await net.node("a", listen=False, limits=ExchangeLimits(dial_attempts=2))
        with pytest.raises(Unreachable):
            await a.exchange.dial(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")


async def test_a_node_that_starts_late_is_found(linked: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    async with linked() as net:
        a, b = await net.node("a", listen=False), await net.node("b", listen=False)
        dial = asyncio.create_task(a.exchange.dial(f"127.0.0.1:{port}"))
        await asyncio.sleep(0)
        await b.exchange.listen(port=port)
        assert (await dial).peer.name == "b"


async def test_a_dial_that_is_cancelled_leaves_nothing(linked: Any) -> None:
    async with linked() as net:
        a, b = await net.node("a"), await net.node("b")
        for steps in range(30):
            dial = asyncio.create_task(a.exchange.dial(b.address))
            for _ in range(steps):
                await asyncio.sleep(0)
            dial.cancel()
            await asyncio.gather(dial, return_exceptions=True)
            if "b" in a.exchange.links:
                break
        assert await a.exchange.dial(b.address) is a.link("b")


# ----------------------------------------------------------------------------------------------- who it should be


async def test_another_secret_is_refused(linked: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as net:
        a = await net.node("a")
        b = await net.node("b", secret=b"the secret of another run")
        with pytest.raises(LinkRefused, match=r"'a' and node 'b' have different secrets: .* different runs") as raised:
            await b.exchange.dial(a.address)
        assert raised.value.code == "secret"
        await net.until(lambda: warnings_of(caplog))
        assert not a.exchange.links and not b.exchange.links
    assert len(warnings_of(caplog)) == 1 and "different secrets" in warnings_of(caplog)[0]
    assert "secret of" not in caplog.text


async def test_no_secret_is_refused(linked: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as net:
        a, b = await net.node("a"), await net.node("b", secret=None, listen=False)
        with pytest.raises(LinkRefused, match="'b' has no secret, and node 'a' has one"):
            await b.exchange.dial(a.address)
        await net.until(lambda: warnings_of(caplog))
    assert "'b' has no secret" in warnings_of(caplog)[0]


async def test_an_impostor_learns_nothing_that_helps(linked: Any) -> None:
    async with linked() as net:
        a, b = await net.node("a"), await net.node("b", secret=b"guess, guess, guess")
        with pytest.raises(LinkRefused, match="different secrets"):
            await a.exchange.dial(b.address)  # b listens where a expects a friend
        assert not a.exchange.links and not b.exchange.links


@pytest.mark.parametrize(("first", "last"), [(2, 3), (0, 0), (9, 9)])
async def test_other_versions_of_the_protocol_are_refused(
    linked: Any, first: int, last: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    original = handshake.Dialling.hello

    def hello(self: handshake.Dialling) -> Any:
        with monkeypatch.context() as patched:
            patched.setattr(handshake, "PROTOCOLS", (first, last))
            return original(self)

    monkeypatch.setattr(handshake.Dialling, "hello", hello)
    async with linked() as net:
        a, b = await net.node("a"), await net.node("b")
        with pytest.raises(LinkRefused, match=r"node 'a' speaks version.* Install the same release") as raised:
            await a.exchange.dial(b.address)
        assert raised.value.code == "protocol"
        await net.until(lambda: warnings_of(caplog))
    assert "speaks version" in warnings_of(caplog)[0]


async def test_the_wrong_node_is_refused(linked: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as net:
        a, b = await net.node("a"), await net.node("b")
        with pytest.raises(LinkRefused, match="node 'b' answers there, and not 'c'") as raised:
            await a.exchange.dial(b.address, name="c")
        assert raised.value.code == "name"
        await net.until(lambda: warnings_of(caplog))
        assert not a.exchange.links


async def test_a_node_does_not_dial_itself(linked: Any) -> None:
    async with linked() as net:
        a = await net.node("a")
        with pytest.raises(LinkRefused, match="has dialled itself"):
            await a.exchange.dial(a.address)
        assert not a.exchange.links


async def test_two_nodes_of_one_name_are_refused(linked: Any) -> None:
    async with linked() as net:
        a, b = await net.node("a"), await net.node("a")
        with pytest.raises(LinkRefused, match="two nodes have the name 'a'"):
            await a.exchange.dial(b.address)


async def test_there_are_no_more_links_than_allowed(linked: Any) -> None:
    async with linked() as net:
        hub = await net.node("hub", limits=ExchangeLimits(links=2))
        nodes = [await net.node(f"n{i}", listen=False, limits=ExchangeLimits(dial_attempts=2)) for i in range(3)]
        for node in nodes[:2]:
            await node.exchange.dial(hub.address)
        with pytest.raises(Unreachable, match="node 'hub' has 2 links already, which is its limit"):
            await nodes[2].exchange.dial(hub.address)
        assert len(hub.exchange.links) == 2


async def test_there_are_no_more_connections_than_allowed(linked: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as net:
        hub = await net.node("hub", limits=ExchangeLimits(connections=3))
        host, _, port = hub.address.partition(":")
        streams = [await asyncio.open_connection(host, int(port)) for _ in range(4)]
        assert await streams[3][0].read() == b"" or True
        for _, writer in streams:
            writer.close()
        await net.until(lambda: warnings_of(caplog))
        await net.until(lambda: not hub.exchange._listeners[0]._protocols)
        a = await net.node("a", listen=False)
        await a.exchange.dial(hub.address)
    assert "refused: there are 3 connections already" in warnings_of(caplog)[0]


async def test_who_says_nothing_is_disconnected(linked: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as net:
        a = await net.node("a", limits=ExchangeLimits(handshake_s=0.05))
        host, _, port = a.address.partition(":")
        pipe = await connect(host, int(port), None)
        await net.until(lambda: warnings_of(caplog))
        await pipe.wait_closed()
    assert "no handshake within 0.05 s" in warnings_of(caplog)[0]


@pytest.mark.parametrize(
    "chunk",
    [[b"\xc1"], [b""], [], [b"\x80"], [b"\x81\xa4step\xa5hello"], [b"\x91" * 200], [b"x" * 70_000]],
    ids=["no MessagePack", "empty segment", "empty", "no step", "no fields", "deep", "long"],
)
async def test_what_is_no_handshake_is_refused(linked: Any, chunk: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as net:
        a = await net.node("a")
        host, _, port = a.address.partition(":")
        pipe = await connect(host, int(port), None)
        pipe.write(chunk)
        await net.until(lambda: warnings_of(caplog))
        await pipe.wait_closed()
        assert not a.exchange.links
    assert "refused: " in warnings_of(caplog)[0]


# --------------------------------------------------------------------------------------------------- other lives


async def test_a_peer_that_is_restarted_ends_the_old_link(linked: Any, quick: ExchangeLimits) -> None:
    async with linked() as net:
        hub = await net.node("hub", limits=quick)
        first = await net.node("edge", listen=False, limits=quick)
        await first.exchange.dial(hub.address)
        await net.until(lambda: hub.exchange.links)
        old = hub.link("edge")
        second = await net.node("edge", listen=False, limits=quick)
        await second.exchange.dial(hub.address)
        assert old.lost and hub.lost == [("edge", "it has been restarted")]
        assert hub.link("edge").peer == second.exchange.me
        await net.until(lambda: first.lost)
        assert "considered lost" in first.lost[0][1]


async def test_a_peer_that_is_restarted_where_it_listened_is_noticed(linked: Any, quick: ExchangeLimits) -> None:
    async with linked() as net:
        a = await net.node("a", listen=False, limits=quick)
        b = await net.node("b", limits=quick)
        proxy = await net.proxy(b)
        await a.exchange.dial(proxy.address)
        other = await net.node("b", limits=quick)
        proxy._target = other.address
        proxy.cut()
        await net.until(lambda: a.lost)
        assert a.lost == [("b", "node 'b' has been restarted")]
        assert (await a.exchange.dial(proxy.address)).peer == other.exchange.me


async def test_a_session_the_peer_has_forgotten_is_lost(linked: Any, quick: ExchangeLimits) -> None:
    async with linked() as net:
        a, b, proxy = await net.pair(limits=quick)
        b.exchange._roster.remove(b.link("a"), fence=False)
        proxy.cut()
        await net.until(lambda: a.lost)
        assert a.lost == [("b", "node 'b' has no such session with node 'a' any more")]


async def test_a_process_that_is_gone_is_noticed_soon(linked: Any) -> None:
    async with linked() as net:
        a, b = await net.node("a", listen=False), await net.node("b")
        link = await a.exchange.dial(b.address)
        listener = b.exchange._listeners[0]
        listener._plain.close()
        for protocol in list(listener._protocols):
            protocol.connection.transport.abort()
        await net.until(lambda: a.lost)
        assert link.lost and a.lost == [("b", f"nobody listens at {b.address} any more")]


# ------------------------------------------------------------------------------------------------------- closing


async def test_closing_waits_for_what_is_on_its_way(linked: Any) -> None:
    async with linked() as net:
        a, b, _ = await net.pair()
        a.link("b").send(Reply(1), [bytes(3_000_000)])
        await a.exchange.close()
        assert b.frames == [Reply(1)]
        assert a.exchange.links == {}


async def test_closing_does_not_wait_for_a_silent_peer(linked: Any) -> None:
    limits = ExchangeLimits(close_s=0.05)
    async with linked() as net:
        a, b, proxy = await net.pair(limits=limits)
        proxy.silence()
        a.link("b").send(Reply(1), [bytes(3_000_000)])
        await a.exchange.close()
        assert not a.exchange.links
        proxy.speak()
        await net.until(lambda: b.lost)


async def test_what_on_link_raises_ends_the_link(linked: Any, caplog: pytest.LogCaptureFixture) -> None:
    def refuse(link: object) -> None:
        raise RuntimeError("a mistake in the runtime")

    async with linked() as net:
        a, b = await net.node("a", on_link=refuse), await net.node("b")
        await b.exchange.dial(a.address)
        await net.until(lambda: b.lost)
    assert "a mistake in the runtime" in caplog.text
