"""A process that has imported what nodes need and forks them: each is up in milliseconds and shares its memory.

It runs no threads of its own and no event loop, and computes nothing, so that what it forks begins as a fresh process
would. It is the parent of all nodes and ends them, with what they have started, when its own parent is gone, in
whatever way that went: then the socket between them closes. When it is gone itself, the kernel ends them.

Over the socket go MessagePack arrays, each after its length in four bytes.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import gc
import importlib
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn

import msgspec

__all__ = ("Exited", "Forked", "Kill", "Notice", "Preload", "Spawn", "pack", "read_exactly", "serve", "unpack_size")

SIZE_BYTES: Final = 4
_LARGEST_BYTES: Final = 64 << 20
_LOOK_S: Final = 1.0
_PR_SET_PDEATHSIG, _PR_SET_NAME = 1, 15


class Preload(msgspec.Struct, frozen=True, array_like=True, tag="preload"):
    """Import these modules, as far as there are any."""

    modules: list[str]


class Spawn(msgspec.Struct, frozen=True, array_like=True, tag="spawn"):
    """Fork a node; with the message come the descriptors for its standard output and standard error.

    `config` is passed to `entry`, `module:function`, whose result is the exit code.
    """

    name: str
    entry: str
    config: bytes


class Kill(msgspec.Struct, frozen=True, array_like=True, tag="kill"):
    """Send a signal to a node and what it has started."""

    pid: int
    signal: int


class Forked(msgspec.Struct, frozen=True, array_like=True, tag="forked"):
    """A node has been forked."""

    pid: int


class Exited(msgspec.Struct, frozen=True, array_like=True, tag="exited"):
    """A node has ended; `code` is its exit code, or minus the number of the signal that ended it."""

    pid: int
    code: int


Order = Preload | Spawn | Kill
Notice = Forked | Exited

_orders = msgspec.msgpack.Decoder(Order)
_encoder = msgspec.msgpack.Encoder()


def pack(message: Order | Notice) -> bytes:
    """Return a message with its length before it."""
    body = _encoder.encode(message)
    return len(body).to_bytes(SIZE_BYTES, "big") + body


def unpack_size(head: bytes) -> int:
    """Return the length of the message that comes; raise `ValueError` for one that cannot be."""
    size = int.from_bytes(head, "big")
    if size > _LARGEST_BYTES:
        raise ValueError(f"a message of {size:,} bytes between a fork server and its parent")
    return size


def read_exactly(connection: socket.socket, size: int) -> bytes:
    """Return so many bytes; fewer only where the other side has closed."""
    parts: list[bytes] = []
    while size and (part := connection.recv(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def serve(descriptor: int) -> NoReturn:
    """Serve until the other end of the socket closes; then end what was forked, and this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _name_process("rolecall: fork")
    with socket.socket(fileno=descriptor) as connection:
        _Server(connection).run()
    sys.stderr.flush()
    os._exit(0)


class _Server:
    """The loop of the fork server."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._parent = connection, os.getppid()
        self._pids: set[int] = set()
        self._woken, self._waker = os.pipe()
        for end in (self._woken, self._waker):
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)

    def run(self) -> None:
        """Obey until the parent is gone."""
        try:
            while self._step():
                pass
        except (ConnectionError, BrokenPipeError):
            pass  # the parent is gone
        finally:
            self._end_all()

    def _step(self) -> bool:
        watched: list[socket.socket | int] = [self._connection, self._woken]
        readable, _, _ = select.select(watched, [], [], _LOOK_S)
        if self._woken in readable:
            with contextlib.suppress(BlockingIOError):
                os.read(self._woken, 4096)
            self._reap()
        return self._obey() if self._connection in readable else not self._is_orphan

    @property
    def _is_orphan(self) -> bool:
        """Whether the parent is gone, even if something it forked keeps the socket open."""
        return os.getppid() != self._parent or _is_closed(self._connection)

    def _obey(self) -> bool:
        """Do what is asked for; return False when the parent has closed its end."""
        head, descriptors, _, _ = socket.recv_fds(self._connection, SIZE_BYTES, 2)
        try:
            head += read_exactly(self._connection, SIZE_BYTES - len(head)) if head else b""
            if len(head) < SIZE_BYTES:
                return False
            size = unpack_size(head)
            body = read_exactly(self._connection, size)
            if len(body) < size:
                return False
            self._do(_orders.decode(body), descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return True

    def _do(self, order: Order, descriptors: Sequence[int]) -> None:
        match order:
            case Preload(modules=modules):
                self._preload(modules)
            case Spawn():
                pid = self._fork(order, descriptors)
                self._pids.add(pid)
                self._tell(Forked(pid))
            case Kill(pid=pid, signal=number):
                if pid in self._pids:
                    _signal_group(pid, number)

    def _tell(self, notice: Notice) -> None:
        self._connection.sendall(pack(notice))

    def _preload(self, modules: Sequence[str]) -> None:
        """Import modules; what fails is imported again by the nodes that need it, which then say so."""
        gc.disable()
        for name in modules:
            if self._is_orphan:
                return
            try:
                importlib.import_module(name)
            except Exception:
                continue
        gc.freeze()  # a collection in a node would write to every object, and so copy all of that memory
        gc.enable()

    # ------------------------------------------------------------------------------------------ children

    def _fork(self, order: Spawn, descriptors: Sequence[int]) -> int:
        server = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = 1
        try:
            self._become(order.name, descriptors, server)
            module, _, function = order.entry.partition(":")
            code = getattr(importlib.import_module(module), function)(order.config)
        except SystemExit as exit:
            code = exit.code if isinstance(exit.code, int) else 1
        except BaseException:
            traceback.print_exc()
        finally:
            _flush()
            os._exit(code)

    def _become(self, name: str, descriptors: Sequence[int], server: int) -> None:
        """Turn the copy of this process into one of its own."""
        os.setsid()
        _die_with_parent(server)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for end in (self._woken, self._waker):
            os.close(end)
        self._connection.close()
        for descriptor, standard in zip(descriptors, (1, 2), strict=True):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        for stream in (sys.stdout, sys.stderr):
            stream.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        faulthandler.enable()
        _name_process(name)
        if "numpy" in sys.modules:
            sys.modules["numpy"].random.seed()  # or all nodes would draw the same
        sys.argv[:] = [name]

    def _reap(self) -> None:
        """Tell of those that have ended, and end what they have left behind."""
        for pid in list(self._ended()):
            _signal_group(pid, signal.SIGKILL)  # before it is reaped: until then nobody else gets its number
            _, status = os.waitpid(pid, 0)
            self._pids.discard(pid)
            self._tell(Exited(pid, os.waitstatus_to_exitcode(status)))

    def _ended(self) -> Iterator[int]:
        for pid in sorted(self._pids):
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None:
                yield pid

    def _end_all(self) -> None:
        signal.set_wakeup_fd(-1)
        for pid in self._pids:
            _signal_group(pid, signal.SIGKILL)
        for pid in self._pids:
            os.waitpid(pid, 0)


def _signal_group(pid: int, number: int) -> None:
    """Send a signal to a node, and to all in its process group."""
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # the group is there a moment after the process
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def _is_closed(connection: socket.socket) -> bool:
    watched = select.poll()
    watched.register(connection, 0)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in watched.poll(0))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()


# ---------------------------------------------------------------------------------------------- Linux


def _prctl(option: int, argument: int | bytes) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)


def _die_with_parent(parent: int) -> None:
    """Have the kernel end this process when the one it was forked from ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def _name_process(name: str) -> None:
    _prctl(_PR_SET_NAME, name.encode()[:15])
