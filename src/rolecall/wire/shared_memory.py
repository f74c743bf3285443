"""How two processes find out that they are on one machine, and share memory then: one object for each node.

The side of a link that was dialled offers an abstract Unix address, which exists on this machine only (and in this
network namespace), together with a key that is good for one connection. Who connects there and shows the key is the
peer of that link. Where that does not come about, all goes over the link's own connection.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
from functools import partial
from typing import TYPE_CHECKING, Final

from rolecall.core.on_use import OnUse
from rolecall.wire.limits import Malformed
from rolecall.wire.shared_lane import SharedLane
from rolecall.wire.shared_limits import SharedMemoryLimits
from rolecall.wire.shared_listener import SharedListener, connected_to
from rolecall.wire.shared_messages import Greeting, Message, Offer, greeting_of, is_from
from rolecall.wire.shared_pool import SharedPool
from rolecall.wire.shared_segments import SUPPORTED
from rolecall.wire.shared_socket import SharedSocket

if TYPE_CHECKING:
    from rolecall.wire.link import Link

__all__ = ("CAPABILITY", "SWITCH", "SharedMemory")

logger = logging.getLogger(__name__)

CAPABILITY: Final = "shared-memory"
"""What a node says of itself that can do it."""
SWITCH: Final = "ROLECALL_SHARED_MEMORY"
"""The environment variable that switches it off for a process, when it is 0."""
_KEY_BYTES: Final = 32
_DEFAULTS: Final = SharedMemoryLimits()


class SharedMemory:
    """The shared memory of one node; `limits` None switches it off. All is used from one event loop."""

    __slots__ = ("_closed", "_lanes_", "_limits", "_listener", "_offers_", "_strangers_", "capabilities", "pool")

    _lanes = OnUse(set[SharedLane])
    _offers = OnUse(dict[int, tuple[Offer, "Link", asyncio.TimerHandle]])
    _strangers = OnUse(dict[SharedSocket, asyncio.TimerHandle])

    def __init__(self, limits: SharedMemoryLimits | None) -> None:
        self._limits = limits or _DEFAULTS
        wanted = limits is not None and os.environ.get(SWITCH) != "0"
        self.capabilities = (CAPABILITY,) if wanted and SUPPORTED else ()
        """What peers are told about it."""
        self.pool: SharedPool | None = None
        """What is written, once there is a peer to read it."""
        self._listener: SharedListener | None = None
        self._closed = False

    @property
    def lanes(self) -> list[SharedLane]:
        """The lanes by which memory is shared at the moment."""
        return list(self._lanes)

    @property
    def address(self) -> str | None:
        """The abstract Unix address where peers ask for it, once there was a peer to tell."""
        return self._listener.name if self._listener is not None else None

    def trim(self, now_s: float) -> None:
        """Give up memory that has not been used for long."""
        if self.pool is not None:
            self.pool.trim(now_s)

    def close(self) -> None:
        """Give up everything; arrays that came stay as they are."""
        if self._closed:
            return
        self._closed = True
        for lane in list(self._lanes):
            lane.close()
        for other, timer in self._strangers.items():
            timer.cancel()
            other.close()
        for _, _, timer in self._offers.values():
            timer.cancel()
        self._strangers.clear()
        self._offers.clear()
        if self._listener is not None:
            self._listener.close()
        if self.pool is not None:
            self.pool.close()

    def _lane(self, link: Link, other: SharedSocket) -> SharedLane:
        if self.pool is None:
            self.pool = SharedPool(self._limits, self._retired)
        lane = SharedLane(
            self.pool,
            self._limits,
            other,
            wake=link.wake,
            on_malformed=link.violated,
            on_closed=self._lanes.discard,
        )
        self._lanes.add(lane)
        return lane

    def _retired(self, number: int) -> None:
        for lane in list(self._lanes):
            lane.retire(number)

    # ------------------------------------------------------------------------------------------- the dialled side

    def offer(self, link: Link) -> Offer | None:
        """Return what to tell a peer that has dialled this node, if it can do it too and there is no lane yet."""
        if link.lane is not None or CAPABILITY not in link.peer.capabilities:
            return None
        if not self.capabilities or self._closed or not self._listens():
            return None
        assert self._listener is not None
        offer = Offer(self._listener.name, secrets.randbits(63), secrets.token_bytes(_KEY_BYTES))
        timer = asyncio.get_running_loop().call_later(self._limits.handshake_s, self._offers.pop, offer.number, None)
        self._offers[offer.number] = offer, link, timer
        return offer

    def _listens(self) -> bool:
        if self._listener is None:
            try:
                self._listener = SharedListener(self._connected)
            except OSError as error:
                logger.info("no shared memory: %s", error.strerror)
        return self._listener is not None

    def _connected(self, connected: socket.socket) -> None:
        if len(self._strangers) >= self._limits.pending:
            connected.close()
            return
        other = SharedSocket(connected)
        self._strangers[other] = asyncio.get_running_loop().call_later(self._limits.handshake_s, self._turn_away, other)
        other.on_message = partial(self._greeted, other)
        other.on_failed = partial(self._turn_away, other)

    def _turn_away(self, other: SharedSocket, error: Exception | None = None) -> None:
        self._strangers.pop(other).cancel()
        other.close()

    def _greeted(self, other: SharedSocket, message: Message, fd: int) -> None:
        found = self._offers.get(message.number) if isinstance(message, Greeting) else None
        if found is None or not isinstance(message, Greeting) or not is_from(message, found[0], "dialler"):
            logger.warning("a process on this machine that is no peer has tried to share memory")
            self._turn_away(other)
            return
        offer, link, timer = self._offers.pop(message.number)
        for handle in (timer, self._strangers.pop(other)):
            handle.cancel()
        if link.lane is not None:
            other.close()
            return
        lane = self._lane(link, other)
        lane.greeted(message)
        other.send(greeting_of(offer, "acceptor", self._limits.total_bytes, self._limits.segments))
        link.share(lane)

    # ------------------------------------------------------------------------------------------- the dialling side

    def connect(self, link: Link, offer: Offer | None) -> None:
        """Take up the offer of a peer, if it is on this machine and there is no lane yet."""
        if offer is None or link.lane is not None or not self.capabilities or self._closed:
            return
        try:
            other = SharedSocket(connected_to(offer.name))
        except OSError as error:  # it is not on this machine
            logger.debug("%s: no shared memory: %s", link.peer.name, error.strerror)
            return
        # The lane begins before the answer is here: a frame that needs it may be read before that.
        lane = self._lane(link, other)
        lane.timer = asyncio.get_running_loop().call_later(self._limits.handshake_s, lane.give_up, "no answer came")
        other.on_message = partial(_answered, lane, other, other.on_message, offer)
        other.send(greeting_of(offer, "dialler", self._limits.total_bytes, self._limits.segments))
        link.share(lane)


def _answered(lane: SharedLane, other: SharedSocket, go_on: object, offer: Offer, message: Message, fd: int) -> None:
    other.on_message = go_on  # type: ignore[assignment]
    if not isinstance(message, Greeting) or not is_from(message, offer, "acceptor"):
        raise Malformed("The peer does not show the key with which it has offered shared memory.")
    lane.greeted(message)
