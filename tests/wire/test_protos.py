"""The protobuf side of a node: generated code, the administrative service, and clients in any language."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError

from rolecall.wire.admin import (
    AdminService,
    Admission,
    Chunk,
    LogLine,
    StatusReply,
    StatusRequest,
    administer,
)
from rolecall.wire.chunk import chunk_decode, chunk_encode
from rolecall.wire.exchange import Exchange
from rolecall.wire.handshake import Dialling
from rolecall.wire.peers import LinkRefused, Peer, Unreachable
from rolecall.wire.security import new_secret

ROOT = Path(__file__).parents[2]
SECRET = new_secret()


class Admin(AdminService):
    """A node's service, as far as these tests need it."""

    async def status(self, status_request: StatusRequest) -> StatusReply:
        return StatusReply(node="a", up_s=1.5)

    async def logs(self, logs_request: Any) -> Any:
        for i in range(3):
            yield LogLine(text=f"line {i}")


def node(secret: bytes | None = SECRET) -> Exchange:
    exchange = Exchange(
        Peer("a", 7, capabilities=("shm",)),
        secret=secret,
        on_link=lambda link: None,
        on_lost=lambda peer, reason: None,
    )
    admission = Admission(secret)
    exchange.services.append(Admin(lambda: exchange.me, admission))
    exchange.check_request = admission.check
    return exchange


# --------------------------------------------------------------------------------------------- generated code


def test_the_generated_code_is_what_the_protos_say(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "protos" / "generate.py")
    assert spec is not None and spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    generate.generate(tmp_path)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.py")}
    kept = {path.relative_to(generate.TARGET): path.read_text() for path in generate.TARGET.rglob("*.py")}
    assert kept == made, "run `python protos/generate.py`"


def test_it_is_used_in_one_module_only() -> None:
    starts = ("import betterproto", "from betterproto", "from rolecall.wire.proto")
    sources = [path for path in (ROOT / "src").rglob("*.py") if "proto" not in path.parts]
    users = [path.name for path in sources if any(line.startswith(starts) for line in path.read_text().splitlines())]
    assert users == ["admin.py"]


@pytest.mark.parametrize("segments", [[], [b""], [b"a", b"x" * 300, b""]])
def test_a_chunk_of_ours_is_a_chunk_of_protobuf(segments: list[bytes]) -> None:
    assert Chunk().parse(chunk_encode(segments)).segments == segments
    assert chunk_decode(bytes(Chunk(segments=segments))) == segments


# ------------------------------------------------------------------------------------------------- the service


async def test_a_node_says_hello_and_answers() -> None:
    async with node() as exchange:
        address = await exchange.listen()
        async with administer(address, secret=SECRET) as (admin, _):
            assert (await admin.status(StatusRequest())).up_s == 1.5
            assert [line.text async for line in admin.logs(StatusRequest())] == ["line 0", "line 1", "line 2"]
            with pytest.raises(GRPCError) as raised:
                await admin.stop(StatusRequest())
            assert raised.value.status is Status.UNIMPLEMENTED


async def test_who_does_not_know_the_secret_is_not_served() -> None:
    async with node() as exchange:
        address = await exchange.listen()
        with pytest.raises(LinkRefused, match="node 'a' has another secret"):
            async with administer(address, secret=new_secret()):
                pass
        async with administer(address) as (admin, _):
            with pytest.raises(GRPCError, match="no valid 'rolecall-proof'") as raised:
                await admin.status(StatusRequest())
            assert raised.value.status is Status.UNAUTHENTICATED


async def test_nobody_there() -> None:
    async with node() as exchange:
        address = await exchange.listen()
    with pytest.raises(Unreachable, match=address):
        async with administer(address):
            pass


async def test_a_request_that_is_too_long_is_refused() -> None:
    async with node() as exchange:
        address = await exchange.listen()
        async with administer(address, secret=SECRET) as (admin, _):
            with pytest.raises(GRPCError) as raised:
                await admin.status(StatusRequest(roles="x" * 5_000_000))
            assert raised.value.status is Status.RESOURCE_EXHAUSTED
            assert (await admin.status(StatusRequest())).node == "a"


# ------------------------------------------------------------------------- a client made by the stock compiler


CLIENT = """
import hashlib, hmac, os, sys
sys.path.insert(0, sys.argv[1])
import grpc
from rolecall.v1 import admin_pb2, admin_pb2_grpc, link_pb2, link_pb2_grpc

channel = grpc.insecure_channel(sys.argv[2])
secret = bytes.fromhex(sys.argv[3])
admin = admin_pb2_grpc.AdminStub(channel)
hello = admin.Hello(admin_pb2.HelloRequest(name="test", nonce=b"n" * 16), timeout=20)
assert (hello.node, hello.incarnation, list(hello.capabilities)) == ("a", 7, ["shm", "shared-memory"]), hello
assert hello.proof == hmac.digest(secret, b"rolecall admin node" + b"n" * 16, "sha256")
try:
    admin.Status(admin_pb2.StatusRequest(), timeout=20)
    raise SystemExit("served without a proof")
except grpc.RpcError as error:
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED, error
proof = hmac.digest(secret, b"rolecall admin client" + hello.nonce, "sha256").hex()
metadata = [("rolecall-proof", proof)]
assert admin.Status(admin_pb2.StatusRequest(), metadata=metadata, timeout=20).up_s == 1.5
lines = [line.text for line in admin.Logs(admin_pb2.LogsRequest(), metadata=metadata, timeout=20)]
assert lines == ["line 0", "line 1", "line 2"], lines

first = link_pb2.Chunk(segments=[bytes.fromhex(sys.argv[4])])
answers = link_pb2_grpc.LinkStub(channel).Connect(iter([first]), timeout=20)
welcome = next(answers)
assert b"welcome" in welcome.segments[0] and len(welcome.segments[1]) == 32, welcome
print("fine", flush=True)
os._exit(0)  # grpcio may wait for ever, when the interpreter ends, for a thread that has ended with a lock in its hand
"""


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the stock compiler has put its code for grpcio."""
    folder = tmp_path_factory.mktemp("stock")
    protos = ROOT / "protos"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"--python_out={folder}"]
    subprocess.run([*command, f"--grpc_python_out={folder}", *map(str, protos.rglob("*.proto"))], check=True)
    for package in ("rolecall", "rolecall/v1"):  # before the installed package of that name
        (folder / package / "__init__.py").touch()
    return folder


async def test_a_client_in_another_language_is_served(stock: Path) -> None:
    async with node() as exchange:
        address = await exchange.listen()
        (hello,) = Dialling(Peer("client", 1), SECRET, address).hello()
        client = [sys.executable, "-c", CLIENT, str(stock), address, SECRET.hex(), bytes(hello).hex()]
        with anyio.fail_after(25):  # after which it is killed
            done = await anyio.run_process(client, check=False)
    assert done.stdout == b"fine\n", done.stderr.decode()
