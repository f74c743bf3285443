"""The parent's side of a fork server: starts it, has it fork nodes, and hears when one ends."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Final, Self, TypeAlias

import anyio
import anyio.to_thread
import msgspec

from rolecall.core.errors import ConfigError, RolecallError
from rolecall.fleet.forkserver import SIZE_BYTES, Exited, Forked, Kill, Notice, Preload, Spawn, pack, unpack_size

__all__ = ("ForkServer",)

_END_S: Final = 5.0
_START = "import sys; sys.path[:] = {path!r}; from rolecall.fleet.forkserver import serve; serve({descriptor})"

OnExit: TypeAlias = Callable[[int], None]

_notices = msgspec.msgpack.Decoder(Notice)


class ForkServer:
    """A fork server of this process; use it as an async context manager, whose exit ends all that it forked."""

    def __init__(self) -> None:
        if not hasattr(os, "fork"):
            raise ConfigError("engine processes", "this system cannot fork processes", hint="Use the engine `local`")
        self._on_exit: dict[int, OnExit] = {}
        self._received = bytearray()
        self._asked: tuple[asyncio.Future[int], OnExit] | None = None
        self._turn = anyio.Lock()
        self._closed = False

    async def __aenter__(self) -> Self:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = await anyio.to_thread.run_sync(_start, theirs.fileno())
        self._socket.setblocking(False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._socket, self._readable)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._disconnect()
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(_ended, self._process)

    # ------------------------------------------------------------------------------------------ asking

    async def preload(self, modules: Sequence[str]) -> None:
        """Have modules imported; what is asked for next waits until they are."""
        await self._send(Preload(list(modules)))

    async def spawn(self, order: Spawn, stdout: int, stderr: int, on_exit: OnExit) -> int:
        """Fork a process; return its id.

        The descriptors become its standard output and standard error, and stay open here. `on_exit` is called with its
        exit code, when it has ended; a negative one is minus the number of the signal that ended it.

        Raises:
            RolecallError: the fork server has ended.
        """
        async with self._turn:
            forked: asyncio.Future[int] = self._loop.create_future()
            self._asked = (forked, on_exit)
            await self._send(order, (stdout, stderr))
            return await forked

    async def kill(self, pid: int, number: int) -> None:
        """Send a signal to a node and to what it has started."""
        await self._send(Kill(pid, number))

    async def _send(self, order: Preload | Spawn | Kill, descriptors: Sequence[int] = ()) -> None:
        if self._closed:
            raise _gone()
        packed = pack(order)
        try:
            sent = socket.send_fds(self._socket, [packed], descriptors) if descriptors else 0
            await self._loop.sock_sendall(self._socket, memoryview(packed)[sent:])
        except OSError as error:
            raise _gone() from error

    # ------------------------------------------------------------------------------------------ hearing

    def _readable(self) -> None:
        try:
            part = self._socket.recv(65_536)
        except BlockingIOError:
            return
        except OSError:
            part = b""
        if not part:
            self._lost()
            return
        self._received += part
        while (size := self._size()) is not None:
            body = bytes(self._received[SIZE_BYTES : SIZE_BYTES + size])
            del self._received[: SIZE_BYTES + size]
            self._take(_notices.decode(body))

    def _size(self) -> int | None:
        """Return the length of the message that is here as a whole, None when none is."""
        if len(self._received) < SIZE_BYTES:
            return None
        size = unpack_size(bytes(self._received[:SIZE_BYTES]))
        return size if len(self._received) >= SIZE_BYTES + size else None

    def _take(self, notice: Notice) -> None:
        match notice:
            case Forked(pid=pid):
                if self._asked is not None:
                    forked, self._on_exit[pid] = self._asked
                    self._asked = None
                    if not forked.done():
                        forked.set_result(pid)
            case Exited(pid=pid, code=code):
                self._on_exit.pop(pid)(code)

    def _lost(self) -> None:
        """Take note that the fork server has ended; the kernel has ended its nodes, or does now."""
        self._disconnect()
        if self._asked is not None and not self._asked[0].done():
            self._asked[0].set_exception(_gone())
        for pid in list(self._on_exit):
            self._take(Exited(pid, -signal.SIGKILL))

    def _disconnect(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._socket.close()


def _start(descriptor: int) -> subprocess.Popen[bytes]:
    """Start the fork server, with what this interpreter was started with; its own output is for people."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    code = _START.format(path=sys.path, descriptor=descriptor)
    return subprocess.Popen(
        [sys.executable, *flags, "-c", code],
        stdin=subprocess.DEVNULL, stdout=2, pass_fds=[descriptor], start_new_session=True,
    )  # fmt: skip


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Wait until the fork server has ended; it may be in the middle of an import."""
    try:
        process.wait(_END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _gone() -> RolecallError:
    return RolecallError("The process that starts the nodes has ended; what it wrote to standard error says why.")
