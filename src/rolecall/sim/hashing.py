"""Serial hashes for tasks and cancel scopes.

asyncio and anyio keep both in sets, and cancel by iterating them. Objects hash by their address, which differs from
run to run, and so would the order of what is cancelled.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

from anyio._backends import _asyncio as backend

__all__ = ("SerialTask", "Serials", "use_serial_scopes")


class Serials(asyncio.BaseEventLoop):
    """An event loop that numbers what is made on it."""

    def __init__(self) -> None:
        super().__init__()
        self.serials: Iterator[int] = itertools.count(1)


class SerialTask(asyncio.Task[Any]):
    """A task that hashes as its serial number."""

    __slots__ = ("priority", "serial")

    def __init__(self, coro: Any, *, loop: Serials, name: str | None = None, **options: Any) -> None:
        self.serial = next(loop.serials)
        self.priority = -1.0
        super().__init__(coro, loop=loop, name=name or f"task {self.serial}", **options)

    def __hash__(self) -> int:
        return self.serial

    def __eq__(self, other: object) -> bool:
        return self is other


class _SerialScope(backend.CancelScope):
    """A cancel scope of anyio that hashes as its serial number where its loop has one, and else as ever."""

    __slots__ = ("_hash",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        loop = asyncio._get_running_loop()
        self._hash = next(loop.serials) if isinstance(loop, Serials) else object.__hash__(self)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other


def use_serial_scopes() -> None:
    """Have anyio make such scopes from now on, on every loop of this process."""
    if backend.CancelScope is not _SerialScope:
        backend.CancelScope = _SerialScope  # type: ignore[misc]
