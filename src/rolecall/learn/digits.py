"""The data set `digits`: 1,797 handwritten digits of 8x8 pixels, which come with scikit-learn."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.core.errors import DataError, MissingDependency
from rolecall.learn.dataset import ArrayDataset

__all__ = ("digits", "where_digits")

_SAMPLES, _PIXELS, _MAXIMUM = 1797, 64, 16


def digits(part: str, data_dir: str | os.PathLike[str] | None = None) -> ArrayDataset:
    """Return the training (four fifths) or the test samples: x float32 (n, 1, 8, 8) from 0 to 1, y 0 to 9.

    Of each digit, in the order of the file, every fifth sample is for testing: a split that no library can
    change. Raises `MissingDependency` without scikit-learn.
    """
    rows = _rows()
    x = (rows[:, :_PIXELS] / _MAXIMUM).astype(np.float32).reshape(-1, 1, 8, 8)
    y = rows[:, _PIXELS].astype(np.int64)
    test = _every_fifth_of_each(y)
    chosen = test if part == "test" else ~test
    return ArrayDataset(x[chosen], y[chosen], 10, name="digits")


def where_digits(data_dir: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the directory of scikit-learn, or None where it is not installed."""
    found = importlib.util.find_spec("sklearn")
    return Path(found.origin).parent if found and found.origin else None


def _every_fifth_of_each(y: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    test = np.zeros(len(y), np.bool_)
    for label in np.unique(y):
        test[np.flatnonzero(y == label)[4::5]] = True
    return test


def _rows() -> npt.NDArray[Any]:
    home = where_digits()
    if home is None:
        raise MissingDependency("scikit-learn", needed_for="the data set 'digits'", extra="data")
    # Reading the file takes 30 ms; importing scikit-learn to have it read takes two seconds.
    path = home / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(path, delimiter=",") if path.is_file() else _rows_by_sklearn()
    if rows.shape != (_SAMPLES, _PIXELS + 1):
        raise DataError(path, f"has the shape {list(rows.shape)}, expected {[_SAMPLES, _PIXELS + 1]}")
    return rows


def _rows_by_sklearn() -> npt.NDArray[Any]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return np.column_stack([bunch.data, bunch.target])
