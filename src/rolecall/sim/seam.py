"""The fast seam: links hand their chunks to one another, with faults below the session and neither gRPC nor bytes.

An `Exchange` with all that belongs to it (handshake, session, redialling, heartbeats, suspicion) runs unmodified; only
the pipe between two of them is another. It is reliable and ordered, takes as long as the modelled network says, can be
cut anywhere, and takes no more than the network would at once, so that what is urgent can overtake what is not.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from functools import partial
from typing import Final, cast

import msgspec

from rolecall.sim.courier import Connection, Courier, CutKind, Route
from rolecall.sim.passing import Moment, Passing, Watcher, frames_of
from rolecall.wire.addresses import format_address, parse_address
from rolecall.wire.exchange import Exchange, ExchangeLimits
from rolecall.wire.extensions import Segment
from rolecall.wire.limits import Limits, Malformed
from rolecall.wire.pipe import HANDSHAKE_LIMITS, Pipe, PipeClosed, Reader

__all__ = ("MemoryPipe", "Seam", "address_of")

OVERHEAD_BYTES: Final = 64
"""What a chunk takes beside its segments: HTTP/2, TLS, TCP and IP, about."""
WINDOW_BYTES: Final = 256 << 10
"""What a pipe takes in beside what is in flight, like the send buffer of a socket."""
PORT: Final = 1


def address_of(node: str) -> str:
    """Return the address to dial a simulated node at: its name is the host."""
    return format_address(node, PORT)


class MemoryPipe:
    """One end of a connection: what a link and a handshake need of a `wire.pipe.Pipe`, which see."""

    __slots__ = (
        "_blocked", "_buffer", "_connection", "_dropped", "_limits", "_other", "_receiver", "_route", "_seam",
        "_waiter", "_window", "closed", "flying_bytes", "node", "reader", "received_bytes", "remote", "sent_bytes",
    )  # fmt: skip

    certificate = None
    answered = True

    def __init__(self, seam: Seam, connection: Connection, node: str, remote: str, route: Route) -> None:
        self._seam, self._connection, self.node, self.remote, self._route = seam, connection, node, remote, route
        self._other: MemoryPipe | None = None
        self._window = WINDOW_BYTES + seam.courier.network.pair(node, remote).in_flight_bytes
        self._limits = HANDSHAKE_LIMITS
        self._buffer: tuple[list[memoryview], ...] = ()
        self._receiver: asyncio.Future[None] | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._dropped = self._blocked = False
        self.reader: Reader | None = None
        self.closed: str | None = None
        self.sent_bytes = self.received_bytes = self.flying_bytes = 0

    def join(self, other: MemoryPipe) -> None:
        """Name the other end."""
        self._other, other._other = other, self

    # ------------------------------------------------------------------------------------------------- writing

    @property
    def writable(self) -> bool:
        """Whether a chunk would be on its way at once."""
        if self.flying_bytes < self._window:
            return self.closed is None
        self._blocked = True
        return False

    def write(self, segments: Sequence[Segment]) -> None:
        """Send a chunk; what may change under it is copied."""
        if self.closed is not None or self._other is None:
            return
        chunk = [segment if type(segment) is bytes else bytes(segment) for segment in segments]
        size = sum(map(len, chunk))
        self.sent_bytes += size
        self.flying_bytes += size
        if self._seam.watchers and self.reader is not None:
            self._seam.watched("sent", self.node, self.remote, chunk)
        self._route.carry(size + OVERHEAD_BYTES, self._other._arrived, chunk, size)

    def _landed(self) -> None:
        """Go on with what there was no room for, now that something has arrived."""
        if self.flying_bytes < self._window:
            self._blocked = False
            timeline = self._seam.courier.timeline
            timeline.at(timeline.now_s(), self.node, self._tell_writable)

    def _tell_writable(self) -> None:
        if self.reader is not None and self.closed is None:
            self.reader.pump()

    # ------------------------------------------------------------------------------------------------- reading

    def _arrived(self, chunk: list[bytes], size: int) -> None:
        if (other := self._other) is not None:
            other.flying_bytes -= size
            if other._blocked:
                other._landed()
        if self._dropped:
            return
        segments = [memoryview(segment) for segment in chunk]  # now, as they take memory while they are on their way
        if self.reader is not None:
            self._hand_over(self.reader, segments, size)
        else:
            self._buffer += (segments,)
            if self._receiver is not None and not self._receiver.done():
                self._receiver.set_result(None)

    def _hand_over(self, reader: Reader, segments: list[memoryview], size: int) -> None:
        self.received_bytes += size
        limits = self._limits
        try:
            if size > limits.frame_bytes or len(segments) > limits.segments:
                limits.check("frame_bytes", size)
                limits.check("segments", len(segments))
            reader.on_chunk(segments)
        except Malformed as error:
            self._dropped = True
            reader.violated(error)
        else:
            if self._seam.watchers:
                self._seam.watched("arrived", self.remote, self.node, segments)

    async def receive(self) -> list[memoryview]:
        """Return the next chunk of the handshake; raise `PipeClosed` at the end, `LimitExceeded` for too much."""
        while not self._buffer:
            if self.closed is not None:
                raise PipeClosed(self.closed)
            self._receiver = asyncio.get_running_loop().create_future()
            await self._receiver
            self._receiver = None
        segments = self._next()
        self._limits.check("frame_bytes", sum(map(len, segments)))
        return segments

    def _next(self) -> list[memoryview]:
        segments, self._buffer = self._buffer[0], self._buffer[1:]
        return segments

    def deliver(self, reader: Reader, limits: Limits) -> None:
        """From now on have `reader` take each chunk, those that are here already included."""
        self.reader, self._limits = reader, limits
        while self._buffer and not self._dropped:
            segments = self._next()
            self._hand_over(reader, segments, sum(map(len, segments)))

    # -------------------------------------------------------------------------------------------------- ending

    def close(self, reason: str) -> None:
        """End the pipe; what was written still arrives, and then the other side is told."""
        self._leave(reason, "the other side ended the stream")

    def abort(self, reason: str) -> None:
        """End the pipe, as by a reset."""
        self._leave(reason, "the connection was reset")

    def _leave(self, reason: str, told: str) -> None:
        self._dropped = True
        if self.closed is None:
            self._end(reason)
            if self._other is not None:
                self._route.carry(OVERHEAD_BYTES, self._other._left, told)

    def _left(self, told: str) -> None:
        """Take note that the other end has left, after all that it wrote."""
        self._connection.close()
        self.fail(told)

    def fail(self, reason: str) -> None:
        """End the pipe because of `reason`, and tell; what has come before can still be read."""
        if self.closed is None:
            self._end(reason)
            if self.reader is not None:
                self.reader.cut(reason)

    def _end(self, reason: str) -> None:
        self.closed = reason
        for waiter in (self._receiver, self._waiter):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    @property
    def gone(self) -> bool:
        """Whether nothing of the connection is left at this end."""
        return self.closed is not None

    async def wait_gone(self) -> None:
        """Return when nothing of the connection is left at this end."""
        while self.closed is None:
            self._waiter = self._waiter or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiter)


class _Attempt:
    """A connection that one node makes to another."""

    __slots__ = ("_seam", "answered", "connection", "dst", "mine", "src", "theirs")

    def __init__(self, seam: Seam, src: str, address: str) -> None:
        self._seam, self.src, self.dst = seam, src, parse_address(address)[0]
        self.connection = seam.courier.connect(src, self.dst, self._broken)
        self.mine = MemoryPipe(seam, self.connection, src, self.dst, self.connection.there)
        self.theirs: MemoryPipe | None = None
        self.answered: asyncio.Future[None] | None = asyncio.get_running_loop().create_future()

    async def made(self) -> MemoryPipe:
        """Return this side's end once the other side has answered; raise `OSError` if it does not want to."""
        assert self.answered is not None
        self.connection.there.carry(OVERHEAD_BYTES, self._knock)
        try:
            await self.answered
        except BaseException:
            self.connection.close()
            raise
        finally:
            self.answered = None
        return self.mine

    def _knock(self) -> None:
        exchange = self._seam.exchange(self.dst)
        if exchange is not None:
            self.theirs = MemoryPipe(self._seam, self.connection, self.dst, self.src, self.connection.back)
            self.mine.join(self.theirs)
            self.connection.back.carry(OVERHEAD_BYTES, self._settle, None)
            self._seam.serve(exchange, self.theirs)
        elif not self._seam.is_silent(self.dst):
            refused = ConnectionRefusedError(errno.ECONNREFUSED, f"nobody listens on node {self.dst!r}")
            self.connection.back.carry(OVERHEAD_BYTES, self._settle, refused)

    def _settle(self, error: OSError | None) -> None:
        if self.answered is None or self.answered.done():
            return
        if error is None:
            self.answered.set_result(None)
        else:
            self.answered.set_exception(error)

    def _broken(self, node: str, reason: str) -> None:
        self._settle(ConnectionResetError(errno.ECONNRESET, reason))
        pipe = self.mine if node == self.src else self.theirs
        if pipe is not None:
            pipe.fail(reason)


