"""The event loop that nodes run on: uvloop's where it is installed, asyncio's elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.util import find_spec
from typing import TypeVar, TypeVarTuple

import anyio

__all__ = ("run_on_loop",)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


def run_on_loop(function: Callable[[*Ts], Awaitable[T]], *args: *Ts) -> T:
    """Run a coroutine function on a new event loop, and return its result; see `anyio.run`."""
    return anyio.run(function, *args, backend_options={"use_uvloop": find_spec("uvloop") is not None})
