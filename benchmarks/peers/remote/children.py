"""Processes that peers start beside this one, and the ports they listen on."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

READY_S = 60.0


def free_port() -> int:
    """Return a port of the loopback interface that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


class Children:
    """Processes made afresh (not forked), each of which says when it is ready."""

    def __init__(self) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._processes: list[Any] = []
        self._connections: list[Connection] = []  # a child whose connection is closed may end

    def start(self, main: Callable[..., None], *arguments: Any) -> Connection:
        """Run `main(connection, *arguments)` in a process, and return our end once it has sent something."""
        ours, theirs = self._context.Pipe()
        process = self._context.Process(target=main, args=(theirs, *arguments), daemon=True)
        process.start()
        self._processes.append(process)
        self._connections.append(ours)
        if not ours.poll(READY_S):
            raise TimeoutError(f"{main.__name__} was not ready within {READY_S:g} s")
        ours.recv()
        return ours

    def close(self) -> None:
        """End them all."""
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.join()
        self._processes.clear()
