from __future__ import annotations

import asyncio
import datetime
import logging
from pathlib import Path
from typing import Any

import pytest

from rolecall.core.errors import ConfigError
from rolecall.wire import certificates
from rolecall.wire.certificates import create_authority, issue
from rolecall.wire.exchange import Exchange, ExchangeLimits
from rolecall.wire.frames import Reply
from rolecall.wire.peers import LinkRefused, Peer, Unreachable
from rolecall.wire.security import TlsFiles, server_context

pytestmark = pytest.mark.every_loop

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, TlsFiles]:
    """Return the certificates of some nodes, by the name of the node; one of them has expired."""
    folder = tmp_path_factory.mktemp("certs")
    create_authority(folder, now=LONG_AGO)
    made = {node: issue(folder, node) for node in ("a", "b", "c", "good")}
    return {**made, "expired": issue(folder, "expired", now=LONG_AGO)}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Return the certificate of node `b` from another authority."""
    folder = tmp_path_factory.mktemp("foreign")
    create_authority(folder)
    return issue(folder, "b")


@pytest.fixture
def careless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nodes not look at their own certificates, as a program in another language might."""
    monkeypatch.setattr(certificates, "check_own_certificate", lambda files, node: None)


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


async def test_nodes_with_certificates_are_linked(linked: Any, files: Any) -> None:
    payload = b"0123456789" * 300_000
    async with linked() as net:
        a = await net.node("a", tls=files["a"], secret=None)
        b = await net.node("b", tls=files["b"], secret=None)
        link = await a.exchange.dial(b.address, name="b")
        await net.until(lambda: b.exchange.links)
        for i in range(20):
            link.send(Reply(i), [payload])
            b.link("a").send(Reply(i))
        await net.until(lambda: len(b.received) == len(a.received) == 20)
    assert b.received == [(Reply(i), [payload]) for i in range(20)]


async def test_nodes_with_certificates_on_one_machine_share_memory(linked: Any, files: Any) -> None:
    payload = b"0123456789" * 100_000
    async with linked() as net:
        a = await net.node("a", tls=files["a"], secret=None)
        b = await net.node("b", tls=files["b"], secret=None)
        link = await a.exchange.dial(b.address, name="b")
        await net.until(lambda: link.lane is not None and link.lane.open)
        link.send(Reply(0), [b"head", payload])
        await net.until(lambda: b.received)
        assert link.lane.sent_bytes == len(payload)
    assert b.received == [(Reply(0), [b"head", payload])]


async def test_a_secret_counts_besides(linked: Any, files: Any) -> None:
    async with linked() as net:
        a, b = await net.node("a", tls=files["a"]), await net.node("b", tls=files["b"], secret=b"of another run !")
        with pytest.raises(LinkRefused, match="different secrets"):
            await a.exchange.dial(b.address)


async def test_broken_connections_are_resumed(linked: Any, files: Any) -> None:
    async with linked() as net:
        b = await net.node("b", tls=files["b"])
        proxy = await net.proxy(b, [20_000, 30_000, 50_000])
        a = await net.node("a", listen=False, tls=files["a"])
        link = await a.exchange.dial(proxy.address)
        for i in range(300):
            link.send(Reply(i), [bytes(500)])
            await asyncio.sleep(0)
        await net.until(lambda: len(b.received) == 300)
        assert proxy.cuts == 3
    assert b.frames == [Reply(i) for i in range(300)]


async def test_it_listens_on_other_addresses(linked: Any, files: Any) -> None:
    async with linked() as net:
        a, b = await net.node("a", tls=files["a"], listen=False), await net.node("b", tls=files["b"], listen=False)
        address = await a.exchange.listen("0.0.0.0", advertise="127.0.0.1:1")
        assert a.exchange.me.address == "127.0.0.1:1"
        link = await b.exchange.dial(address.replace("0.0.0.0", "127.0.0.1"))
        assert link.peer.name == "a"


# ------------------------------------------------------------------------------------------------- refusals


