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

from rolecall.wire.addresses import format_address, parse_address
from rolecall.wire.grpc_client import open_channel, peer_certificate
from rolecall.wire.handshake import PROTOCOLS
from rolecall.wire.peers import LinkRefused, Peer, Unreachable
from rolecall.wire.proto.rolecall.v1 import (
    AdminBase,
    AdminStub,
    AssignReply,
    AssignRequest,
    CallReply,
    CallRequest,
    Chunk,
    Counter,
    DeployReply,
    DeployRequest,
    HelloReply,
    HelloRequest,
    LinkStatus,
    LogLine,
    LogsRequest,
    RelateReply,
    RelateRequest,
    RoleIds,
    RolesReply,
    RolesRequest,
    RoleStatus,
    StatusReply,
    StatusRequest,
    StopReply,
    StopRequest,
)
from rolecall.wire.security import certified_name, new_nonce

__all__ = (
    "ADMINISTRATORS",
    "PROOF_KEY",
    "AdminService",
    "AdminStub",
    "Admission",
    "AssignReply",
    "AssignRequest",
    "CallReply",
    "CallRequest",
    "Chunk",
    "Counter",
    "DeployReply",
    "DeployRequest",
    "HelloReply",
    "HelloRequest",
    "LinkStatus",
    "LogLine",
    "LogsRequest",
    "RelateReply",
    "RelateRequest",
    "RoleIds",
    "RoleStatus",
    "RolesReply",
    "RolesRequest",
    "StatusReply",
    "StatusRequest",
    "StopReply",
    "StopRequest",
    "administer",
)

PROOF_KEY: Final = "rolecall-proof"
ADMINISTRATORS: Final = ("conductor", "manager")
"""Whose certificates open the service."""
TIMEOUT_S: Final = 10.0
"""How long a node may take to say hello."""
_HELLO: Final = "/rolecall.v1.Admin/Hello"
_PREFIX: Final = "/rolecall.v1.Admin/"
_NONCE_BYTES_MAX: Final = 64
_RELEASE: Final = version("rolecall")


def _proof(secret: bytes, label: bytes, nonce: bytes) -> bytes:
    return hmac.digest(secret, label + nonce, hashlib.sha256)


class Admission:
    """Lets those use the service who know the secret, where there is one, and have a certificate for it, over TLS.

    Give `check` to grpclib as a listener of `RecvRequest`. `refused` is called with who was not let in, and why.
    """

    def __init__(self, secret: bytes | None, refused: Callable[[str, str], None] = lambda who, why: None) -> None:
        self._secret, self.nonce, self._refused = secret, new_nonce(), refused

    def proof(self, nonce: bytes) -> bytes:
        """Return what shows a client that this node knows the secret."""
        return _proof(self._secret, b"rolecall admin node", nonce) if self._secret is not None else b""

    async def check(self, request: RecvRequest) -> None:
        """Raise `GRPCError` for a call of somebody who may not make it."""
        if not request.method_name.startswith(_PREFIX) or request.method_name == _HELLO:
            return
        if (why := self._missing_certificate(request.peer.cert())) is not None:
            self._refuse(request, Status.PERMISSION_DENIED, why)
        if not self._is_proven(request.metadata.get(PROOF_KEY, "")):
            why = f"The call has no valid {PROOF_KEY!r} in its metadata: see HelloReply.nonce."
            self._refuse(request, Status.UNAUTHENTICATED, why)

    @staticmethod
    def _missing_certificate(certificate: dict[str, Any] | None) -> str | None:
        if certificate is None or (name := certified_name(certificate)) in ADMINISTRATORS:
            return None
        return f"The certificate of {name!r} does not open this service, only those of {' and '.join(ADMINISTRATORS)}."

    def _is_proven(self, given: Any) -> bool:
        if self._secret is None:
            return True
        expected = _proof(self._secret, b"rolecall admin client", self.nonce).hex()
        return isinstance(given, str) and hmac.compare_digest(given.encode(), expected.encode())

    def _refuse(self, request: RecvRequest, status: Status, why: str) -> None:
        host, port = (request.peer.addr() or ("somebody", 0))[:2]
        self._refused(format_address(host, port), why)
        raise GRPCError(status, why)


class AdminService(AdminBase):
    """Base of the service: says hello; the other calls are a subclass's to answer."""

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
    address: str,
    *,
    name: str = "",
    secret: bytes | None = None,
    tls: ssl.SSLContext | None = None,
    timeout_s: float = TIMEOUT_S,
) -> AsyncIterator[tuple[AdminStub, HelloReply]]:
    """Open the administrative service at `address`, and say hello; `name` is who asks, for its log.

    Raises `Unreachable` where no node answers within `timeout_s`, and `LinkRefused` where it does not know the secret,
    or its certificate is not that of the node it says it is. Calls raise grpclib's `GRPCError`.
    """
    host, port = parse_address(address)
    channel = open_channel(host, port, tls)
    try:
        nonce = new_nonce()
        try:
            reply = await AdminStub(channel, timeout=timeout_s).hello(HelloRequest(name=name, nonce=nonce))
        except ssl.SSLCertVerificationError as error:
            problem = f"the certificate of the node there is not acceptable: {error.verify_message}"
            raise LinkRefused(address, "certificate", problem) from None
        except (OSError, StreamTerminatedError, TimeoutError) as error:
            raise Unreachable(address, 1, str(error) or type(error).__name__) from None
        if tls is not None:
            _check_certificate(address, peer_certificate(channel), reply.node)
        yield AdminStub(channel, metadata=_metadata(address, reply, secret, nonce)), reply
    finally:
        channel.close()


def _check_certificate(address: str, certificate: Mapping[str, Any] | None, node: str) -> None:
    if certificate is None or certified_name(certificate) != node:
        raise LinkRefused(address, "certificate", f"its certificate is not that of node {node!r}, which it says it is")


def _metadata(address: str, reply: HelloReply, secret: bytes | None, nonce: bytes) -> Mapping[str, Any]:
    if secret is None:
        return {}
    if not hmac.compare_digest(reply.proof, _proof(secret, b"rolecall admin node", nonce)):
        raise LinkRefused(address, "secret", f"node {reply.node!r} has another secret: it belongs to another run")
    return {PROOF_KEY: _proof(secret, b"rolecall admin client", reply.nonce).hex()}
