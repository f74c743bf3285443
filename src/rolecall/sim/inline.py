"""Work for worker threads, done where it is: in a simulation there is one thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, TypeVar

from anyio._backends import _asyncio as backend
from anyio._core._eventloop import claim_worker_thread, threadlocals

from rolecall.sim.hashing import Serials
from rolecall.sim.refusals import refuse

__all__ = ("Threads", "run_inline", "use_inline_threads")

T = TypeVar("T")
Threads: TypeAlias = Literal["refuse", "inline"]

_real_thread = backend.AsyncIOBackend.run_sync_in_worker_thread
_real_call_back = backend.AsyncIOBackend.run_sync_from_thread
_real_await_back = backend.AsyncIOBackend.run_async_from_thread


def run_inline(function: Callable[[], T]) -> T:
    """Run what is meant for a worker thread; inside, `anyio.from_thread.check_cancelled()` works."""
    if hasattr(threadlocals, "current_token"):  # work that has work done
        return function()
    task = asyncio.current_task()
    state = backend._task_states.get(task) if task is not None else None
    with claim_worker_thread(backend.AsyncIOBackend, asyncio.get_running_loop()):
        threadlocals.current_cancel_scope = state.cancel_scope if state is not None else None
        try:
            return function()
        finally:
            del threadlocals.current_cancel_scope


def use_inline_threads() -> None:
    """Have anyio ask a simulated loop before it starts a thread; other loops are not touched."""
    backend.AsyncIOBackend.run_sync_in_worker_thread = classmethod(_in_thread)  # type: ignore[assignment, method-assign]
    backend.AsyncIOBackend.run_sync_from_thread = classmethod(_call_back)  # type: ignore[assignment, method-assign]
    backend.AsyncIOBackend.run_async_from_thread = classmethod(_await_back)  # type: ignore[assignment, method-assign]


async def _in_thread(
    cls: Any, func: Callable[..., Any], args: tuple[Any, ...], abandon_on_cancel: bool = False, limiter: Any = None
) -> Any:
    loop = asyncio.get_running_loop()
    if not isinstance(loop, Serials):
        return await _real_thread(func, args, abandon_on_cancel=abandon_on_cancel, limiter=limiter)
    await cls.checkpoint()
    async with limiter or cls.current_default_thread_limiter():
        return await loop.run_in_executor(None, func, *args)


def _call_back(cls: Any, func: Callable[..., Any], args: tuple[Any, ...], token: Any) -> Any:
    if isinstance(asyncio._get_running_loop(), Serials):
        return func(*args)  # the event loop is in this very thread
    return _real_call_back(func, args, token)


def _await_back(cls: Any, func: Callable[..., Any], args: tuple[Any, ...], token: Any) -> Any:
    if isinstance(asyncio._get_running_loop(), Serials):
        refuse("a coroutine to be awaited from a worker thread", "Do it before or after the work, on the event loop")
    return _real_await_back(func, args, token)
