"""What an event loop offers and a simulation cannot: each is refused, with the name of who asks."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Any, Final, NoReturn

from rolecall.core.place import HERE
from rolecall.sim.errors import NotSimulated
from rolecall.sim.hashing import Serials

__all__ = ("Refusing", "asker", "refuse")

_OUTSIDE: Final = ("/asyncio/", "/anyio/", "/rolecall/sim/", "/concurrent/", "/threading.py", "<frozen")
_REAL: Final = "Run it on a real engine, or hide it behind an element that a simulation fills otherwise"
_ASYNC: Final = {
    "sock_recv": "a socket",
    "sock_recv_into": "a socket",
    "sock_recvfrom": "a socket",
    "sock_recvfrom_into": "a socket",
    "sock_sendall": "a socket",
    "sock_sendto": "a socket",
    "sock_connect": "a socket",
    "sock_accept": "a socket",
    "sock_sendfile": "a socket",
    "sendfile": "a file sent over a socket",
    "start_tls": "TLS",
    "connect_accepted_socket": "a socket",
    "create_unix_connection": "a Unix socket",
    "create_unix_server": "a Unix socket",
    "create_datagram_endpoint": "a datagram socket",
    "connect_read_pipe": "a pipe of the operating system",
    "connect_write_pipe": "a pipe of the operating system",
    "subprocess_exec": "a subprocess",
    "subprocess_shell": "a subprocess",
}
_PLAIN: Final = {
    "add_reader": "a file descriptor",
    "remove_reader": "a file descriptor",
    "add_writer": "a file descriptor",
    "remove_writer": "a file descriptor",
    "add_signal_handler": "a signal",
    "remove_signal_handler": "a signal",
    "set_default_executor": "worker threads",
}


def asker() -> str:
    """Return who runs: the task, its node, and the innermost line that is neither library nor simulator."""
    task = asyncio.current_task()
    name = task.get_name() if task is not None else "a callback"
    node = HERE.get()
    frame = sys._getframe(1)
    while frame.f_back is not None and any(part in frame.f_code.co_filename for part in _OUTSIDE):
        frame = frame.f_back
    on = f" on node {node}" if node is not None else ""
    return f"{name}{on} ({frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name})"


def refuse(what: str, hint: str = _REAL) -> NoReturn:
    """Raise `NotSimulated` for whoever runs."""
    raise NotSimulated(what, asker(), hint)


class Refusing(Serials):
    """An event loop without sockets, subprocesses and signals."""


def _async_refusal(what: str) -> Callable[..., Any]:
    async def refused(self: Refusing, *args: Any, **options: Any) -> NoReturn:
        refuse(what)

    return refused


def _plain_refusal(what: str) -> Callable[..., Any]:
    def refused(self: Refusing, *args: Any, **options: Any) -> NoReturn:
        refuse(what)

    return refused


for _name, _what in _ASYNC.items():
    setattr(Refusing, _name, _async_refusal(_what))
for _name, _what in _PLAIN.items():
    setattr(Refusing, _name, _plain_refusal(_what))
