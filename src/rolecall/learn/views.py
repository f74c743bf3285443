"""Views of a data set: mapped, sampled, in batches; and which labels it holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from rolecall.core.errors import CallerError, ConfigError, nearest
from rolecall.core.tensors import Array
from rolecall.learn.batches import Indices, batches_of_epoch
from rolecall.learn.dataset import ArrayDataset, Dataset

__all__ = ("Order", "batches", "label_histogram", "mapped", "sample")

Order: TypeAlias = Literal["shuffled", "sequential", "replacement"]
_ORDERS = ("shuffled", "sequential", "replacement")


def mapped(
    data: Dataset, *, x: Callable[[Array], Array] | None = None, y: Callable[[Array], Array] | None = None
) -> ArrayDataset:
    """Return the data set with a function applied to all its samples at once, to all its labels, or both.

    Raises `CallerError` where the function does not return one sample (or label) for each.
    """
    new_x = np.asarray(data.x) if x is None else x(np.asarray(data.x))
    new_y = np.asarray(data.y) if y is None else y(np.asarray(data.y))
    if len(new_x) != len(data) or len(new_y) != len(data):
        raise CallerError(
            f"mapped: {len(data)} samples became {len(new_x)}, and {len(new_y)} labels. Keep their number."
        )
    return ArrayDataset(new_x, new_y, name=getattr(data, "name", type(data).__name__))


def sample(data: Dataset, count: int, *, replace: bool = False, seed: int = 0) -> ArrayDataset:
    """Return `count` samples drawn at random, each once at most unless `replace`.

    Raises `CallerError` for more samples than there are, or from an empty data set.
    """
    if count < 0 or (count > len(data) and not replace) or (count and not len(data)):
        hint = "" if replace else " Draw fewer, or with replace=True."
        raise CallerError(f"sample: {count} of {len(data)} samples.{hint}")
    return _at(data, np.random.default_rng(seed % 2**64).choice(len(data), count, replace=replace))


def batches(
    data: Dataset,
    size: int,
    *,
    order: Order = "shuffled",
    epochs: int | None = 1,
    drop_last: bool = False,
    seed: int = 0,
) -> Iterator[ArrayDataset]:
    """Yield batches of `size` samples, for `epochs` epochs or, where that is None, for ever.

    `order` is `shuffled` (anew each epoch, as `fit` reads them), `sequential`, or `replacement` (every batch
    drawn from all samples, as many batches an epoch as without). The last batch of an epoch may be smaller;
    `drop_last` leaves it out. Raises `CallerError` for a size below 1 and where no batch would ever come.
    """
    if order not in _ORDERS:
        hint = f"Known are {', '.join(_ORDERS)}.{nearest(order, _ORDERS)}"
        raise ConfigError("batches", f"there is no order {order!r}", hint=hint)
    if size < 1 or not len(data) or (drop_last and len(data) < size):
        raise CallerError(f"batches: {len(data)} samples give no batch of {size}.")
    return _batches(data, size, order, epochs, drop_last, seed)


def label_histogram(data: Dataset, classes: int | None = None) -> npt.NDArray[np.int64]:
    """Return how many samples there are of each label, 0 to `classes` - 1 (by default to the data set's highest).

    Raises `CallerError` for labels that are no whole numbers from 0 on, or not below `classes`.
    """
    y = np.asarray(data.y)
    if y.dtype.kind not in "iu" or y.ndim != 1 or (y.size and y.min() < 0):
        raise CallerError(f"label_histogram: labels are whole numbers from 0 on, found {y.dtype} {list(y.shape)}.")
    wanted = classes if classes is not None else int(getattr(data, "classes", 0))
    found = np.bincount(y.astype(np.int64), minlength=wanted)
    if classes is not None and len(found) > classes:
        raise CallerError(f"label_histogram: there is a label {len(found) - 1} among {classes} classes.")
    return found


def _batches(
    data: Dataset, size: int, order: Order, epochs: int | None, drop_last: bool, seed: int
) -> Iterator[ArrayDataset]:
    for epoch in count() if epochs is None else range(epochs):
        for indices in _epoch(len(data), size, order, seed, epoch):
            if len(indices) == size or not drop_last:
                yield _at(data, indices)


def _epoch(samples: int, size: int, order: Order, seed: int, epoch: int) -> list[Indices]:
    if order == "shuffled":
        return batches_of_epoch(samples, batch_size=size, seed=seed, epoch=epoch)
    cuts = range(size, samples, size)
    if order == "sequential":
        return np.split(np.arange(samples), cuts)
    drawn = np.random.default_rng([seed % 2**64, epoch]).integers(0, samples, samples)
    return np.split(drawn, cuts)


def _at(data: Dataset, indices: Indices) -> ArrayDataset:
    if isinstance(data, ArrayDataset):
        return data.subset(indices)
    x, y = np.asarray(data.x)[indices], np.asarray(data.y)[indices]
    return ArrayDataset(x, y, name=type(data).__name__)
