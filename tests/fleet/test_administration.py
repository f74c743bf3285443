"""A client that the stock compiler made of `protos/`, as another language would have it, with real nodes behind it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import anyio
import pytest

from rolecall.fleet.access import Access
from rolecall.fleet.deployment import Deployment
from rolecall.fleet.gate import standing
from rolecall.fleet.standing_node import StandingNode, StandingNodeConfig

from .served import served

ROOT = Path(__file__).parents[2]

CLIENT = """
import hmac, json, sys
sys.path.insert(0, sys.argv[1])
import grpc
from rolecall.v1 import admin_pb2 as pb, admin_pb2_grpc

admin = admin_pb2_grpc.AdminStub(grpc.insecure_channel(sys.argv[2]))
secret = bytes.fromhex(sys.argv[3])
hello = admin.Hello(pb.HelloRequest(name="test", nonce=b"n" * 16), timeout=20)
assert (hello.application, list(hello.nodes)) == ("adding", ["n1", "n2"]), hello
proof = hmac.digest(secret, b"rolecall admin client" + hello.nonce, "sha256").hex()
told = {"metadata": [("rolecall-proof", proof)], "timeout": 20}


def refused(code, call, request):
    try:
        answer = call(request, **told)
        list(answer) if hasattr(answer, "__next__") else None
    except grpc.RpcError as error:
        assert error.code() is code, error
        return error.details()
    raise SystemExit(f"not refused: {request}")


status = admin.Status(pb.StatusRequest(node="n1", roles="*/adder"), **told)
assert [(role.role, role.class_path, role.status) for role in status.roles] == [
    ("n1/adder", "managed_roles:Adder", "ready")
], status
assert status.up_s > 0 and status.incarnation > 0 and status.application == "adding", status

reply = admin.Call(pb.CallRequest(role="n1/adder", channel="add", arguments=json.dumps({"numbers": [1, 2]})), **told)
assert json.loads(reply.result) == 3, reply
C = grpc.StatusCode
assert "Did you mean 'add'" in refused(C.NOT_FOUND, admin.Call, pb.CallRequest(role="n1/adder", channel="ad"))
assert "n3" in refused(C.INVALID_ARGUMENT, admin.Call, pb.CallRequest(role="n3/adder", channel="add"))
assert "no JSON" in refused(
    C.INVALID_ARGUMENT, admin.Call, pb.CallRequest(role="n1/adder", channel="add", arguments="{")
)
assert "by name" in refused(
    C.INVALID_ARGUMENT, admin.Call, pb.CallRequest(role="n1/adder", channel="add", arguments="[1]")
)
assert "may not call" in refused(C.PERMISSION_DENIED, admin.Call, pb.CallRequest(role="n1/adder", channel="secret"))
assert "went wrong" in refused(C.ABORTED, admin.Call, pb.CallRequest(role="n1/adder", channel="fail"))
waiting = pb.CallRequest(role="n1/adder", channel="wait", deadline_s=0.01)
assert "within 0.01 s" in refused(C.DEADLINE_EXCEEDED, admin.Call, waiting)

spec = "class: managed_roles:Asker"
targets = {"adders": pb.RoleIds(roles=["*/adder"])}
made = admin.Assign(pb.AssignRequest(node="n2", name="asker", role=spec, relationships=targets), **told)
assert made.role == "n2/asker", made
who = admin.Call(pb.CallRequest(role="n2/asker", channel="who"), **told).result
assert json.loads(who) == ["n1/adder", "n2/adder"], who
assert "role 'x'" in refused(C.INVALID_ARGUMENT, admin.Assign, pb.AssignRequest(node="n2", name="x", role="[1]"))

following = admin.Logs(pb.LogsRequest(source="n1/adder", past=1, follow=True), **told)
line = next(following)
assert (line.level, line.source, line.text) == ("info", "n1/adder", "sum=3") and line.time_s > 1e9, line
admin.Call(pb.CallRequest(role="n1/adder", channel="add", arguments='{"numbers": [4]}'), **told)
assert next(following).text == "sum=7"
following.cancel()
assert "no level" in refused(C.INVALID_ARGUMENT, admin.Logs, pb.LogsRequest(level="loud"))

assert "those of a run" in refused(C.INVALID_ARGUMENT, admin.Deploy, pb.DeployRequest(application="name: more"))
assert "no mapping" in refused(C.INVALID_ARGUMENT, admin.Deploy, pb.DeployRequest(application="[1]"))

