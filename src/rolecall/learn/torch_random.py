"""Randomness out of torch's process-wide generator, made private to whoever draws.

Dropout and the initial weights of layers draw from one generator that all threads share. Here a stream of
one's own is put in its place for as long as one draws, by one thread at a time, and the shared one is put
back untouched.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Protocol

import numpy as np
import torch
from torch import nn

from rolecall.learn.model import stop_if_cancelled

__all__ = ("NoDraws", "PrivateDraws", "Stream", "draws")

_turn = threading.RLock()
_POLL_S = 0.05


class Stream(Protocol):
    """Where a computation draws from: what it computes inside `drawing()` draws from this stream alone."""

    def drawing(self) -> AbstractContextManager[None]: ...


class NoDraws:
    """The stream of what draws nothing, and so needs to wait for no one."""

    def drawing(self) -> AbstractContextManager[None]:
        return nullcontext()


class PrivateDraws:
    """A stream of its own, decided by a seed and a purpose; goes on where it stopped."""

    def __init__(self, seed: int, purpose: int = 0) -> None:
        words = np.random.SeedSequence([seed % 2**64, purpose]).generate_state(1, np.uint64)
        self._state = torch.Generator().manual_seed(int(words[0])).get_state()

    @contextmanager
    def drawing(self) -> Iterator[None]:
        with _one_at_a_time():
            shared = torch.get_rng_state()
            torch.set_rng_state(self._state)
            try:
                yield
            finally:
                self._state = torch.get_rng_state()
                torch.set_rng_state(shared)


def draws(module: nn.Module, inputs: torch.Tensor) -> bool:
    """Return whether `module` in training mode draws random numbers for `inputs`; may change `module`."""
    module.train()
    with PrivateDraws(0).drawing(), torch.no_grad():
        before = torch.get_rng_state()
        module(inputs)
        return not torch.equal(before, torch.get_rng_state())


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    while not _turn.acquire(timeout=_POLL_S):
        stop_if_cancelled()
    try:
        yield
    finally:
        _turn.release()
