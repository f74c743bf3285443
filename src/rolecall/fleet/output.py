"""What nodes write to their standard output and error, line by line and with the name of the node."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import deque
from typing import Final

import anyio

__all__ = ("Output",)

_LINE_BYTES: Final = 65_536
_LAST_WORDS: Final = 5


class Output:
    """The standard output and error of one node, passed on to those of this process."""

    def __init__(self, node: str) -> None:
        self._node = node
        self._pipes: list[_Pipe] = []
        self.last_words: deque[str] = deque(maxlen=_LAST_WORDS)
        """The last lines that came from standard error."""

    async def open(self) -> tuple[int, int]:
        """Return the descriptors to write to; close them when the node has them."""
        return await self._open("stdout"), await self._open("stderr")

    async def _open(self, stream: str) -> int:
        reading, writing = os.pipe()
        pipe = _Pipe(self, stream)
        self._pipes.append(pipe)
        await asyncio.get_running_loop().connect_read_pipe(lambda: pipe, os.fdopen(reading, "rb", 0))
        return writing

    async def ended(self) -> None:
        """Wait until nobody is left who could write."""
        for pipe in self._pipes:
            await pipe.over.wait()

    def close(self) -> None:
        """Read no more."""
        for pipe in self._pipes:
            pipe.close()

    def write(self, stream: str, line: bytes) -> None:
        """Pass on a line."""
        text = line.decode(errors="backslashreplace").rstrip("\r\n")
        if stream == "stderr":
            self.last_words.append(text)
        with contextlib.suppress(OSError, ValueError):  # nobody reads any more, which must not end the node
            getattr(sys, stream).write(f"{self._node}: {text}\n")  # looked up now: it may have been redirected


class _Pipe(asyncio.Protocol):
    """The reading end of a pipe, cut into lines; a line that is too long is cut as well."""

    def __init__(self, output: Output, stream: str) -> None:
        self._output, self._stream = output, stream
        self._rest = b""
        self._transport: asyncio.BaseTransport | None = None
        self.over = anyio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._output.write(self._stream, line)
        if len(self._rest) > _LINE_BYTES:
            self._flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._flush()
        self.over.set()

    def close(self) -> None:
        """Read no more."""
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        if self._rest:
            self._output.write(self._stream, self._rest)
            self._rest = b""
