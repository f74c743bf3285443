"""Where a process waits for others of its machine: an abstract Unix address, of which nothing is left when it ends."""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections.abc import Callable
from typing import Final

from rolecall.wire.shared_segments import PREFIX

__all__ = ("SharedListener", "connected_to")

_BACKLOG: Final = 128
_PAUSE_S: Final = 0.2  # after a failure, such as that there are no more descriptors


class SharedListener:
    """Calls `on_connected` with each connection, from whomever; raises `OSError` where it cannot listen."""

    def __init__(self, on_connected: Callable[[socket.socket], None]) -> None:
        self._on_connected = on_connected
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self.name = f"{PREFIX}-{secrets.token_hex(16)}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.setblocking(False)
            self._socket.bind(_address(self.name))
            self._socket.listen(_BACKLOG)
        except BaseException:
            self._socket.close()
            raise
        self._resume()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            connected, _ = self._socket.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError:
            self._loop.remove_reader(self._socket.fileno())
            self._pause = self._loop.call_later(_PAUSE_S, self._resume)
        else:
            self._on_connected(connected)

    def close(self) -> None:
        """Listen no more."""
        if self._pause is not None:
            self._pause.cancel()
        else:
            self._loop.remove_reader(self._socket.fileno())
        self._socket.close()


def connected_to(name: str) -> socket.socket:
    """Return a connection to who listens by that name; raise `OSError` where nobody does on this machine."""
    connecting = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connecting.setblocking(False)  # it is there at once, or never
        connecting.connect(_address(name))
    except BaseException:
        connecting.close()
        raise
    return connecting


def _address(name: str) -> str:
    return f"\0{name}"
