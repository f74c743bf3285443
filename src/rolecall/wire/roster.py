"""Which links a node has, and whether another may be: the rules, without any waiting."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from rolecall.core.on_use import OnUse
from rolecall.wire.handshake import Confirm
from rolecall.wire.link import Link
from rolecall.wire.peers import LinkRefused, Peer

__all__ = ("Roster", "Verdict")

_FENCED_MAX: Final = 10_000


class Verdict(NamedTuple):
    """What becomes of a connection that is asked for: it goes on with `resumed`, or is a new link.

    `ended` is a link that it puts an end to first, because of `reason`.
    """

    resumed: Link | None = None
    ended: Link | None = None
    reason: str = ""


class Roster:
    """The links of one node, at most one to each name.

    When two nodes dial each other at the same time, the one with the smaller (name, incarnation) decides: until it
    has confirmed its own dial it takes the other's, from then on it refuses it.
    """

    __slots__ = ("_confirming_", "_fenced_", "_links_max", "_me", "_replaces", "links")

    _fenced = OnUse(dict[tuple[str, int], str])
    _confirming = OnUse(list[tuple[str, int]])

    def __init__(self, me: Peer, links_max: int, *, replaces: bool = True) -> None:
        self._me, self._links_max, self._replaces = me, links_max, replaces
        self.links: dict[str, Link] = {}

    # ---------------------------------------------------------------------------------------------- what there is

    def add(self, link: Link) -> None:
        """Take in a new link."""
        self.links[link.peer.name] = link

    def remove(self, link: Link, *, fence: bool) -> None:
        """Let go of a link that has ended; with `fence`, for good: the life at its other end may not come back."""
        if self.links.get(link.peer.name) is link:
            del self.links[link.peer.name]
        if fence:
            self._fenced[link.peer.life] = link.ended or ""
            if len(self._fenced) > _FENCED_MAX:
                del self._fenced[next(iter(self._fenced))]

    def to(self, peer: Peer) -> Link | None:
        """Return the link to that very life of a node."""
        link = self.links.get(peer.name)
        return link if link is not None and link.peer.life == peer.life else None

    @contextmanager
    def confirming(self, peer: Peer) -> Iterator[None]:
        """Hold that a dial to `peer` has been confirmed, and not answered yet."""
        self._confirming.append(peer.life)
        try:
            yield
        finally:
            self._confirming.remove(peer.life)

    # -------------------------------------------------------------------------------------------------- what may be

    def check(self, peer: Peer, address: str) -> None:
        """Raise `LinkRefused` for who may not be linked with, whichever side dials."""
        if peer.life == self._me.life:
            raise LinkRefused(address, "name", f"node {peer.name!r} has dialled itself")
        if peer.name == self._me.name:
            raise LinkRefused(address, "name", f"two nodes have the name {peer.name!r}. Give one of them another")
        if (why := self._fenced.get(peer.life)) is not None:
            raise LinkRefused(
                address,
                "fenced",
                f"node {self._me.name!r} has given up node {peer.name!r} ({why}). It can come back as a new "
                "incarnation only: start it again",
            )
        if peer.name not in self.links and len(self.links) >= self._links_max:
            raise LinkRefused(
                address, "limit", f"node {self._me.name!r} has {len(self.links)} links already, which is its limit"
            )

    def judge(self, peer: Peer, confirm: Confirm, address: str) -> Verdict:
        """Return what becomes of a connection that `peer`, having proven who it is, asks for; or `LinkRefused`."""
        self.check(peer, address)
        link = self.links.get(peer.name)
        if link is None:
            return self._unknown(peer, confirm, address)
        if link.peer.life != peer.life:
            if not self._replaces:
                reason = f"node {self._me.name!r} is linked with another life of node {peer.name!r}, and keeps to that"
                raise LinkRefused(address, "limit", reason)
            return Verdict(ended=link, reason="it has been restarted")
        if link.dialled is not None:
            raise LinkRefused(address, "linked", f"node {self._me.name!r} has a link to {peer.name!r} already")
        if (confirm.session, confirm.connection) <= (link.number, link.connection):
            raise LinkRefused(address, "linked", "a later connection has taken the place of this one")
        if confirm.session == link.number:
            return Verdict(resumed=link)
        if confirm.resumed:
            raise self._forgotten(peer, address)
        return Verdict(ended=link, reason="it has begun a new session")

    def _unknown(self, peer: Peer, confirm: Confirm, address: str) -> Verdict:
        if confirm.resumed:
            raise self._forgotten(peer, address)
        if peer.life in self._confirming and self._me.life < peer.life:
            raise LinkRefused(address, "linked", f"node {self._me.name!r} has dialled node {peer.name!r} itself")
        return Verdict()

    def _forgotten(self, peer: Peer, address: str) -> LinkRefused:
        return LinkRefused(
            address, "forgotten", f"node {self._me.name!r} has no such session with node {peer.name!r} any more"
        )
