"""The data sets that have names, whole or a client's shard of them; each file is read once in a process."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np

from rolecall.core.errors import ConfigError, DataError, nearest
from rolecall.learn.batches import Indices
from rolecall.learn.cifar import cifar10, where_cifar10
from rolecall.learn.dataset import ArrayDataset, Dataset
from rolecall.learn.digits import digits, where_digits
from rolecall.learn.files import ENVIRONMENT
from rolecall.learn.idx import fashion_mnist, where_fashion_mnist
from rolecall.learn.partition import partition as deal

__all__ = (
    "ArrayDataset",
    "Dataset",
    "DatasetInfo",
    "Part",
    "about",
    "datasets",
    "forget",
    "load",
    "register",
    "shard",
    "test_set",
)

Part: TypeAlias = Literal["train", "test"]
DataDir: TypeAlias = str | os.PathLike[str] | None


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is read.

    `shape` is that of one sample, `train` and `test` are numbers of samples. `read(part, data_dir)` reads it;
    `where(data_dir)` returns where its files are, or None or a `DataError` where they are not; `get` says how
    to get them.
    """

    name: str
    what: str
    shape: tuple[int, ...]
    classes: int
    train: int
    test: int
    get: str
    read: Callable[[str, DataDir], ArrayDataset]
    where: Callable[[DataDir], Path | None]

    def found(self, data_dir: DataDir = None) -> Path | None:
        """Return the directory that holds the data set's files, or None where there is none."""
        try:
            return self.where(data_dir)
        except DataError:
            return None


_known: dict[str, DatasetInfo] = {}
_read: dict[tuple[str, str, str], ArrayDataset] = {}
_locks: dict[tuple[str, str, str], threading.Lock] = {}


def register(info: DatasetInfo) -> None:
    """Make a data set known by its name to `load`, `shard` and the application file."""
    _known[info.name] = info
    forget()


def datasets() -> list[DatasetInfo]:
    """Return what is known of every data set, in order of name."""
    return [_known[name] for name in sorted(_known)]


def about(name: str) -> DatasetInfo:
    """Return what is known of the data set `name`; raises `ConfigError` where there is none."""
    if name not in _known:
        hint = f"Known are {', '.join(sorted(_known))}.{nearest(name, _known)}"
        raise ConfigError(f"data set {name!r}", "there is no data set of this name", hint=hint)
    return _known[name]


def load(name: str, part: Part = "train", data_dir: DataDir = None) -> ArrayDataset:
    """Return the training or the test samples of the data set `name`; its arrays are shared and read-only.

    Files are looked for in `data_dir` alone where it is given; else in $ROLECALL_DATA and where Debian's
    packages put them. Safe to call from several threads: the files are read once. Raises `ConfigError` for an
    unknown name or part, `DataError` for files that are missing or damaged, `MissingDependency` where a
    package is missing.
    """
    info = about(name)
    if part not in ("train", "test"):
        raise ConfigError(f"data set {name!r}", f"it has no part {part!r}", hint="Parts are 'train' and 'test'")
    place = os.environ.get(ENVIRONMENT, "") if data_dir is None else os.path.abspath(data_dir)
    key = (name, part, place)
    with _locks.setdefault(key, threading.Lock()):
        if key not in _read:
            _read[key] = info.read(part, data_dir)
        return _read[key]


def forget() -> None:
    """Let go of all data sets read so far: the next `load` reads the files again."""
    _read.clear()
    _shares.cache_clear()


def shard(
    dataset: str | Dataset,
    partition: str = "iid",
    index: int = 0,
    of: int = 1,
    seed: int = 0,
    *,
    data_dir: DataDir = None,
) -> ArrayDataset:
    """Return client `index`'s part of the training samples, of `of` clients in all.

    `dataset` is a name or a data set, `partition` a scheme of `rolecall.learn.partition`. All clients of an
    application use the same `seed`, so that their parts are disjoint; where a role's element is configured,
    the runtime fills it with a seed common to all. Raises what `load` and `partition` raise, and
    `ConfigError` for an `index` that is not below `of`.
    """
    if not 0 <= index < of:
        raise ConfigError("shard", f"index is {index}, of is {of}", hint="The index runs from 0 to of - 1")
    whole = load(dataset, "train", data_dir) if isinstance(dataset, str) else _as_arrays(dataset)
    shares = _shares(whole, partition, of, seed)
    return whole.subset(shares[index])


def test_set(dataset: str | Dataset, *, data_dir: DataDir = None) -> ArrayDataset:
    """Return the test samples of the data set of this name; a data set given is returned as arrays."""
    return load(dataset, "test", data_dir) if isinstance(dataset, str) else _as_arrays(dataset)


test_set.__test__ = False  # type: ignore[attr-defined]  # pytest would run it where a test imports it


@lru_cache(maxsize=8)  # ten clients of a node ask for one partition after the other
def _shares(whole: ArrayDataset, scheme: str, parts: int, seed: int) -> Sequence[Indices]:
    return deal(scheme, whole.y, parts, seed, users=whole.users)


def _as_arrays(dataset: object) -> ArrayDataset:
    if isinstance(dataset, ArrayDataset):
        return dataset
    if not isinstance(dataset, Dataset):
        found = type(dataset).__name__
        hint = "Give the name of one, or an object with len(), x and y, such as rolecall.learn.ArrayDataset"
        raise ConfigError("data set", f"a {found} is no data set", hint=hint)
    users = getattr(dataset, "users", None)
    return ArrayDataset(np.asarray(dataset.x), np.asarray(dataset.y), users=users, name=type(dataset).__name__)


for _info in (
    DatasetInfo(
        name="digits",
        what="handwritten digits",
        shape=(1, 8, 8),
        classes=10,
        train=1442,
        test=355,
        get="pip install 'rolecall[data]'",
        read=digits,
        where=where_digits,
    ),
    DatasetInfo(
        name="fashion-mnist",
        what="pictures of clothes",
        shape=(1, 28, 28),
        classes=10,
        train=60_000,
        test=10_000,
        get="apt install dataset-fashion-mnist, or --data-dir",
        read=fashion_mnist,
        where=where_fashion_mnist,
    ),
    DatasetInfo(
        name="cifar-10",
        what="colour photographs",
        shape=(3, 32, 32),
        classes=10,
        train=50_000,
        test=10_000,
        get="unpack cifar-10-binary.tar.gz, and --data-dir",
        read=cifar10,
        where=where_cifar10,
    ),
):
    _known[_info.name] = _info
