"""Dials other nodes: for a new link, and again for one whose connection broke; never without a bound."""

from __future__ import annotations

import asyncio
import itertools
import os
import ssl
from collections.abc import Awaitable, Callable
from typing import Final

from rolecall.core.errors import ConfigError
from rolecall.core.on_use import OnUse
from rolecall.wire.addresses import is_loopback, parse_address
from rolecall.wire.exchange_limits import ExchangeLimits
from rolecall.wire.grpc_client import connect
from rolecall.wire.handshaking import Handshaker, Intent, LinkedAlready
from rolecall.wire.limits import Malformed
from rolecall.wire.link import Link
from rolecall.wire.peers import FINAL_CODES, LinkRefused, Peer, Unreachable
from rolecall.wire.pipe import Pipe, PipeClosed
from rolecall.wire.roster import Roster

__all__ = ("Dialler",)

_PAUSE_MAX_S: Final = 2.0
_REDIAL_PAUSE_MAX_S: Final = 0.25
_REDIALS_MAX: Final = 100
_TLS_ATTEMPTS: Final = 3
_REFUSALS_MAX: Final = 3
"""Connections refused on this machine after which a node that was there is held to be gone."""


class Dialler:
    """Makes connections for one node; `on_established` is called with each link and the pipe that carries it."""

    __slots__ = ("_expected_", "_handshaker", "_limits", "_numbers", "_on_established", "_roster", "connect", "tls")

    _expected = OnUse(dict[tuple[str, int], list[asyncio.Future[Link]]])

    def __init__(
        self,
        handshaker: Handshaker,
        roster: Roster,
        limits: ExchangeLimits,
        on_established: Callable[[Link, Pipe], None],
    ) -> None:
        self._handshaker, self._roster, self._limits = handshaker, roster, limits
        self._on_established = on_established
        self.tls: ssl.SSLContext | None = None
        self.connect: Callable[[str], Awaitable[Pipe]] | None = None
        """What makes a connection, if not gRPC."""
        self._numbers = itertools.count(1)

    async def dial(self, address: str, name: str | None) -> Link:
        """See `Exchange.dial`."""
        if name is not None and (link := self._roster.links.get(name)) is not None:
            return link
        if self.connect is None:
            self._check_allowed(address)
        number, problem = next(self._numbers), ""
        for attempt in range(self._limits.dial_attempts):
            if attempt:
                await asyncio.sleep(min(self._limits.dial_pause_s * 2 ** (attempt - 1), _PAUSE_MAX_S))
            try:
                return await self._attempt(Intent(address, number, attempt, name=name))
            except LinkedAlready as found:
                if (link := await self._expect(found.peer)) is not None:
                    return link
                problem = f"node {found.peer.name!r} was about to make the link itself, and has not"
            except (LinkRefused, Malformed, PipeClosed, OSError) as error:
                problem = self._problem(error, attempt)
        raise Unreachable(address, self._limits.dial_attempts, problem)

    def _check_allowed(self, address: str) -> None:
        host, _ = parse_address(address)
        if self.tls is None and not is_loopback(host):
            raise ConfigError(
                address,
                "it is not on this machine, and without TLS anyone in between could read along",
                hint="Make certificates with `rolecall certs init` and `rolecall certs issue`",
            )

    def _problem(self, error: Exception, attempt: int) -> str:
        """Return what to say of a failed attempt; raise `LinkRefused` again where another cannot do better."""
        if isinstance(error, LinkRefused):
            if error.code in FINAL_CODES or (error.code == "tls" and attempt >= _TLS_ATTEMPTS - 1):
                raise error
            return error.reason
        if isinstance(error, TimeoutError):
            return f"no answer within {self._limits.handshake_s:g} s"
        if isinstance(error, OSError):
            return os.strerror(error.errno).lower() if error.errno else str(error) or type(error).__name__
        return str(error)

    # ------------------------------------------------------------------------------------------------- attempts

    async def _attempt(self, intent: Intent) -> Link:
        async with asyncio.timeout(self._limits.handshake_s):
            pipe = await self._connect(intent.address)
            try:
                link = await self._handshaker.dialled(pipe, intent)
            except BaseException as error:
                pipe.close(f"{type(error).__name__} during the handshake")
                if isinstance(error, PipeClosed) and self.tls is not None and not pipe.answered:
                    raise _refused_by_tls(intent.address, error, pipe.refusal) from None
                raise
        self._on_established(link, pipe)
        return link

    async def _connect(self, address: str) -> Pipe:
        if self.connect is not None:
            return await self.connect(address)
        return await connect(*parse_address(address), self.tls)

    async def _expect(self, peer: Peer) -> Link | None:
        """Return the link that `peer` makes, or None if it does not in time."""
        if (link := self._roster.to(peer)) is not None:
            return link
        waiter: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        waiters = self._expected.setdefault(peer.life, [])
        waiters.append(waiter)
        try:
            async with asyncio.timeout(self._limits.handshake_s):
                return await waiter
        except TimeoutError:
            return None
        finally:
            waiters.remove(waiter)
            if not waiters:
                self._expected.pop(peer.life, None)

    def met(self, link: Link) -> None:
        """Tell whoever waits that a link has come about."""
        for waiter in self._expected.get(link.peer.life, ()):
            if not waiter.done():
                waiter.set_result(link)

    # ---------------------------------------------------------------------------------------------- once more

    def _is_near(self, address: str) -> bool:
        """Return whether nothing but the absence of a process can be why a connection is refused there."""
        return self.connect is not None or is_loopback(parse_address(address)[0])

    async def redial(self, link: Link) -> None:
        """Give a link another connection; end it when its peer does not want that, or is not there any more."""
        assert link.dialled is not None
        refusals = 0
        for attempt in range(_REDIALS_MAX):
            if link.lost or link.connected:
                return
            if attempt:
                await asyncio.sleep(min(0.01 * 2**attempt, _REDIAL_PAUSE_MAX_S))
            try:
                await self._attempt(Intent(link.dialled, link.number, link.connection + 1 + attempt, link=link))
            except LinkRefused as refused:
                if refused.code not in ("linked", "tls"):
                    link.end("lost", refused.reason)
            except ConnectionRefusedError:
                refusals += 1
                if refusals >= _REFUSALS_MAX and self._is_near(link.dialled):
                    link.end("lost", f"nobody listens at {link.dialled} any more")
            except (Malformed, PipeClosed, OSError):
                continue  # until the link has been without a connection for too long
        link.end("lost", f"{_REDIALS_MAX} connections failed")


def _refused_by_tls(address: str, error: PipeClosed, refusal: str | None) -> LinkRefused:
    if refusal is not None:
        return LinkRefused(address, "certificate", f"the node there does not accept this node's certificate: {refusal}")
    return LinkRefused(
        address,
        "tls",
        "the node there ended the connection before its first word, as nodes do that do not accept this node's "
        f"certificate ({error}). Its log has the reason",
    )
