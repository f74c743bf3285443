"""IDX files, the format of MNIST's kin, and the data set `fashion-mnist` that comes in it."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from rolecall.core.errors import DataError
from rolecall.learn.dataset import ArrayDataset
from rolecall.learn.files import find_files, opened

__all__ = ("fashion_mnist", "read_idx", "where_fashion_mnist")

_DTYPES = {0x08: "u1", 0x09: "i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_LIMIT_BYTES = 4 << 30
_PREFIX = {"train": "train", "test": "t10k"}
_ADVICE = (
    "Install Debian's package dataset-fashion-mnist (apt install dataset-fashion-mnist), or name the "
    "directory that "
    "holds its IDX files with --data-dir or $ROLECALL_DATA"
)


def fashion_mnist(part: str, data_dir: str | os.PathLike[str] | None = None) -> ArrayDataset:
    """Return the 60,000 training or 10,000 test images: x uint8 (n, 1, 28, 28), y 0 to 9 (Xiao et al. 2017).

    Raises `DataError` when the files are missing, damaged or do not belong together.
    """
    images_path, labels_path = _paths(part, data_dir)
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.dtype != np.uint8 or images.shape[1:] != (28, 28):
        raise DataError(images_path, f"holds {images.dtype} {list(images.shape)}, expected uint8 [n, 28, 28]")
    if labels.dtype != np.uint8 or labels.shape != images.shape[:1]:
        raise DataError(labels_path, f"holds {labels.dtype} {list(labels.shape)}, expected uint8 [{len(images)}]")
    if labels.size and labels.max() > 9:
        raise DataError(labels_path, f"holds the label {labels.max()}, expected 0 to 9")
    return ArrayDataset(images[:, np.newaxis], labels.astype(np.int64), 10, name="fashion-mnist")


def where_fashion_mnist(data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the directory that holds the files; raises `DataError` where none does."""
    _paths("test", data_dir)
    return _paths("train", data_dir)[0].parent


def _paths(part: str, data_dir: str | os.PathLike[str] | None) -> tuple[Path, Path]:
    names = [f"{_PREFIX[part]}-images-idx3-ubyte", f"{_PREFIX[part]}-labels-idx1-ubyte"]
    found = find_files("fashion-mnist", names, data_dir=data_dir, folders=["fashion-mnist"], advice=_ADVICE)
    return found[names[0]], found[names[1]]


def read_idx(path: str | os.PathLike[str]) -> npt.NDArray[Any]:
    """Return the array in an IDX file, gzipped when its name ends in `.gz`.

    The header is two zero bytes, a type, the number of dimensions and the dimensions (32 bits each,
    big-endian). Raises `DataError` that says what was found and what was expected.
    """
    path = Path(path)
    with opened(path) as file:
        return _read_array(path, file)


class _Readable(Protocol):
    def read(self, count: int, /) -> bytes: ...


def _read_array(path: Path, file: _Readable) -> npt.NDArray[Any]:
    magic = _exactly(path, file, 4, "the magic number")
    dtype = _DTYPES.get(magic[2])
    if magic[:2] != b"\0\0" or dtype is None or magic[3] == 0:
        expected = "0000 08 03 for images, 0000 08 01 for labels"
        raise DataError(path, f"is no IDX file: it begins with {magic.hex()}, expected {expected}")
    dimensions = np.frombuffer(_exactly(path, file, 4 * magic[3], "the dimensions"), ">u4")
    shape = tuple(int(dimension) for dimension in dimensions)
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size > _LIMIT_BYTES:
        raise DataError(path, f"claims {list(shape)} values, {size:,} bytes; the limit is {_LIMIT_BYTES:,}")
    values = _exactly(path, file, size, f"{list(shape)} values")
    if file.read(1):
        raise DataError(path, f"goes on after the {list(shape)} values that its header announces")
    native = np.dtype(dtype).newbyteorder("=")
    return np.frombuffer(values, dtype).astype(native, copy=False).reshape(shape)


def _exactly(path: Path, file: _Readable, count: int, what: str) -> bytes:
    found = file.read(count)
    if len(found) != count:
        raise DataError(path, f"is truncated: {what} take {count:,} bytes, {len(found):,} are there")
    return found
