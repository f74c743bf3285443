"""What a data set is: an array of samples and one of labels, made from whatever one has."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from rolecall.core.errors import CallerError
from rolecall.core.tensors import Array

__all__ = ("ArrayDataset", "Dataset", "as_float")


@runtime_checkable
class Dataset(Protocol):
    """Samples that lie in memory.

    `x[i]` is a sample and `y[i]` its label (a whole number) or target. An `x` of dtype uint8 holds images,
    whose values 0 to 255 stand for 0 to 1: models scale it as they read it, so that it takes a quarter of the
    memory.
    """

    @property
    def x(self) -> Array:
        """The samples, along the first axis; images are (sample, channel, row, column)."""
        ...

    @property
    def y(self) -> Array:
        """The labels or targets."""
        ...

    def __len__(self) -> int: ...


class ArrayDataset:
    """A data set of two arrays, which become read-only views here (the arrays given are not copied).

    `classes` is the number of labels, found from `y` where it is not given (0 when `y` holds no whole
    numbers). `users` says whose each sample is, for partitioning by user. Raises `CallerError` when the
    lengths differ.
    """

    __slots__ = ("classes", "name", "users", "x", "y")

    def __init__(
        self,
        x: npt.ArrayLike,
        y: npt.ArrayLike,
        classes: int | None = None,
        *,
        users: npt.ArrayLike | None = None,
        name: str = "data",
    ) -> None:
        self.x, self.y, self.name = _read_only(x), _read_only(y), name
        self.users = None if users is None else _read_only(users)
        if self.x.ndim == 0 or self.y.ndim == 0 or len(self.x) != len(self.y):
            shapes = f"x {list(self.x.shape)} and y {list(self.y.shape)}"
            raise CallerError(f"data set {name!r}: {shapes} are not of one length. Give one label for each sample.")
        if self.users is not None and self.users.shape != (len(self.y),):
            found = list(self.users.shape)
            raise CallerError(f"data set {name!r}: users are {found} for {len(self.y)} samples. Give one for each.")
        self.classes = _classes(self.y) if classes is None else classes

    def __len__(self) -> int:
        return len(self.y)

    def subset(self, indices: npt.ArrayLike) -> ArrayDataset:
        """Return the samples at `indices`, in that order (a copy)."""
        at = np.asarray(indices)
        at = at if at.size else at.astype(np.int64)  # an empty list is an array of floats to numpy
        users = None if self.users is None else self.users[at]
        return ArrayDataset(self.x[at], self.y[at], self.classes, users=users, name=self.name)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.x.shape[1:])) or "1"
        return f"ArrayDataset({self.name}: {len(self):,} samples of {shape}, {self.classes} classes)"


def as_float(x: Array) -> Array:
    """Return samples as floating point numbers: uint8 as 0 to 1 in float32, other integers as they are."""
    if x.dtype == np.uint8:
        return np.divide(x, np.float32(255), dtype=np.float32)
    return x


def _read_only(values: npt.ArrayLike) -> npt.NDArray[Any]:
    view = np.asarray(values).view()
    view.flags.writeable = False
    return view


def _classes(y: Array) -> int:
    return int(y.max()) + 1 if y.dtype.kind in "iu" and y.size else 0
