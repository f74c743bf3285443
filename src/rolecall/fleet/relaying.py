"""Messages between two nodes that cannot reach each other: by way of their conductor, who has a link to both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeAlias

import msgspec

from rolecall.core.errors import RolecallError
from rolecall.runtime.network import Network
from rolecall.wire import Segment
from rolecall.wire.frame_codec import decode_frame, encode_frame
from rolecall.wire.frames import Frame
from rolecall.wire.limits import LinkOverflow

__all__ = ("Parcel", "Relays")

WAITING_PARCELS = 65_536
WAITING_BYTES = 256 << 20
BATCH_BYTES = 4 << 20

Carry: TypeAlias = "Callable[[str, list[Parcel]], Coroutine[Any, Any, None]]"


class Parcel(msgspec.Struct, frozen=True, array_like=True):
    """A frame between two nodes on its way through a third, with its payload."""

    frame: bytes
    payload: list[bytes]


class Relays:
    """What one node sends to others through its conductor, and gets from them.

    `carry` has the conductor carry parcels to a node, and returns when that has taken them; `spawn` starts a task.
    `lose` is called with a node, and why, when that fails.
    """

    def __init__(
        self,
        network: Network,
        carry: Carry,
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]], str], None],
        lose: Callable[[str, str], None],
    ) -> None:
        self._network, self._carry, self._spawn, self._lose = network, carry, spawn, lose
        self._relays: dict[str, _Relay] = {}

    def __contains__(self, peer: str) -> bool:
        return peer in self._relays

    def open(self, peer: str) -> None:
        """Use this way to a node from now on."""
        if peer not in self._relays:
            relay = self._relays[peer] = _Relay(peer, self._give_up)
            self._spawn(lambda: self._flow(relay), f"relay to {peer}")
            self._network.join(peer, relay)

    def close(self, peer: str) -> None:
        """Send nothing more to a node that is lost."""
        relay = self._relays.pop(peer, None)
        if relay is not None:
            relay.close()

    def taken(self, peer: str, parcels: Sequence[Parcel]) -> None:
        """Take what has come from a node.

        Raises:
            Malformed: what has come is no frame.
        """
        self.open(peer)
        for parcel in parcels:
            self._relays[peer].take(parcel)

    async def _flow(self, relay: _Relay) -> None:
        """Have what waits carried, all that is there at a time, until the relay is closed."""
        try:
            while parcels := await relay.waiting():
                await self._carry(relay.peer, parcels)
        except RolecallError as error:
            if self._relays.get(relay.peer) is relay:
                self._give_up(relay.peer, f"the conductor could not carry a message there: {error}")

    def _give_up(self, peer: str, why: str) -> None:
        self.close(peer)
        self._lose(peer, why)


class _Relay:
    """The way to one node; to the network it is what a link is."""

    def __init__(self, peer: str, give_up: Callable[[str, str], None]) -> None:
        self.peer, self._give_up = peer, give_up
        self.on_frame: Callable[[Any, Sequence[memoryview]], None] | None = None
        self._parcels: list[Parcel] = []
        self._bytes = 0
        self._wanting: list[Callable[[], None]] = []
        self._closed = False
        self._news = asyncio.Event()

    def send(self, frame: Frame, segments: Sequence[Segment] = (), *, compress: bool = False) -> None:
        """Queue a frame; what is relayed is not compressed.

        Raises:
            LinkOverflow: too much waits already.
        """
        if self._closed:
            return
        size = sum(map(len, segments))
        if len(self._parcels) >= WAITING_PARCELS:
            raise LinkOverflow(self.peer, "frames", len(self._parcels) + 1, WAITING_PARCELS)
        if self._parcels and self._bytes + size > WAITING_BYTES:
            raise LinkOverflow(self.peer, "bytes", self._bytes + size, WAITING_BYTES)
        self._parcels.append(Parcel(encode_frame(frame), [bytes(segment) for segment in segments]))
        self._bytes += size
        self._news.set()

    def when_room(self, go_on: Callable[[], None]) -> None:
        """Call a function once, when there is room again after a `LinkOverflow`."""
        self._wanting.append(go_on)

    def lose(self, reason: str) -> None:
        """End the relay, and take the node for lost."""
        self._give_up(self.peer, reason)

    async def waiting(self) -> list[Parcel]:
        """Wait for parcels; return some in order, or none when the relay is closed."""
        while not self._parcels and not self._closed:
            self._news.clear()
            await self._news.wait()
        count = size = 0
        while count < len(self._parcels) and (count == 0 or size < BATCH_BYTES):
            size += sum(map(len, self._parcels[count].payload))
            count += 1
        batch, self._parcels = self._parcels[:count], self._parcels[count:]
        self._bytes -= sum(sum(map(len, parcel.payload)) for parcel in batch)
        wanting, self._wanting = self._wanting, []
        for go_on in wanting:
            go_on()
        return batch

    def take(self, parcel: Parcel) -> None:
        """Hand over a frame that has come."""
        frame = decode_frame(parcel.frame)
        if self.on_frame is not None:
            self.on_frame(frame, [memoryview(part) for part in parcel.payload])

    def close(self) -> None:
        """End what waits."""
        self._closed = True
        self._parcels.clear()
        self._news.set()
