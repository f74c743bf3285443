"""A Unix socket that carries messages about shared memory, and the descriptors of segments."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import Final

from rolecall.wire.limits import Malformed
from rolecall.wire.shared_messages import MESSAGE_BYTES, Message, decode_message, encode_message

__all__ = ("SharedSocket",)

_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(4 * array.array("i").itemsize)
_WAITING_MAX: Final = 10_000
_TURN: Final = 64  # messages read before others have their turn


class SharedSocket:
    """Reads and writes without waiting; all from one event loop.

    Set `on_message`, which is called with each message and the descriptor that came with it, or -1, which is closed
    afterwards, and may raise `Malformed`; and `on_failed`, which is called once, when the other side is gone or what
    came is `Malformed`. The socket is closed by then.
    """

    def __init__(self, connected: socket.socket) -> None:
        connected.setblocking(False)
        self._socket = connected
        self.on_message: Callable[[Message, int], None] = _ignore
        self.on_failed: Callable[[Exception], None] = _ignore
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[bytes] = deque()
        self._blocked = False
        self.closed = False
        self._loop.add_reader(connected.fileno(), self._readable)

    # ------------------------------------------------------------------------------------------------- writing

    def send(self, message: Message) -> None:
        """Send a message, after those that wait."""
        if self.closed:
            return
        self._waiting.append(encode_message(message))
        if len(self._waiting) == 1:
            self._flush()
        elif len(self._waiting) > _WAITING_MAX:
            self._fail(ConnectionError("it takes nothing any more"))

    def pass_on(self, message: Message, fd: int) -> bool:
        """Send a message with a descriptor if that can be done at once; return whether it was."""
        if self.closed or self._waiting:
            return False
        try:
            socket.send_fds(self._socket, [encode_message(message)], [fd])
        except OSError:  # no room at the moment, or too many descriptors on their way
            return False
        return True

    def _flush(self) -> None:
        try:
            while self._waiting:
                self._socket.send(self._waiting[0])
                self._waiting.popleft()
        except BlockingIOError:
            self._await_room(True)
        except OSError as error:
            self._fail(error)
        else:
            self._await_room(False)

    def _await_room(self, blocked: bool) -> None:
        if blocked and not self._blocked:
            self._loop.add_writer(self._socket.fileno(), self._flush)
        elif self._blocked and not blocked:
            self._loop.remove_writer(self._socket.fileno())
        self._blocked = blocked

    # ------------------------------------------------------------------------------------------------- reading

    def poll(self) -> None:
        """Read whatever has come."""
        while self._read():
            pass

    def _readable(self) -> None:
        for _ in range(_TURN):
            if not self._read():
                return

    def _read(self) -> bool:
        """Read one message; return whether there may be more."""
        if self.closed:
            return False
        try:
            data, ancillary, flags, _ = self._socket.recvmsg(MESSAGE_BYTES, _ANCILLARY_BYTES, socket.MSG_CMSG_CLOEXEC)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self._fail(error)
            return False
        fds = _descriptors(ancillary)
        try:
            self._take(data, flags, fds)
        except Malformed as error:
            self._fail(error)
        finally:
            for fd in fds:
                os.close(fd)
        return not self.closed

    def _take(self, data: bytes, flags: int, fds: list[int]) -> None:
        if not data:
            self._fail(ConnectionError("the other process has closed it"))
        elif flags & socket.MSG_CTRUNC:  # this process cannot have more descriptors, or too many came
            self._fail(ConnectionError("a descriptor could not be received"))
        elif flags & socket.MSG_TRUNC or len(fds) > 1:
            raise Malformed("A message about shared memory is too long, or comes with too many descriptors.")
        else:
            self.on_message(decode_message(data), fds[0] if fds else -1)

    # ------------------------------------------------------------------------------------------------- ending

    def _fail(self, error: Exception) -> None:
        if not self.closed:
            self.close()
            self.on_failed(error)

    def close(self) -> None:
        """Close the socket; nothing is called any more."""
        if not self.closed:
            self.closed = True
            self._waiting.clear()
            self._await_room(False)
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()


def _ignore(*found: object) -> None:
    """Do nothing, as long as nobody wants to know."""


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
