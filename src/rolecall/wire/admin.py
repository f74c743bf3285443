"""The administrative service of a node, `protos/rolecall/v1/admin.proto`: its messages, who may use it, and a client.

What betterproto generates is used here and nowhere else, so that another library can take its place. Import this
module where it is needed only: it takes a while.
"""

from __future__ import annotations

import hashlib
import hmac
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any, Final

from grpclib.const import Status
from grpclib.events import RecvRequest
from grpclib.exceptions import GRPCError, StreamTerminatedError

from rolecall.wire.addresses import parse_address
from rolecall.wire.grpc_client import open_channel
from rolecall.wire.handshake import PROTOCOLS
from rolecall.wire.peers import LinkRefused, Peer, Unreachable
from rolecall.wire.proto.rolecall.v1 import (
    AdminBase,
    AdminStub,
    Chunk,
    Counter,
    DeployReply,
    DeployRequest,
    HelloReply,
    HelloRequest,
    LinkStatus,
    LogLine,
    LogsRequest,
    RoleStatus,
    StatusReply,
    StatusRequest,
    StopReply,
    StopRequest,
)
from rolecall.wire.security import new_nonce

__all__ = (
    "PROOF_KEY",
    "AdminService",
    "AdminStub",
    "Admission",
    "Chunk",
    "Counter",
    "DeployReply",
    "DeployRequest",
    "HelloReply",
    "HelloRequest",
    "LinkStatus",
    "LogLine",
    "LogsRequest",
    "RoleStatus",
    "StatusReply",
    "StatusRequest",
    "StopReply",
    "StopRequest",
    "administer",
)

PROOF_KEY: Final = "rolecall-proof"
_HELLO: Final = "/rolecall.v1.Admin/Hello"
_PREFIX: Final = "/rolecall.v1.Admin/"
_NONCE_BYTES_MAX: Final = 64
_RELEASE: Final = version("rolecall")


def _proof(secret: bytes, label: bytes, nonce: bytes) -> bytes:
    return hmac.digest(secret, label + nonce, hashlib.sha256)


class Admission:
    """Lets those use the service who know the run's secret; without one, whoever could connect.

    Give `check` to grpclib as a listener of `RecvRequest`.
    """

    def __init__(self, secret: bytes | None) -> None:
        self._secret, self.nonce = secret, new_nonce()

    def proof(self, nonce: bytes) -> bytes:
        """Return what shows a client that this node knows the secret."""
        return _proof(self._secret, b"rolecall admin node", nonce) if self._secret is not None else b""

    async def check(self, request: RecvRequest) -> None:
        """Raise `GRPCError` for a call without a proof."""
        if self._secret is None or not request.method_name.startswith(_PREFIX) or request.method_name == _HELLO:
            return
        given = request.metadata.get(PROOF_KEY, "")
        expected = _proof(self._secret, b"rolecall admin client", self.nonce).hex()
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), expected.encode()):
            raise GRPCError(
                Status.UNAUTHENTICATED, f"The call has no valid {PROOF_KEY!r} in its metadata: see HelloReply.nonce."
            )


class AdminService(AdminBase):
    """Base of a node's service: says hello; the other calls are a subclass's to answer."""

    def __init__(self, me: Callable[[], Peer], admission: Admission) -> None:
        self._me, self._admission = me, admission

    async def hello(self, hello_request: HelloRequest) -> HelloReply:
        """Say who this node is."""
        if len(hello_request.nonce) > _NONCE_BYTES_MAX:
            raise GRPCError(Status.INVALID_ARGUMENT, f"A nonce has {_NONCE_BYTES_MAX} bytes at most.")
        me = self._me()
        return HelloReply(
            node=me.name,
            incarnation=me.incarnation,
            protocol_min=PROTOCOLS[0],
            protocol_max=PROTOCOLS[1],
            release=_RELEASE,
            capabilities=list(me.capabilities),
            nonce=self._admission.nonce,
            proof=self._admission.proof(hello_request.nonce),
        )


@asynccontextmanager
async def administer(
    address: str, *, name: str = "", secret: bytes | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[AdminStub]:
    """Open the administrative service of the node at `address`; `name` is who asks, for its log.

    Raises `Unreachable` where no node answers, and `LinkRefused` where it does not know the secret. Calls raise
    grpclib's `GRPCError`.
    """
    host, port = parse_address(address)
    channel = open_channel(host, port, tls)
    try:
        nonce = new_nonce()
        try:
            reply = await AdminStub(channel).hello(HelloRequest(name=name, nonce=nonce))
        except (OSError, StreamTerminatedError) as error:
            raise Unreachable(address, 1, str(error)) from None
        yield AdminStub(channel, metadata=_metadata(address, reply, secret, nonce))
    finally:
        channel.close()


def _metadata(address: str, reply: HelloReply, secret: bytes | None, nonce: bytes) -> Mapping[str, Any]:
    if secret is None:
        return {}
    if not hmac.compare_digest(reply.proof, _proof(secret, b"rolecall admin node", nonce)):
        raise LinkRefused(address, "secret", f"node {reply.node!r} has another secret: it belongs to another run")
    return {PROOF_KEY: _proof(secret, b"rolecall admin client", reply.nonce).hex()}
