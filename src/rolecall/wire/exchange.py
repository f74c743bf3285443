"""What connects one node with others: it listens and dials, and keeps each link alive or says that it is lost."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import msgspec

from rolecall.core.errors import ConfigError
from rolecall.core.on_use import OnUse
from rolecall.wire.dialling import Dialler
from rolecall.wire.exchange_limits import ExchangeLimits
from rolecall.wire.grpc_server import Listener
from rolecall.wire.handshaking import Handshaker
from rolecall.wire.landing import Landing
from rolecall.wire.limits import Malformed
from rolecall.wire.link import Ending, Link
from rolecall.wire.pacing import Pace
from rolecall.wire.peers import LinkRefused, Peer, RefusedByPeer
from rolecall.wire.pipe import Pipe, PipeClosed
from rolecall.wire.roster import Roster
from rolecall.wire.security import TlsFiles, check_listening, check_secret, client_context, server_context
from rolecall.wire.session import Session
from rolecall.wire.shared_memory import CAPABILITY, SharedMemory
from rolecall.wire.suspicion import Suspicion
from rolecall.wire.ticker import Ticker
from rolecall.wire.turns import Turns

if TYPE_CHECKING:
    from grpclib._typing import IServable
    from grpclib.events import RecvRequest

__all__ = ("Exchange", "ExchangeLimits")

logger = logging.getLogger(__name__)


class Exchange:
    """The links of one node; use it as an async context manager.

    `secret` is what all nodes of a run know, `tls` the files for mutual TLS; without `tls` all stays on this machine.
    `on_link` is called with each new link, and sets its `on_frame`; `on_lost` with the peer and the reason when one
    ends, unless this side has closed it. Both are called by the event loop, and must not raise. `services` are further
    gRPC services to offer where the node listens. `on_refused` is called with where somebody was who dialled, and why
    there is no link: this side did not want it, or the other.
    """

    __slots__ = (
        "_closing", "_dialler", "_handshaker", "_landing", "_listeners_", "_on_link", "_on_lost", "_on_refused",
        "_pace_of", "_pipes", "_roster", "_secret", "_tasks_", "_ticker", "_tls", "_turns", "check_request", "limits",
        "me", "services", "shared_memory",
    )  # fmt: skip

    _listeners = OnUse(list[Listener])
    _tasks = OnUse(set[asyncio.Task[None]])

    def __init__(
        self,
        me: Peer,
        *,
        secret: bytes | None = None,
        tls: TlsFiles | None = None,
        on_link: Callable[[Link], None],
        on_lost: Callable[[Peer, str], None],
        limits: ExchangeLimits | None = None,
        services: Sequence[IServable] = (),
        check_request: Callable[[RecvRequest], Coroutine[Any, Any, None]] | None = None,
        on_refused: Callable[[str, str], None] = lambda remote, why: None,
    ) -> None:
        check_secret(secret)
        self.limits = limits or ExchangeLimits()
        self.shared_memory = SharedMemory(self.limits.shared_memory)
        self.me = msgspec.structs.replace(me, capabilities=(*me.capabilities, *self.shared_memory.capabilities))
        self._secret, self._tls = secret, tls
        self.services, self.check_request = list(services), check_request
        self._on_link, self._on_lost, self._on_refused = on_link, on_lost, on_refused
        self._roster = Roster(me, self.limits.links, replaces=self.limits.replaces)
        self._handshaker = Handshaker(self, secret, self._roster, self._new_link, self.shared_memory)
        self._dialler = Dialler(self._handshaker, self._roster, self.limits, self._established)
        self._turns, self._landing = Turns(), Landing()
        self._ticker = Ticker(self.limits.heartbeat_s, self._tick, self._stalled)
        self._pace_of: Callable[[Peer], Pace | None] | None = None
        self._pipes: tuple[Pipe, ...] = ()
        self._closing = False

    async def __aenter__(self) -> Self:
        if self._tls is not None:
            self._dialler.tls = await asyncio.to_thread(self._prepare_tls, self._tls)
        self._ticker.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    def _prepare_tls(self, files: TlsFiles) -> ssl.SSLContext:
        from rolecall.wire.certificates import check_own_certificate

        context = client_context(files)
        check_own_certificate(files, self.me.name)
        return context

    @property
    def links(self) -> dict[str, Link]:
        """The links there are, by the name of the peer, those without a connection at the moment included."""
        return dict(self._roster.links)

    # ------------------------------------------------------------------------------------------------- connecting

    async def listen(self, host: str = "127.0.0.1", port: int = 0, *, advertise: str | None = None) -> str:
        """Listen, and return the address, with the port that was chosen if `port` is 0.

        Peers are told that address, or `advertise` if it is given. Raises `ConfigError` for an address that may not
        be listened on, or cannot be.
        """
        check_listening(host, self._tls, self._secret)
        tls = await asyncio.to_thread(server_context, self._tls) if self._tls is not None else None
        limits = self.limits
        listener = Listener(
            self.accept,
            self.services,
            self.check_request,
            tls=tls,
            connections=limits.connections,
            handshake_s=limits.handshake_s,
        )
        try:
            address = await listener.start(host, port)
        except OSError as error:
            raise ConfigError(f"listen on {host}:{port}", error.strerror or str(error)) from None
        listener.on_refused = self._on_refused
        self._listeners.append(listener)
        self.me = msgspec.structs.replace(self.me, address=advertise or address)
        return address

    async def dial(self, address: str, name: str | None = None) -> Link:
        """Return the link to the node at `address`, which must have that `name` if one is given.

        Where there is a link already, or comes about meanwhile by the other side's dial, that is it. Raises
        `ConfigError` for an address that may not be dialled, `LinkRefused` when the node there does not want a link
        or is not the right one, `Unreachable` when there is none after several attempts.
        """
        return await self._dialler.dial(address, name)

    def connect_by(self, connect: Callable[[str], Awaitable[Pipe]]) -> None:
        """Have connections made by a function that takes an address, in place of gRPC, to whatever address it takes."""
        self._dialler.connect = connect

    def pace_by(self, pace_of: Callable[[Peer], Pace | None]) -> None:
        """Slow the links down that are made from now on: `pace_of` says how, or None for one to be left as it is.

        They share no memory with their peers, which would be as fast as ever.
        """
        self._pace_of = pace_of
        self.shared_memory.capabilities = ()
        others = tuple(word for word in self.me.capabilities if word != CAPABILITY)
        self.me = msgspec.structs.replace(self.me, capabilities=others)

    async def accept(self, pipe: Pipe) -> None:
        """Take a connection that another node has made; `listen` sees to those that come by gRPC."""
        remote = pipe.remote
        try:
            async with asyncio.timeout(self.limits.handshake_s):
                if self._closing:
                    raise PipeClosed("this node is stopping")
                link = await self._handshaker.accepted(pipe)
        except (LinkRefused, Malformed, PipeClosed, TimeoutError) as error:
            self._log_failure(remote, error)
            pipe.close(str(error))
        else:
            self._established(link, pipe)

    def _log_failure(self, remote: str, error: Exception) -> None:
        level = logging.WARNING
        if isinstance(error, LinkRefused):
            level = logging.DEBUG if error.code == "linked" else level  # two nodes dialled each other; all is well
            if error.code != "linked":
                self._on_refused(remote, error.reason)
            who = "it has refused the link" if isinstance(error, RefusedByPeer) else "refused"
            logger.log(level, "%s: %s: %s", remote, who, error.reason)
        elif isinstance(error, TimeoutError):
            logger.warning("%s: refused: no handshake within %g s", remote, self.limits.handshake_s)
            self._on_refused(remote, f"no handshake within {self.limits.handshake_s:g} s")
        elif isinstance(error, PipeClosed):
            logger.info("%s: disconnected during the handshake: %s", remote, str(error))
        else:  # a handler may keep what it is given, and an error the whole connection
            logger.warning("%s: refused: %s", remote, str(error))
            self._on_refused(remote, str(error))

    # ------------------------------------------------------------------------------------------- the life of links

    def _new_link(self, peer: Peer, number: int, dialled: str | None) -> Link:
        limits = self.limits
        link = Link(
            peer,
            Session(limits.session, peer=peer.name, landing=self._landing),
            Suspicion(limits.suspicion_min_s, limits.suspicion_max_s),
            self._turns,
            number=number,
            dialled=dialled,
            owner=self,
        )
        if self._pace_of is not None:
            link.pace = self._pace_of(peer)
        return link

    def _established(self, link: Link, pipe: Pipe) -> None:
        self._pipes = (*(old for old in self._pipes if not old.gone and old is not pipe), pipe)
        if self._roster.to(link.peer) is link:
            logger.info("%s: connected again, by %s", link.peer.name, pipe.remote)
        elif self._closing:
            link.close("the node is stopping")
        else:
            logger.info("%s: linked, by %s", link.peer.name, pipe.remote)
            self._take_in(link)
        link.resume()

    def _take_in(self, link: Link) -> None:
        self._roster.add(link)
        try:
            self._on_link(link)
        except Exception:
            logger.exception("%s: the link could not be taken", link.peer.name)
            link.lose("the link could not be taken, which is this node's fault")
        self._dialler.met(link)

    def link_cut(self, link: Link, reason: str) -> None:
        """Give a link another connection, if it was this side that made the last one."""
        logger.info("%s: disconnected: %s", link.peer.name, reason)
        if link.dialled is not None and not self._closing:
            self._spawn(self._dialler.redial(link))

    def link_ended(self, link: Link, how: Ending, reason: str) -> None:
        """Let go of a link, and tell if this side has not closed it."""
        known = self._roster.links.get(link.peer.name) is link
        self._roster.remove(link, fence=how == "lost")
        level = logging.WARNING if how == "lost" else logging.INFO
        logger.log(level, "%s: %s: %s", link.peer.name, "lost" if how == "lost" else "closed", reason)
        if how != "closed" and known:
            self._on_lost(link.peer, reason)

    def _tick(self, now_s: float) -> None:
        for link in list(self._roster.links.values()):
            link.tick(now_s, self.limits.resume_s)
        self.shared_memory.trim(now_s)
        self._landing.trim(now_s)

    def _stalled(self, late_s: float) -> None:
        for link in self._roster.links.values():
            link.excuse(late_s)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # ---------------------------------------------------------------------------------------------------- closing

    async def close(self, reason: str = "the node is stopping") -> None:
        """End all links, after waiting shortly for what is on its way; tell the peers `reason`."""
        if self._closing:
            return
        self._closing = True
        try:
            await self._settle()
        finally:
            self._ticker.stop()
            for link in self.links.values():
                link.close(reason)
            self.shared_memory.close()
            await self._finish()

    def abandon(self, reason: str) -> None:
        """End without a word to anyone, as when the process is killed; for nodes that share one."""
        self._closing = True
        self._ticker.stop()
        for link in self.links.values():
            link.end("closed", reason)
        self.shared_memory.close()
        for listener in self._listeners:
            listener.abandon()
        for task in self._tasks:
            task.cancel()

    async def _settle(self) -> None:
        try:
            async with asyncio.timeout(self.limits.close_s):
                for link in self.links.values():
                    if link.connected:
                        await link.acknowledged()
        except TimeoutError:
            pass

    async def _finish(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            async with asyncio.timeout(self.limits.close_s):
                for pipe in self._pipes:
                    await pipe.wait_gone()
        except TimeoutError:
            for pipe in self._pipes:
                pipe.abort("the node has stopped")
        for listener in self._listeners:
            await listener.close()