async def test_the_certificate_of_another_authority_is_refused(
    linked: Any, files: Any, foreign: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked() as net:
        a = await net.node("a", tls=files["a"])
        b = await net.node("b", tls=foreign)
        with pytest.raises(LinkRefused, match="certificate of the node there is not acceptable") as raised:
            await b.exchange.dial(a.address)
        assert raised.value.code == "certificate"
        await net.until(lambda: warnings_of(caplog))
        assert "refused: TLS: " in warnings_of(caplog)[0]


@pytest.mark.usefixtures("careless")
async def test_a_dialler_with_the_certificate_of_another_authority_is_refused(
    linked: Any, files: Any, foreign: TlsFiles, caplog: pytest.LogCaptureFixture
) -> None:
    mixed = TlsFiles(authority=files["a"].authority, certificate=foreign.certificate, key=foreign.key)
    async with linked() as net:
        a = await net.node("a", tls=files["a"])
        b = await net.node("b", tls=mixed, listen=False)
        with pytest.raises(LinkRefused, match="not accept this node's certificate: it is of an authority") as raised:
            await b.exchange.dial(a.address)
        assert raised.value.code == "certificate"
        await net.until(lambda: warnings_of(caplog))
        assert "refused: TLS: its certificate is not acceptable: " in warnings_of(caplog)[0]
        assert not a.exchange.links


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("dialler", ["good", "expired"])
async def test_an_expired_certificate_is_refused(
    linked: Any, files: Any, dialler: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked() as net:
        good, bad = await net.node("good", tls=files["good"]), await net.node("expired", tls=files["expired"])
        me, other = (good, bad) if dialler == "good" else (bad, good)
        match = "certificate has expired" if dialler == "good" else "this node's certificate: it is not valid now"
        with pytest.raises(LinkRefused, match=match):
            await me.exchange.dial(other.address)
        await net.until(lambda: warnings_of(caplog))
        assert "TLS" in warnings_of(caplog)[0]
        if dialler == "expired":
            assert "certificate has expired" in warnings_of(caplog)[0]


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("dialler", ["honest", "impostor"])
async def test_a_certificate_of_another_name_is_refused(
    linked: Any, files: Any, dialler: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked() as net:
        honest, impostor = await net.node("a", tls=files["a"]), await net.node("b", tls=files["c"])
        me, other = (honest, impostor) if dialler == "honest" else (impostor, honest)
        with pytest.raises(LinkRefused, match="certificate names node 'c', and it says that it is 'b'"):
            await me.exchange.dial(other.address)
        await net.until(lambda: warnings_of(caplog))
        assert "certificate names node 'c'" in warnings_of(caplog)[0]
        assert not honest.exchange.links


async def test_who_hangs_up_without_a_word_has_the_reason_in_its_log(linked: Any, files: Any) -> None:
    def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with linked() as net:
        b = await net.node("b", tls=files["b"], listen=False)
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=server_context(files["a"]))
        host, port = server.sockets[0].getsockname()
        with pytest.raises(LinkRefused, match=r"before its first word.*Its log has the reason") as raised:
            await b.exchange.dial(f"{host}:{port}")
        assert raised.value.code == "tls"
        server.close()
        await server.wait_closed()


async def test_plain_text_is_refused_where_tls_is_spoken(
    linked: Any, files: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked() as net:
        a = await net.node("a", tls=files["a"])
        b = await net.node("b", listen=False, limits=ExchangeLimits(dial_attempts=2))
        with pytest.raises(Unreachable):
            await b.exchange.dial(a.address)
        await net.until(lambda: warnings_of(caplog))
        assert "refused: TLS: " in warnings_of(caplog)[0]


async def test_tls_is_refused_where_plain_text_is_spoken(linked: Any, files: Any) -> None:
    async with linked() as net:
        a = await net.node("a")
        b = await net.node("b", tls=files["b"], listen=False, limits=ExchangeLimits(dial_attempts=2))
        with pytest.raises(Unreachable):
            await b.exchange.dial(a.address)


async def test_who_does_not_begin_with_tls_is_disconnected(
    linked: Any, files: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async with linked() as net:
        a = await net.node("a", tls=files["a"], limits=ExchangeLimits(handshake_s=0.1))
        host, _, port = a.address.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        assert await reader.read() == b""
        writer.close()
        await net.until(lambda: warnings_of(caplog))
        assert "refused: TLS: " in warnings_of(caplog)[0]


# -------------------------------------------------------------------------------------------- a node's own files


async def test_the_wrong_certificate_of_ones_own_is_found_at_once(files: Any) -> None:
    exchange = Exchange(Peer("b", 1), tls=files["a"], on_link=lambda link: None, on_lost=lambda peer, reason: None)
    with pytest.raises(ConfigError, match=r"a\.pem: it names the node 'a', and this node is 'b'.*certs issue b"):
        async with exchange:
            pass


async def test_missing_files_are_named(tmp_path: Path) -> None:
    files = TlsFiles.in_directory(tmp_path, "b")
    exchange = Exchange(Peer("b", 1), tls=files, on_link=lambda link: None, on_lost=lambda peer, reason: None)
    with pytest.raises(ConfigError, match=r"ca\.pem: it cannot be read \(No such file.*certs"):
        async with exchange:
            pass
