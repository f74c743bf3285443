"""The handshake on a new connection, on either side: who is there, is it who it should be, and what becomes of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Protocol, TypeAlias

import msgspec

from rolecall.core.on_use import OnUse
from rolecall.wire.handshake import Accepting, Confirm, Dialling, Established, encode_refused
from rolecall.wire.heads import Acks
from rolecall.wire.limits import Malformed
from rolecall.wire.link import Link
from rolecall.wire.peers import LinkRefused, Peer, RefusedByPeer
from rolecall.wire.pipe import Pipe
from rolecall.wire.roster import Roster
from rolecall.wire.security import certified_name
from rolecall.wire.shared_memory import SharedMemory

__all__ = ("Handshaker", "Intent", "LinkedAlready")

LinkFactory: TypeAlias = Callable[[Peer, int, str | None], Link]
"""Makes a link from its peer, its number, and the address dialled or None."""


class Intent(msgspec.Struct, frozen=True):
    """What a dial is for: a new link (to a node of that name, if it matters), or another connection of `link`."""

    address: str
    session: int
    connection: int
    name: str | None = None
    link: Link | None = None


class LinkedAlready(Exception):
    """Raised when a dial is not needed: a link to `peer` is there, or the peer is about to make it."""

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer.name)
        self.peer = peer


class Somebody(Protocol):
    """Whose handshakes they are: `me` is what others are told."""

    me: Peer


class _Turn(asyncio.Lock):
    """The turn of one dial, and how many take it or wait for it."""

    takers = 0


class Handshaker:
    """Does handshakes for one node; `make_link` makes a link that is not in the roster yet."""

    __slots__ = ("_make_link", "_node", "_roster", "_secret", "_shared_memory", "_turns_")

    _turns = OnUse(dict[tuple[str, int], _Turn])
    """One for each life that is being dialled."""

    def __init__(
        self,
        node: Somebody,
        secret: bytes | None,
        roster: Roster,
        make_link: LinkFactory,
        shared_memory: SharedMemory,
    ) -> None:
        self._node, self._secret, self._roster, self._make_link = node, secret, roster, make_link
        self._shared_memory = shared_memory

    # ------------------------------------------------------------------------------------------------- dialling

    async def dialled(self, pipe: Pipe, intent: Intent) -> Link:
        """Return the link that `pipe`, which this side has dialled, now carries.

        Raises `LinkedAlready`, `LinkRefused`, `Malformed` or `PipeClosed`; the other side has been told why, then.
        """
        try:
            return await self._dialled(pipe, intent)
        except LinkedAlready as found:
            pipe.write(
                encode_refused("linked", f"node {self._node.me.name!r} has a link to {found.peer.name!r} already")
            )
            raise
        except RefusedByPeer:
            raise
        except (LinkRefused, Malformed) as error:
            pipe.write(_refusal(error))
            raise

    async def _dialled(self, pipe: Pipe, intent: Intent) -> Link:
        shake = Dialling(self._node.me, self._secret, intent.address)
        pipe.write(shake.hello())
        peer = shake.welcomed(await pipe.receive())
        _check_certificate(pipe, peer, intent.address)
        _check_expected(peer, intent)
        async with self._turn(peer.life):  # two dials of ours must not cross
            self._roster.check(peer, intent.address)
            if intent.link is None and self._roster.to(peer) is not None:
                raise LinkedAlready(peer)
            established = await self._confirm(pipe, shake, peer, intent)
            return self._carry(pipe, peer, intent, established)

    @asynccontextmanager
    async def _turn(self, life: tuple[str, int]) -> AsyncIterator[None]:
        """Wait until no other dial to that life is about to become a link."""
        turns = self._turns
        turn = turns.setdefault(life, _Turn())
        turn.takers += 1
        try:
            async with turn:
                yield
        finally:
            turn.takers -= 1
            if not turn.takers:
                del turns[life]
            if not turns:
                turns.clear()  # which gives its memory back

    async def _confirm(self, pipe: Pipe, shake: Dialling, peer: Peer, intent: Intent) -> Established:
        link = intent.link
        confirm = Confirm(
            session=intent.session,
            connection=intent.connection,
            resumed=link is not None,
            acks=link.session.acks if link is not None else Acks(),
        )
        with self._roster.confirming(peer):
            pipe.write(shake.confirm(confirm))
            try:
                return shake.established(await pipe.receive())
            except RefusedByPeer as refused:
                if refused.code == "linked" and link is None:
                    raise LinkedAlready(peer) from None
                raise

    def _carry(self, pipe: Pipe, peer: Peer, intent: Intent, established: Established) -> Link:
        link = intent.link
        if link is None:
            self._supersede(peer)
            link = self._make_link(peer, intent.session, intent.address)
        elif link.lost:
            raise LinkRefused(intent.address, "closing", f"the link has ended: {link.ended}")
        link.attach(pipe, intent.connection, established.acks)
        self._shared_memory.connect(link, established.shared_memory)
        return link

    def _supersede(self, peer: Peer) -> None:
        older = self._roster.links.get(peer.name)
        if older is not None:
            older.lose("it has been restarted")

    # ------------------------------------------------------------------------------------------------ accepting

    async def accepted(self, pipe: Pipe) -> Link:
        """Return the link that `pipe`, which the other side has dialled, now carries.

        Raises `LinkRefused`, `Malformed` or `PipeClosed`; the other side has been told why, then.
        """
        try:
            return await self._accepted(pipe)
        except RefusedByPeer:
            raise
        except (LinkRefused, Malformed) as error:
            pipe.write(_refusal(error))
            raise

    async def _accepted(self, pipe: Pipe) -> Link:
        shake = Accepting(self._node.me, self._secret, pipe.remote)
        peer = shake.greeted(await pipe.receive())
        _check_certificate(pipe, peer, pipe.remote)
        pipe.write(shake.welcome())
        confirm = shake.confirmed(await pipe.receive())
        link = self._judged(peer, confirm, pipe.remote)
        link.detach("another connection has taken its place")
        pipe.write(shake.established(link.session.acks, self._shared_memory.offer(link)))
        link.attach(pipe, confirm.connection, confirm.acks)
        return link

    def _judged(self, peer: Peer, confirm: Confirm, remote: str) -> Link:
        verdict = self._roster.judge(peer, confirm, remote)
        if verdict.resumed is not None:
            return verdict.resumed
        if verdict.ended is not None:
            if verdict.ended.peer.life != peer.life:
                verdict.ended.lose(verdict.reason)
            else:
                verdict.ended.end("left", verdict.reason)
        return self._make_link(peer, confirm.session, None)


def _refusal(error: LinkRefused | Malformed) -> list[bytes | memoryview]:
    if isinstance(error, LinkRefused):
        return encode_refused(error.code, error.reason)
    return encode_refused("malformed", str(error))


def _check_certificate(pipe: Pipe, peer: Peer, address: str) -> None:
    """Raise `LinkRefused` if there is a certificate, and it does not name the peer."""
    certificate = pipe.certificate
    if certificate is None:
        return
    named = certified_name(certificate)
    if named != peer.name:
        found = f"names node {named!r}" if named else "names no node"
        raise LinkRefused(address, "certificate", f"its certificate {found}, and it says that it is {peer.name!r}")


def _check_expected(peer: Peer, intent: Intent) -> None:
    link = intent.link
    if link is not None and peer.name == link.peer.name and peer.incarnation != link.peer.incarnation:
        raise LinkRefused(intent.address, "restarted", f"node {peer.name!r} has been restarted")
    name = link.peer.name if link is not None else intent.name
    if name is not None and peer.name != name:
        raise LinkRefused(intent.address, "name", f"node {peer.name!r} answers there, and not {name!r}")
