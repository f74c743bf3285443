"""When the links of a node write: those that have something to say do so in one turn of the event loop."""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from rolecall.wire.daemon import DAEMON

__all__ = ("Turns",)

_ACK_DELAY_S: Final = 0.02  # in the hope that an answer takes the acknowledgement along


class Writer(Protocol):
    """What takes turns: a link."""

    def pump(self) -> None:
        """Write what there is to write."""

    def acknowledge(self) -> None:
        """Tell the other side what has come, unless it knows."""


class Turns:
    """Gives each link a turn soon after it has asked for one; one callback of the event loop does for all of them."""

    __slots__ = ("_acknowledging", "_daemons", "_loop", "_writing")

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._writing: list[Writer] = []
        self._daemons: list[Writer] = []  # who only says that it lives, which must not pass for more
        self._acknowledging: list[Writer] = []

    def write_soon(self, link: Writer) -> None:
        """Have a link write what it has by the end of this turn of the loop."""
        waiting = self._daemons if DAEMON.get() else self._writing
        waiting.append(link)
        if len(waiting) == 1:
            self._running_loop().call_soon(self._write, waiting)

    def acknowledge_later(self, link: Writer) -> None:
        """Have a link acknowledge what has come, within 20 ms."""
        self._acknowledging.append(link)
        if len(self._acknowledging) == 1:
            self._running_loop().call_later(_ACK_DELAY_S, self._acknowledge)

    def _write(self, waiting: list[Writer]) -> None:
        links = waiting.copy()
        waiting.clear()
        for link in links:
            try:
                link.pump()
            except Exception as error:
                self._failed(error)

    def _acknowledge(self) -> None:
        links, self._acknowledging = self._acknowledging, []
        for link in links:
            try:
                link.acknowledge()
            except Exception as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        """Report what went wrong with one link, which is none of the others' business."""
        self._running_loop().call_exception_handler({"message": "a link could not write", "exception": error})

    def _running_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        return self._loop