class Seam:
    """Connects the exchanges of simulated nodes over a courier."""

    def __init__(self, courier: Courier) -> None:
        self.courier = courier
        self.watchers: list[Watcher] = []
        """Called with each frame, when it is about to be sent and when it has been taken."""
        self._exchanges: dict[str, Exchange] = {}
        self._serving: dict[asyncio.Task[None], str] = {}
        self._silent: set[str] = set()

    @staticmethod
    def limits(limits: ExchangeLimits | None = None) -> ExchangeLimits:
        """Return the limits of an exchange as they are for simulated nodes, which are not on one machine."""
        return msgspec.structs.replace(limits or ExchangeLimits(), shared_memory=None)

    def open(self, exchange: Exchange) -> None:
        """Have an exchange dial and be dialled over this seam, by the name of its node; see `address_of`."""
        name = exchange.me.name
        exchange.connect_by(partial(self._connect, name))
        self._exchanges[name] = exchange
        self._silent.discard(name)

    def close(self, name: str) -> None:
        """Have nobody connect with a node any more; its links stay until its exchange closes them."""
        self._exchanges.pop(name, None)

    def crash(self, name: str, how: CutKind = "silence") -> None:
        """End a node without a word; with `reset`, its machine tells the others that the process is gone."""
        exchange = self._exchanges.pop(name, None)
        self.courier.down(name, how=how)
        if how == "silence":
            self._silent.add(name)
        for task, node in self._serving.items():
            if node == name:
                task.cancel()
        if exchange is not None:
            exchange.abandon("the node has crashed")

    def watched(self, moment: Moment, src: str, dst: str, chunk: Sequence[Segment]) -> None:
        """Tell of the frames of a chunk."""
        for frame in frames_of(chunk[0]):
            for watcher in self.watchers:
                watcher(Passing(moment, src, dst, frame))

    def exchange(self, name: str) -> Exchange | None:
        """Return the exchange of a node that can be reached."""
        return self._exchanges.get(name)

    def is_silent(self, name: str) -> bool:
        """Return whether a node does not answer at all, not even that nobody listens."""
        return name in self._silent

    async def _connect(self, src: str, address: str) -> Pipe:
        return cast(Pipe, await _Attempt(self, src, address).made())

    def serve(self, exchange: Exchange, pipe: MemoryPipe) -> None:
        """Have an exchange take a connection."""
        task = asyncio.get_running_loop().create_task(exchange.accept(cast(Pipe, pipe)))
        self._serving[task] = pipe.node
        task.add_done_callback(self._served)

    def _served(self, task: asyncio.Task[None]) -> None:
        del self._serving[task]
