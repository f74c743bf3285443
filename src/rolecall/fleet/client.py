"""Looking after nodes and runs from outside: `async with manage(address, secret=...) as client`.

What the command line does with a node or a run goes through this; programs in Python may use it as well, those in other
languages the same service, `protos/rolecall/v1/admin.proto`. Import this module where it is needed only: it takes a
while.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

from grpclib.const import Status
from grpclib.exceptions import GRPCError, StreamTerminatedError

from rolecall.core.errors import ConfigError, DeadlineExceeded, RolecallError
from rolecall.core.ids import RoleId
from rolecall.fleet import yaml_tree
from rolecall.fleet.access import Access
from rolecall.fleet.records import Record
from rolecall.wire import admin as a
from rolecall.wire.peers import Unreachable
from rolecall.wire.security import TlsFiles, client_context

__all__ = ("Client", "manage", "manage_by", "manage_record")

_OURS: Final = frozenset(
    {Status.INVALID_ARGUMENT, Status.NOT_FOUND, Status.FAILED_PRECONDITION, Status.PERMISSION_DENIED}
)
"""What says that the request was wrong, and would be again."""


class Client:
    """A connection to the administrative service of a node, or of a run with all its nodes.

    Its methods raise `ConfigError` for what the other side finds wrong with a request, `DeadlineExceeded`,
    `Unreachable` where the connection ends, and `RolecallError` for any other error that a role raised there.
    """

    def __init__(self, address: str, stub: a.AdminStub, hello: a.HelloReply) -> None:
        self.address, self._stub, self._hello = address, stub, hello

    @property
    def nodes(self) -> list[str]:
        """The nodes that are looked after there."""
        return list(self._hello.nodes)

    @property
    def application(self) -> str | None:
        """The application that runs there, if one does."""
        return self._hello.application or None

    async def status(self, node: str = "", roles: str = "") -> a.StatusReply:
        """Return what runs on a node, or those of its roles that match a pattern; `node` is needed among several."""
        with self._asking():
            return await self._stub.status(a.StatusRequest(node=node, roles=roles))

    async def call(
        self, role: str, channel: str, arguments: Mapping[str, Any] | None = None, *, deadline_s: float = 0
    ) -> Any:
        """Call a service or task of a role in the name of its node; return the result as JSON knows it."""
        text = json.dumps(dict(arguments or {}))
        with self._asking():
            request = a.CallRequest(role=role, channel=channel, arguments=text, deadline_s=deadline_s)
            return json.loads((await self._stub.call(request)).result)

    async def stream(
        self, role: str, channel: str, arguments: Mapping[str, Any] | None = None, *, deadline_s: float = 0
    ) -> AsyncGenerator[Any, None]:
        """Call any channel of a role as `call` does; yield the items of a stream, or the one result of another."""
        text = json.dumps(dict(arguments or {}))
        with self._asking():
            request = a.CallRequest(role=role, channel=channel, arguments=text, deadline_s=deadline_s)
            async for reply in self._stub.stream(request):
                yield json.loads(reply.result)

    async def pause(self, roles: str) -> list[RoleId]:
        """Have a role, or all that match a pattern, take nothing new; return them when nothing of them runs."""
        with self._asking():
            return [RoleId(role) for role in (await self._stub.pause(a.RolesRequest(roles=roles))).roles]

    async def resume(self, roles: str) -> list[RoleId]:
        """Have paused roles go on; return them."""
        with self._asking():
            return [RoleId(role) for role in (await self._stub.resume(a.RolesRequest(roles=roles))).roles]

    async def relate(self, of: str, relationship: str, roles: Sequence[str], *, how: str = "replace") -> None:
        """Have a relationship of a role, or of all roles of a node, name others; `how` may be "add" or "remove"."""
        request = a.RelateRequest(of=of, relationship=relationship, roles=list(roles), how=how)
        with self._asking():
            await self._stub.relate(request)

    async def alias(self, of: str, relationship: str, other: str) -> None:
        """Have a relationship of a role, or of all roles of a node, stand for another one of theirs."""
        with self._asking():
            await self._stub.relate(a.RelateRequest(of=of, relationship=relationship, alias=other))

    async def assign(
        self,
        name: str,
        role: Mapping[str, Any],
        *,
        node: str = "",
        relationships: Mapping[str, Sequence[str]] | None = None,
    ) -> RoleId:
        """Create and start a role, given as under `roles:` in an application file; return its id."""
        targets = {key: a.RoleIds(roles=list(roles)) for key, roles in (relationships or {}).items()}
        request = a.AssignRequest(node=node, name=name, role=yaml_tree.dump(dict(role)), relationships=targets)
        with self._asking():
            return RoleId((await self._stub.assign(request)).role)

    async def deploy(self, application: str) -> list[RoleId]:
        """Start the roles that an expanded application, in YAML, has on a node that has none; return their ids."""
        with self._asking():
            reply = await self._stub.deploy(a.DeployRequest(application=application))
            return [RoleId(role) for role in reply.roles]

    async def stop(self, roles: str = "", *, reason: str = "") -> list[RoleId]:
        """Stop a role, or all that match a pattern, and return them; or, without any, the whole node or run."""
        with self._asking():
            return [RoleId(role) for role in (await self._stub.stop(a.StopRequest(roles=roles, reason=reason))).roles]

    async def logs(
        self, source: str = "", level: str = "info", *, past: int = 100, follow: bool = False
    ) -> AsyncIterator[a.LogLine]:
        """Yield the last lines of the log, and with `follow` those that come."""
        request = a.LogsRequest(source=source, level=level, past=past, follow=follow)
        with self._asking():
            async for line in self._stub.logs(request):
                yield line

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except GRPCError as error:
            raise _error(error) from None
        except (StreamTerminatedError, OSError) as error:
            raise Unreachable(self.address, 1, f"the connection ended: {error}") from None


def _error(error: GRPCError) -> RolecallError:
    text = error.message or error.status.name
    if error.status in _OURS:
        return ConfigError.rebuilt(text, {})
    if error.status is Status.DEADLINE_EXCEEDED:
        return DeadlineExceeded.rebuilt(text, {})
    return RolecallError(text)


@asynccontextmanager
async def manage(
    address: str, *, secret: bytes | None = None, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Client]:
    """Connect to whoever looks after nodes at `address`.

    Raises:
        Unreachable: nobody answers there.
        LinkRefused: it has another secret, or a certificate that is not its own.
    """
    async with a.administer(address, name="manager", secret=secret, tls=tls) as (stub, hello):
        yield Client(address, stub, hello)


@asynccontextmanager
async def manage_by(address: str, access: Access) -> AsyncIterator[Client]:
    """Connect to a node that somebody started, with its secret, or with a certificate of `manager` or `conductor`."""
    secret = await asyncio.to_thread(access.secret)
    tls = await asyncio.to_thread(_context, access) if access.certs is not None else None
    if secret is None and tls is None:
        raise ConfigError(address, "what lets you look after the node there is missing", hint=_HINT)
    async with manage(address, secret=secret, tls=tls) as client:
        yield client


_HINT = "Say --certs DIR, where manager.pem or conductor.pem is, or --secret-file FILE"


def _context(access: Access) -> ssl.SSLContext:
    from rolecall.wire.certificates import check_own_certificate

    assert access.certs is not None
    present = [name for name in reversed(a.ADMINISTRATORS) if (access.certs / f"{name}.pem").exists()]
    if not present:
        missing = " nor ".join(f"{name}.pem" for name in a.ADMINISTRATORS)
        raise ConfigError(str(access.certs), f"there is neither {missing}", hint="`rolecall certs issue manager`")
    files = TlsFiles.in_directory(access.certs, present[0])
    check_own_certificate(files, present[0])
    return client_context(files)


@asynccontextmanager
async def manage_record(record: Record) -> AsyncIterator[Client]:
    """Connect to a run or a node of this machine."""
    async with manage(record.address, secret=record.secret) as client:
        yield client