counted = admin.Stream(pb.CallRequest(role="n1/adder", channel="count", arguments='{"to": 3}'), **told)
assert [json.loads(item.result) for item in counted] == [1, 2, 3]
assert "Did you mean 'count'" in refused(C.NOT_FOUND, admin.Stream, pb.CallRequest(role="n1/adder", channel="coun"))
assert list(admin.Pause(pb.RolesRequest(roles="*/adder"), **told).roles) == ["n1/adder", "n2/adder"]
assert list(admin.Resume(pb.RolesRequest(roles="n*/adder"), **told).roles) == ["n1/adder", "n2/adder"]
admin.Relate(pb.RelateRequest(of="n2/asker", relationship="adders", roles=["*/adder"], how="remove"), **told)
admin.Relate(pb.RelateRequest(of="n2/asker", relationship="adders", roles=["n1/adder"]), **told)
who = admin.Call(pb.CallRequest(role="n2/asker", channel="who"), **told).result
assert json.loads(who) == ["n1/adder"], who
both = pb.RelateRequest(of="n2/asker", relationship="adders", roles=["n1/adder"], alias="others")
assert "names no roles itself" in refused(C.INVALID_ARGUMENT, admin.Relate, both)

assert list(admin.Stop(pb.StopRequest(roles="*/asker", reason="test"), **told).roles) == ["n2/asker"]
assert "no role" in refused(C.NOT_FOUND, admin.Stop, pb.StopRequest(roles="*/asker"))
assert list(admin.Stop(pb.StopRequest(), **told).roles) == []
print("fine")
"""


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where the stock compiler has put its code for grpcio."""
    folder = tmp_path_factory.mktemp("stock")
    protos = ROOT / "protos"
    command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{protos}", f"--python_out={folder}"]
    subprocess.run([*command, f"--grpc_python_out={folder}", *map(str, protos.rglob("admin.proto"))], check=True)
    for package in ("rolecall", "rolecall/v1"):  # before the installed package of that name
        (folder / package / "__init__.py").touch()
    return folder


async def test_a_client_in_another_language_looks_after_nodes(stock: Path, deployed: Deployment) -> None:
    async with served(deployed) as (management, address, secret):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", CLIENT, str(stock), address, secret.hex(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate()
        assert output == b"fine\n", errors.decode()
        assert management.stop.is_set()


# ------------------------------------------------------------------------------------------ a node by itself


DEPLOYER = '''
import hmac, json, sys
sys.path.insert(0, sys.argv[1])
import grpc
from rolecall.v1 import admin_pb2 as pb, admin_pb2_grpc

admin = admin_pb2_grpc.AdminStub(grpc.insecure_channel(sys.argv[2]))
hello = admin.Hello(pb.HelloRequest(name="test"), timeout=20)
assert (hello.node, hello.application, list(hello.nodes)) == ("lone", "", ["lone"]), hello
proof = hmac.digest(bytes.fromhex(sys.argv[3]), b"rolecall admin client" + hello.nonce, "sha256").hex()
told = {"metadata": [("rolecall-proof", proof)], "timeout": 20}
C = grpc.StatusCode


def refused(code, application):
    try:
        admin.Deploy(pb.DeployRequest(application=application), **told)
    except grpc.RpcError as error:
        assert error.code() is code, error
        assert not admin.Status(pb.StatusRequest(), **told).application
        return error.details()
    raise SystemExit("not refused")


application = """
name: more
expanded: true
seed: 1
nodes: {lone: {}, other: {}}
roles:
  lone: {extra: {class: "managed_roles:Adder", options: {start: 5}}, ask: {class: "managed_roles:Asker"}}
  other: {adder: {class: "os:system"}}
relationships:
  lone/ask: {adders: "*/extra"}
"""
assert "no setup today" in refused(C.ABORTED, application.replace(":Asker", ":Broken"))
foreign = application.replace("managed_roles:Asker", "os:system")
assert "does not import 'os:system'" in refused(C.INVALID_ARGUMENT, foreign)
assert "not expanded" in refused(C.INVALID_ARGUMENT, application.replace("expanded: true", ""))
assert list(admin.Deploy(pb.DeployRequest(application=application), **told).roles) == ["lone/extra", "lone/ask"]
status = admin.Status(pb.StatusRequest(), **told)
assert status.application == "more", status
assert [role.role for role in status.roles] == ["lone/node", "lone/extra", "lone/ask"], status
who = admin.Call(pb.CallRequest(role="lone/ask", channel="who"), **told).result
assert json.loads(who) == ["lone/extra"], who
summed = admin.Call(pb.CallRequest(role="lone/extra", channel="add", arguments=\'{"numbers": [1]}\'), **told).result
assert json.loads(summed) == 6, summed
admin.Stop(pb.StopRequest(reason="done"), **told)
print("fine")
'''


@pytest.mark.may_block("it makes the secret file, and opens the audit log")
async def test_a_node_is_deployed_to_without_a_conductor(stock: Path, deployed: Deployment, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_bytes(b"what all nodes of this test know")
    access = Access(secret_file=secret)
    config = StandingNodeConfig(name="lone", listen="127.0.0.1:0", access=access, packages=("managed_roles",))
    listening: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
    stop = anyio.Event()
    async with standing("lone", access.secret()) as desk:
        node = StandingNode(config, listening.set_result, desk.services)
        serving = asyncio.create_task(node.serve(stop))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", DEPLOYER, str(stock), str(await listening), secret.read_bytes().hex(),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        output, errors = await process.communicate()
        assert output == b"fine\n", errors.decode()
        await serving
    assert stop.is_set()
