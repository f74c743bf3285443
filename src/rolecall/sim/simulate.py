"""Run a coroutine in virtual time: `rc.simulate(main, seed=7)`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import sys
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any, TypeVar, get_args

from rolecall.core.errors import ConfigError
from rolecall.sim.attempt import note
from rolecall.sim.errors import Endless, Stuck
from rolecall.sim.inline import Threads
from rolecall.sim.loop import INSTANT_STEPS, VirtualLoop

__all__ = ("simulate", "virtual_loop")

T = TypeVar("T")


def simulate(
    main: Callable[[], Coroutine[Any, Any, T]],
    *,
    seed: int = 0,
    order: str = "shuffled",
    threads: Threads = "refuse",
    instant_steps: int = INSTANT_STEPS,
) -> T:
    """Run `main()` on an event loop of its own in virtual time, and return its result, as `asyncio.run` does.

    Time moves only when nothing is ready, and then at once: an hour's sleep takes no time. The same seed gives the
    same run, as long as nothing in it looks at the real time, at `id()`, or at the order of a set of strings; the
    generators of `random` and `numpy.random` are seeded, and as they were afterwards.

    Args:
        main: called without arguments.
        seed: chooses the order in which tasks that are ready at once take their steps.
        order: `fifo`, as on a real loop; `shuffled`, drawn evenly; or `adversarial`, where some tasks are always late.
        threads: `refuse` work for worker threads, or do it `inline`.
        instant_steps: how many steps may be taken at one instant.

    Raises:
        Stuck: nothing can ever happen again; the message says who waits for what.
        Endless: there is no end to what happens at one instant.
        NotSimulated: something asked for a thread, a socket, a subprocess or a signal.
    """
    if threads not in get_args(Threads):
        expected = " or ".join(map(repr, get_args(Threads)))
        raise ConfigError("rc.simulate", f"threads is {threads!r}", hint=f"Give {expected}")
    run = partial(_run, main, seed, order, threads, instant_steps)
    if asyncio._get_running_loop() is None:
        return run()
    with ThreadPoolExecutor(1, thread_name_prefix="rolecall-simulation") as pool:  # as in a notebook
        return pool.submit(copy_context().run, run).result()


def virtual_loop() -> VirtualLoop | None:
    """Return the running loop if it is one in virtual time."""
    loop = asyncio._get_running_loop()
    return loop if isinstance(loop, VirtualLoop) else None


def _run(main: Callable[[], Coroutine[Any, Any, T]], seed: int, order: str, threads: Threads, instant_steps: int) -> T:
    loop = VirtualLoop(seed, order=order, threads=threads, instant_steps=instant_steps)
    with _seeded(seed), _collected_at_fixed_points():
        try:
            task: asyncio.Task[T] = loop.create_task(main(), name="main")
            return loop.run_until_complete(task)
        finally:
            note(f"{loop.steps} steps, {loop.now_s()!r} s")
            try:
                _end(loop)
            finally:
                loop.close()


def _end(loop: VirtualLoop) -> None:
    """Cancel what is left, as `asyncio.run` does; what does not end then is left alone."""
    tasks = [task for task in asyncio.all_tasks(loop) if not task.done()]
    for task in sorted(tasks, key=hash):
        task.cancel()
    try:
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    except (Stuck, Endless):
        pass
    for task in tasks:
        _tell(loop, task)


def _tell(loop: VirtualLoop, task: asyncio.Task[Any]) -> None:
    if task.get_name() == "main" or not task.done() or task.cancelled() or task.exception() is None:
        return
    loop.call_exception_handler(
        {"message": "unhandled exception at the end of a simulation", "exception": task.exception(), "task": task}
    )


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    numpy = sys.modules.get("numpy")
    before = random.getstate()
    random.seed(f"rolecall simulation {seed}")
    drawn = numpy.random.get_state() if numpy is not None else None
    if numpy is not None:
        numpy.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(before)
        if numpy is not None:
            numpy.random.set_state(drawn)


@contextlib.contextmanager
def _collected_at_fixed_points() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
