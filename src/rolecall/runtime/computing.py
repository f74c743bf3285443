"""Where the work that would block the event loop is done: in worker threads, or wherever an engine says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import anyio
import anyio.to_thread

from rolecall.core.ids import RoleId

__all__ = ("Computing", "Threads")


class Computing(Protocol):
    """Runs functions for the roles of one node; raises what they raise."""

    async def run(self, role: RoleId, function: Callable[..., Any], args: tuple[Any, ...], cost: float | None) -> Any:
        """Return the result of a function that a role gave to `compute`, with what it said that would cost."""

    async def load(self, role: RoleId, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Return the result of a function that makes or reads an element of a role."""

    async def save(self, role: RoleId, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Run a function that writes an element of a role that is ending: it waits for no other work."""


class Threads:
    """Worker threads, at most `threads` at a time for one node."""

    def __init__(self, threads: int) -> None:
        self._limiter = anyio.CapacityLimiter(threads)

    async def run(self, role: RoleId, function: Callable[..., Any], args: tuple[Any, ...], cost: float | None) -> Any:
        """Run it in a worker thread, which takes as long as it takes."""
        return await anyio.to_thread.run_sync(function, *args, limiter=self._limiter)

    async def load(self, role: RoleId, function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
        """Run it in a worker thread."""
        return await anyio.to_thread.run_sync(function, *args, limiter=self._limiter)

    async def save(self, role: RoleId, function: Callable[..., None], args: tuple[Any, ...]) -> None:
        """Run it in a worker thread beyond those for other work."""
        await anyio.to_thread.run_sync(function, *args)
