"""A node that listens survives whatever is sent to it, says why it hangs up, and goes on serving others."""

from __future__ import annotations

import asyncio
import logging
import random
import socket
from typing import Any

import pytest

from rolecall.wire import grpc_server, h2_tuning
from rolecall.wire.exchange import ExchangeLimits
from rolecall.wire.frames import Put, Reply
from rolecall.wire.grpc_client import connect
from rolecall.wire.handshake import Dialling
from rolecall.wire.peers import Peer

pytestmark = pytest.mark.every_loop

SECRET = b"a secret of one run"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


def mutated(chance: random.Random, data: bytes) -> bytes:
    """Return `data` with a few bytes changed, left out or put in."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(len(changed) + 1)
        changed[at : at + chance.randint(0, 3)] = chance.randbytes(chance.randint(0, 3))
    return bytes(changed)


async def raw(address: str, data: bytes) -> None:
    """Send bytes to a node, and return when it has hung up."""
    host, _, port = address.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(data)
    try:
        await writer.drain()
        while await reader.read(65_536):
            pass
    except ConnectionError:
        pass
    writer.close()


async def still_serves(net: Any, node: Any) -> None:
    friend = await net.node("friend", listen=False)
    link = await friend.exchange.dial(node.address)
    link.send(Reply(1))
    await net.until(lambda: (Reply(1), []) in node.received)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        bytes(100_000),
        PREFACE + b"\xff" * 1_000,
        PREFACE + SETTINGS + b"\x10\x00\x01\x00\x00\x00\x00\x00\x01",
        PREFACE + SETTINGS + b"\x00\x00\x05\x00\x00\x00\x00\x00\x01hello",
    ],
    ids=["HTTP/1", "TLS", "zeros", "ones", "a frame of 1 MB and more", "data of no stream"],
)
async def test_other_protocols_are_hung_up_on(linked: Any, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with linked() as net:
        node = await net.node("a")
        await raw(node.address, data)
        await net.until(lambda: "not HTTP/2 as it should be" in caplog.text)
        await still_serves(net, node)


async def test_who_asks_for_nothing_is_hung_up_on(
    linked: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(grpc_server, "_IDLE_S", 0.02)
    async with linked() as net:
        node = await net.node("a")
        await raw(node.address, PREFACE + SETTINGS)
        await net.until(lambda: "nothing was asked for 0.02 s" in caplog.text)
        await still_serves(net, node)


def keep_little(transport: Any) -> None:
    """Have the kernel keep little of what is not read."""
    transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)


async def test_who_does_not_read_the_answers_is_hung_up_on(
    linked: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(h2_tuning, "_UNREAD_BYTES", 100_000)
    monkeypatch.setattr(h2_tuning, "set_nodelay", keep_little)
    ping = b"\0\0\x08\x06\0\0\0\0\0" + bytes(8)
    async with linked() as net:
        node = await net.node("a")
        host, _, port = node.address.partition(":")
        with socket.socket() as small:
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            small.setblocking(False)
            await asyncio.get_running_loop().sock_connect(small, (host, int(port)))
            _, writer = await asyncio.open_connection(sock=small.dup(), limit=1)  # and nothing is read from it
        writer.write(PREFACE + SETTINGS)
        try:
            while not writer.transport.is_closing():
                writer.write(ping * 10_000)
                await writer.drain()
        except ConnectionError:
            pass
        writer.transport.abort()
        await net.until(lambda: "unread" in caplog.text)
        await still_serves(net, node)


async def test_who_asks_and_does_not_say_what_is_answered(linked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h2_tuning, "_REQUEST_S", 0.02)
    async with linked() as net:
        node = await net.node("a")
        host, _, port = node.address.partition(":")
        pipe = await connect(host, int(port), None)
        await pipe.wait_closed()
        await pipe.wait_gone()
        await still_serves(net, node)


@pytest.mark.parametrize("seed", range(4))
async def test_mutated_handshakes_are_refused(linked: Any, seed: int) -> None:
    chance = random.Random(seed)
    limits = ExchangeLimits(handshake_s=0.5)
    async with linked() as net:
        node = await net.node("a", limits=limits)
        host, _, port = node.address.partition(":")
        for i in range(60):
            pipe = await connect(host, int(port), None)
            (hello,) = Dialling(Peer(f"x{i}", i), SECRET, "").hello()
            pipe.write([mutated(chance, bytes(hello))])
            pipe.write([chance.randbytes(chance.randint(0, 300)) for _ in range(chance.randint(0, 3))])
            await pipe.wait_closed()
            await pipe.wait_gone()
        assert not node.exchange.links
        await still_serves(net, node)


@pytest.mark.parametrize("seed", range(4))
async def test_a_friend_that_goes_mad_is_lost_and_others_are_not(linked: Any, seed: int) -> None:
    chance = random.Random(seed)
    async with linked() as net:
        node = await net.node("a")
        for i in range(25):
            mad = await net.node(f"mad{i}", listen=False, limits=ExchangeLimits(dial_attempts=1))
            link = await mad.exchange.dial(node.address)
            link.send(Put(1, "a/role", "inbox", "mad/role", 0), [b"payload" * 20])
            chunk = [bytes(segment) for segment in link.session.next_chunk() or []]
            pipe = link._pipe
            while pipe.closed is None:
                pipe.write([mutated(chance, segment) for segment in chunk])
                await asyncio.sleep(0)
        await still_serves(net, node)


async def test_mutated_connections_do_no_harm(linked: Any) -> None:
    chance = random.Random(5)
    headers = bytes.fromhex("00002b0104000000018386418aa0e41d139d09b8f01e07048c62b29b0a5c5f1a2b3c4d5e6f7f8d5a0f")
    good = PREFACE + SETTINGS + headers + b"\x00\x00\x0a\x00\x00\x00\x00\x00\x01\0\0\0\0\x05\x0a\x03abc"
    async with linked() as net:
        node = await net.node("a", limits=ExchangeLimits(handshake_s=0.05))
        for _ in range(100):
            host, _, port = node.address.partition(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(mutated(chance, good))
            writer.write_eof()
            try:
                await reader.read(1_000)
            except ConnectionError:
                pass
            writer.transport.abort()
        await still_serves(net, node)
