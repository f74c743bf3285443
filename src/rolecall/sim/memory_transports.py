"""The two ends of a connection in memory: transports as asyncio's own are, over modelled routes."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from rolecall.sim.courier import Connection, Route
from rolecall.wire.daemon import DAEMON, daemon

if TYPE_CHECKING:
    from rolecall.sim.loop import VirtualLoop

__all__ = ("HEADER_BYTES", "MemoryTransport")

HEADER_BYTES: Final = 52
"""What IP and TCP add to what is sent at once, and what a bare segment weighs."""
_HIGH_BYTES: Final = 256 << 10
_LOW_BYTES: Final = 64 << 10
_HEARTBEAT_BYTES: Final = 200
"""What a daemon sends is no sign of life; what is larger was queued by someone else and goes along."""
_SPLITS: Final = 0.03
"""How often what was sent arrives in two pieces, as it may over TCP."""


class MemoryTransport(asyncio.Transport):
    """One end; `node` is who has it. What was written in one turn of the loop is sent as one."""

    def __init__(
        self, loop: VirtualLoop, node: str, protocol: asyncio.BaseProtocol, route: Route, connection: Connection,
        *, names: tuple[Any, Any], seed: str,
    ) -> None:  # fmt: skip
        super().__init__({"sockname": names[0], "peername": names[1], "socket": None})
        self._loop, self._node, self._protocol = loop, node, protocol
        self._rng = random.Random(seed)
        self._route, self._connection = route, connection
        self.peer: MemoryTransport | None = None
        """The other end, once it is there."""
        self._pending: list[bytes] = []
        self._pending_bytes = self._unsent_bytes = 0
        self._serious = self._flushing = self._full = False
        self._closing = self._lost = self._ended = False
        self._high, self._low = _HIGH_BYTES, _LOW_BYTES
        self._unread: deque[bytes] | None = None  # not None: reading is paused

    def begin(self) -> None:
        """Tell the protocol that the connection is there."""
        self._protocol.connection_made(self)

    # ------------------------------------------------------------------------------------------ writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes; nothing more can be sent once the transport is closing."""
        if self._closing or self._ended or not len(data):
            return
        self._pending.append(bytes(data))
        self._pending_bytes += len(data)
        self._serious = self._serious or not DAEMON.get()
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)
        if self._pending_bytes + self._unsent_bytes > self._high and not self._full:
            self._full = True
            self._protocol.pause_writing()

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several buffers."""
        for data in list_of_data:
            self.write(data)

    def _flush(self) -> None:
        self._flushing = False
        data, self._pending = b"".join(self._pending), []
        serious, self._serious = self._serious, False
        self._pending_bytes = 0
        if data:
            self._unsent_bytes += len(data)
            with daemon(not serious and len(data) <= _HEARTBEAT_BYTES):
                self._carry(len(data), self._arrived, data)

    def _carry(self, size: int, callback: Callable[..., None], *args: Any) -> None:
        self._route.carry(size + HEADER_BYTES, callback, *args)

    def _arrived(self, data: bytes) -> None:
        """Hand over what this end has sent, as the other node."""
        self._unsent_bytes -= len(data)
        if self._full and self._unsent_bytes + self._pending_bytes <= self._low:
            self._full = False
            self._loop.at(self._loop.now_s(), self._node, self._resume)
        if self.peer is not None:
            self.peer.take(data)

    def _resume(self) -> None:
        if not self._lost:
            self._protocol.resume_writing()

    def can_write_eof(self) -> bool:
        """Say that one direction cannot be closed alone."""
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how much may be under way until the protocol is told to wait."""
        self._high = high if high is not None else 4 * low if low is not None else _HIGH_BYTES
        self._low = low if low is not None else self._high // 4

    def get_write_buffer_size(self) -> int:
        """Return how much has not been sent."""
        return self._pending_bytes

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the limits, the low one first."""
        return self._low, self._high

    # ------------------------------------------------------------------------------------------ reading

    def take(self, data: bytes) -> None:
        """Give what has arrived to the protocol, sometimes in two pieces."""
        if len(data) > 1 and self._rng.random() < _SPLITS:
            at = self._rng.randrange(1, len(data))
            self._give(data[:at])
            self._give(data[at:])
        else:
            self._give(data)

    def _give(self, data: bytes) -> None:
        if self._closing or self._ended:
            return
        if self._unread is not None:
            self._unread.append(data)
        elif isinstance(self._protocol, asyncio.BufferedProtocol):
            _fill(self._protocol, data)
        else:
            self._protocol.data_received(data)  # type: ignore[attr-defined]

    def pause_reading(self) -> None:
        """Keep what arrives."""
        if self._unread is None:
            self._unread = deque()

    def resume_reading(self) -> None:
        """Give what was kept to the protocol, and go on."""
        kept, self._unread = self._unread or (), None
        for data in kept:
            self._give(data)

    def is_reading(self) -> bool:
        """Whether what arrives goes to the protocol."""
        return self._unread is None and not self._closing

    # ------------------------------------------------------------------------------------------ the end

    def is_closing(self) -> bool:
        """Whether the transport has been closed."""
        return self._closing or self._ended

    def close(self) -> None:
        """End the connection once what was written is on its way."""
        if not self._closing and not self._ended:
            self._flush()
            self._closing = True
            self._carry(0, self._finished, None)
            self._lose_soon(None)

    def abort(self) -> None:
        """End the connection at once; the other side sees it broken."""
        if not self._lost:
            self._pending, self._pending_bytes = [], 0
            if not self._closing:
                self._carry(0, self._finished, "the other side aborted the connection")
            self._closing = True
            self._lose_soon(None)

    def _finished(self, problem: str | None) -> None:
        """Tell the other end that there is no more; it cannot send any more either."""
        if self.peer is not None:
            self.peer.ended(problem)
        self._connection.close()

    def ended(self, problem: str | None) -> None:
        """Take note that the other side has ended the connection, or that it broke."""
        if self._ended or self._closing:
            return
        self._ended = True
        if problem is None and isinstance(self._protocol, (asyncio.Protocol, asyncio.BufferedProtocol)):
            self._protocol.eof_received()
        self._lose_soon(ConnectionResetError(problem) if problem is not None else None)

    def _lose_soon(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = True
            self._loop.call_soon(self._protocol.connection_lost, error, context=self._loop.context(self._node))

    # ------------------------------------------------------------------------------------------ the protocol

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Have another protocol take what arrives."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol


def _fill(protocol: asyncio.BufferedProtocol, data: bytes) -> None:
    """Do with a buffered protocol what asyncio does when it reads from a socket."""
    view = memoryview(data)
    while view:
        buffer = memoryview(protocol.get_buffer(-1))
        size = min(len(buffer), len(view))
        buffer[:size] = view[:size]
        protocol.buffer_updated(size)
        view = view[size:]
