"""The data set `cifar-10` in its binary form: five training files and a test file of 3,073-byte records."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rolecall.core.errors import DataError
from rolecall.learn.dataset import ArrayDataset
from rolecall.learn.files import find_files, opened

__all__ = ("cifar10", "read_cifar_batch", "where_cifar10")

_RECORD = 1 + 3 * 32 * 32
_LIMIT_BYTES = 100_000 * _RECORD  # ten times what a batch holds
_FILES = {"train": [f"data_batch_{number}.bin" for number in range(1, 6)], "test": ["test_batch.bin"]}
_FOLDERS = ["cifar-10", "cifar-10-batches-bin", "cifar-10/cifar-10-batches-bin"]
_ADVICE = (
    "Unpack cifar-10-binary.tar.gz (of https://www.cs.toronto.edu/~kriz/cifar.html) and name the directory "
    "with "
    "--data-dir or $ROLECALL_DATA"
)


def cifar10(part: str, data_dir: str | os.PathLike[str] | None = None) -> ArrayDataset:
    """Return the 50,000 training or 10,000 test images: x uint8 (n, 3, 32, 32), y 0 to 9 (Krizhevsky 2009).

    Raises `DataError` when files are missing or damaged.
    """
    paths = find_files("cifar-10", _FILES[part], data_dir=data_dir, folders=_FOLDERS, advice=_ADVICE)
    batches = [read_cifar_batch(paths[name]) for name in _FILES[part]]
    images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
    return ArrayDataset(images, labels, 10, name="cifar-10")


def where_cifar10(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the directory that holds the files; raises `DataError` where none does."""
    names = [*_FILES["train"], *_FILES["test"]]
    paths = find_files("cifar-10", names, data_dir=data_dir, folders=_FOLDERS, advice=_ADVICE)
    return paths[names[0]].parent


def read_cifar_batch(path: str | os.PathLike[str]) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the images (n, 3, 32, 32) and labels of one file, gzipped or not.

    A record is a label and then the 1,024 red, the 1,024 green and the 1,024 blue values, each row by row:
    planes, not pixels, so that the record's own order is (channel, row, column).
    """
    path = Path(path)
    with opened(path) as file:
        content = file.read(_LIMIT_BYTES)
    if not content or len(content) % _RECORD:
        whole, rest = divmod(len(content), _RECORD)
        raise DataError(path, f"is truncated: it has {whole:,} records of {_RECORD:,} bytes and {rest:,} bytes more")
    records = np.frombuffer(content, np.uint8).reshape(-1, _RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() > 9:
        raise DataError(path, f"holds the label {labels.max()}, expected 0 to 9", "Is it CIFAR-10's binary version?")
    return records[:, 1:].reshape(-1, 3, 32, 32), labels
