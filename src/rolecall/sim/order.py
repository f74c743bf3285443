"""In which order tasks that are ready at once take their steps.

Only contiguous runs of task steps are permuted. Callbacks of transports keep their place: a real event loop never
swaps them, and protocols rightly rely on it.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Final, Literal, TypeAlias, get_args

from rolecall.core.errors import ConfigError, nearest
from rolecall.sim.hashing import SerialTask

__all__ = ("ORDERS", "Arrange", "OrderName", "arrangement", "task_of")

OrderName: TypeAlias = Literal["fifo", "shuffled", "adversarial"]
ORDERS: Final = get_args(OrderName)
Arrange: TypeAlias = Callable[[list[asyncio.Handle]], None]

_CHANGES: Final = 0.02
"""How likely a task gets a new priority at a step, where the order is adversarial."""


def arrangement(order: str, seed: int) -> Arrange | None:
    """Return what puts a run of task steps into order in place; None where they stay as they came.

    `shuffled` draws every order with the same probability. `adversarial` gives tasks priorities that change rarely,
    so that some are always late (Burckhardt et al., "A randomized scheduler with probabilistic guarantees of finding
    bugs", 2010).
    """
    if order not in ORDERS:
        raise ConfigError("order", f"there is no order {order!r}.{nearest(order, ORDERS)}", hint=", ".join(ORDERS))
    if order == "fifo":
        return None
    rng = random.Random(f"rolecall order {seed}")
    if order == "shuffled":
        return rng.shuffle

    def priority(handle: asyncio.Handle) -> float:
        task = task_of(handle)
        if not isinstance(task, SerialTask):
            return 0.5
        if task.priority < 0 or rng.random() < _CHANGES:
            task.priority = rng.random()
        return task.priority

    return lambda steps: steps.sort(key=priority)


def task_of(handle: asyncio.Handle) -> asyncio.Task[object] | None:
    """Return the task whose step a handle is, or None."""
    owner = getattr(handle._callback, "__self__", None)  # type: ignore[attr-defined]
    return owner if isinstance(owner, asyncio.Task) else None
