"""Connections that are slower than they could be: what a model of the network says, done to a real one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from rolecall.wire.extensions import Segment
from rolecall.wire.limits import Limits, Malformed
from rolecall.wire.pipe import Reader

__all__ = ("Pace", "PacedPipe")

Pace: TypeAlias = Callable[[int, float], float]
"""Says when so many bytes arrive that are sent at a time of the loop's clock: never before those sent earlier."""

HELD_BYTES: Final = 1 << 20
"""What is taken in and held back: about what is on the way where there is much bandwidth and much latency."""


class _Pipe(Protocol):
    reader: Reader | None
    closed: str | None
    sent_bytes: int
    received_bytes: int

    @property
    def writable(self) -> bool: ...
    def write(self, segments: Sequence[Segment]) -> None: ...
    def deliver(self, reader: Reader, limits: Limits) -> None: ...
    def close(self, reason: str) -> None: ...
    def abort(self, reason: str) -> None: ...


class PacedPipe:
    """A pipe that holds back each chunk until it may arrive; to a link it is what a `Pipe` is."""

    def __init__(self, pipe: _Pipe, pace: Pace) -> None:
        self._pipe, self._pace = pipe, pace
        self._loop = asyncio.get_running_loop()
        self._held: deque[tuple[float, Sequence[Segment], int]] = deque()
        self._held_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.reader: Reader | None = None

    # ------------------------------------------------------------------------------------------------- writing

    @property
    def writable(self) -> bool:
        """Whether there is room for a chunk."""
        return self._held_bytes < HELD_BYTES and self._pipe.closed is None

    def write(self, segments: Sequence[Segment]) -> None:
        """Send a chunk, when it is time."""
        size = sum(map(len, segments))
        self._held_bytes += size
        self._held.append((self._pace(size, self._loop.time()), segments, size))
        if self._timer is None:
            self._wait()

    def _wait(self) -> None:
        self._timer = self._loop.call_at(self._held[0][0], self._send) if self._held else None

    def _send(self) -> None:
        """Write what is due, as far as the connection takes it."""
        now_s = self._loop.time()
        while self._held and self._held[0][0] <= now_s and self._pipe.writable:
            _, segments, size = self._held.popleft()
            self._held_bytes -= size
            self._pipe.write(segments)
        self._timer = None
        if self._pipe.writable:
            self._wait()
        if self.reader is not None and self.writable:
            self.reader.pump()

    # --------------------------------------------------------------------------------------------- as it is

    @property
    def closed(self) -> str | None:
        """See `Pipe.closed`."""
        return self._pipe.closed

    @property
    def sent_bytes(self) -> int:
        """See `Pipe.sent_bytes`; what is held back does not count."""
        return self._pipe.sent_bytes

    @property
    def received_bytes(self) -> int:
        """See `Pipe.received_bytes`."""
        return self._pipe.received_bytes

    def deliver(self, reader: Reader, limits: Limits) -> None:
        """See `Pipe.deliver`."""
        self.reader = reader
        self._pipe.deliver(self, limits)

    def on_chunk(self, segments: list[memoryview]) -> None:
        """See `Reader.on_chunk`."""
        if self.reader is not None:
            self.reader.on_chunk(segments)

    def violated(self, error: Malformed) -> None:
        """See `Reader.violated`."""
        if self.reader is not None:
            self.reader.violated(error)

    def cut(self, reason: str) -> None:
        """See `Reader.cut`."""
        if self.reader is not None:
            self.reader.cut(reason)

    def pump(self) -> None:
        """See `Reader.pump`; what is due goes on."""
        if self._timer is None:
            self._wait()

    def close(self, reason: str) -> None:
        """See `Pipe.close`; what is held back goes at once."""
        for _, segments, _ in self._held:
            self._pipe.write(segments)
        self._forget()
        self._pipe.close(reason)

    def abort(self, reason: str) -> None:
        """See `Pipe.abort`."""
        self._forget()
        self._pipe.abort(reason)

    def _forget(self) -> None:
        self._held.clear()
        self._held_bytes = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
