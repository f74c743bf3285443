"""In which order the samples of a data set are read: a function of the seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from rolecall.core.errors import CallerError

__all__ = ("Indices", "batches_of_epoch", "epochs_of_batches", "nth_batch")

Indices: TypeAlias = npt.NDArray[np.int64]


def batches_of_epoch(samples: int, *, batch_size: int, seed: int, epoch: int, join_lone: bool = False) -> list[Indices]:
    """Return the batches of one epoch: all indices below `samples`, shuffled, the last batch perhaps smaller.

    `join_lone` adds a last batch of one sample to the one before, for models that need two (batch
    normalisation).
    """
    order = np.random.default_rng([seed % 2**64, epoch]).permutation(samples)
    starts = list(range(0, samples, batch_size))
    if join_lone and len(starts) > 1 and samples - starts[-1] == 1:
        starts.pop()
    return np.split(order, starts[1:])


def epochs_of_batches(
    samples: int, *, epochs: int, steps: int | None, batch_size: int, seed: int, join_lone: bool = False
) -> Iterator[tuple[int, Indices]]:
    """Yield (epoch, batch) for `epochs` epochs, or for exactly `steps` batches where that is given."""
    _require("batch_size", batch_size)
    _require("epochs" if steps is None else "steps", epochs if steps is None else steps)
    stream = (
        (epoch, batch)
        for epoch in (range(epochs) if steps is None else count())
        for batch in batches_of_epoch(samples, batch_size=batch_size, seed=seed, epoch=epoch, join_lone=join_lone)
    )
    return islice(stream, steps)


def nth_batch(samples: int, *, step: int, batch_size: int, seed: int, join_lone: bool = False) -> Indices:
    """Return the batch that comes `step`-th (from 0) in the endless sequence of epochs."""
    _require("batch_size", batch_size)
    _require("step", step, least=0)
    first = batches_of_epoch(samples, batch_size=batch_size, seed=seed, epoch=0, join_lone=join_lone)
    epoch, at = divmod(step, len(first))
    if epoch == 0:
        return first[at]
    return batches_of_epoch(samples, batch_size=batch_size, seed=seed, epoch=epoch, join_lone=join_lone)[at]


def _require(name: str, value: int, least: int = 1) -> None:
    if value < least:
        raise CallerError(f"{name} is {value}. It must be at least {least}.")
