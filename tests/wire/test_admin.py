"""Who may use the administrative service: certificates and secrets, with real connections."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rolecall.wire.admin import AdminService, Admission, StatusReply, StatusRequest, administer
from rolecall.wire.certificates import create_authority, issue
from rolecall.wire.exchange import Exchange
from rolecall.wire.peers import LinkRefused, Peer, Unreachable
from rolecall.wire.security import TlsFiles, client_context, new_secret

SECRET = new_secret()


class Admin(AdminService):
    async def status(self, status_request: StatusRequest) -> StatusReply:
        return StatusReply(node="a", up_s=1.5)


@pytest.fixture(scope="module")
def certs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certs")
    create_authority(folder)
    for name in ("a", "b", "conductor", "manager"):
        issue(folder, name)
    return folder


def node(certs: Path, refused: list[tuple[str, str]], *, name: str = "a", secret: bytes | None = None) -> Exchange:
    exchange = Exchange(
        Peer(name, 7),
        secret=secret,
        tls=TlsFiles.in_directory(certs, name),
        on_link=lambda link: None,
        on_lost=lambda peer, reason: None,
    )
    admission = Admission(secret, lambda who, why: refused.append((who, why)))
    exchange.services.append(Admin(lambda: Peer("a", 7), admission))
    exchange.check_request = admission.check
    return exchange


async def context(certs: Path, name: str) -> ssl.SSLContext:
    return await asyncio.to_thread(client_context, TlsFiles.in_directory(certs, name))


@pytest.mark.parametrize("name", ["conductor", "manager"])
async def test_these_certificates_open_it(certs: Path, name: str) -> None:
    refused: list[Any] = []
    async with node(certs, refused) as exchange:
        address = await exchange.listen()
        async with administer(address, tls=await context(certs, name)) as (admin, hello):
            assert (hello.node, hello.incarnation) == ("a", 7)
            assert (await admin.status(StatusRequest())).up_s == 1.5
    assert refused == []


async def test_that_of_another_node_does_not(certs: Path) -> None:
    refused: list[tuple[str, str]] = []
    async with node(certs, refused) as exchange:
        address = await exchange.listen()
        async with administer(address, tls=await context(certs, "b")) as (admin, _):
            with pytest.raises(GRPCError, match=r"The certificate of 'b' does not open this service") as raised:
                await admin.status(StatusRequest())
            assert raised.value.status is Status.PERMISSION_DENIED
    [(who, why)] = refused
    assert who.startswith("127.0.0.1:")
    assert "only those of conductor and manager" in why


async def test_a_certificate_does_without_a_secret_only_where_there_is_none(certs: Path) -> None:
    refused: list[tuple[str, str]] = []
    async with node(certs, refused, secret=SECRET) as exchange:
        address = await exchange.listen()
        tls = await context(certs, "manager")
        async with administer(address, tls=tls) as (admin, _):
            with pytest.raises(GRPCError) as raised:
                await admin.status(StatusRequest())
            assert raised.value.status is Status.UNAUTHENTICATED
        async with administer(address, tls=tls, secret=SECRET) as (admin, _):
            assert (await admin.status(StatusRequest())).node == "a"
    assert len(refused) == 1


async def test_who_says_it_is_another_node_is_found_out(certs: Path) -> None:
    async with node(certs, [], name="b") as exchange:
        address = await exchange.listen()
        with pytest.raises(LinkRefused, match="its certificate is not that of node 'a', which it says it is"):
            async with administer(address, tls=await context(certs, "manager")):
                pass


async def test_a_foreign_authority_is_not_believed(certs: Path, tmp_path: Path) -> None:
    def foreign() -> ssl.SSLContext:
        create_authority(tmp_path)
        return client_context(issue(tmp_path, "manager"))

    async with node(certs, []) as exchange:
        address = await exchange.listen()
        with pytest.raises(LinkRefused, match="the certificate of the node there is not acceptable"):
            async with administer(address, tls=await asyncio.to_thread(foreign)):
                pass


async def test_who_says_nothing_is_given_up() -> None:
    accepted: list[Any] = []
    server = await asyncio.start_server(lambda reader, writer: accepted.append((reader, writer)), "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    with pytest.raises(Unreachable, match="no node could be reached"):
        async with administer(f"{host}:{port}", timeout_s=0.05):
            pass
    for _, writer in accepted:
        writer.close()
    server.close()
    await server.wait_closed()
