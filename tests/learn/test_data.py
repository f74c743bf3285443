from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from threading import Barrier
from typing import Any

import numpy as np
import pytest

from rolecall.core.errors import ConfigError, DataError
from rolecall.learn import data
from rolecall.learn.dataset import ArrayDataset
from rolecall.learn.partition import partition

pytest.importorskip("sklearn")


@pytest.fixture(autouse=True)
def nothing_read_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("ROLECALL_DATA", raising=False)
    data.forget()
    yield
    data.forget()


def small(name: str = "small") -> data.DatasetInfo:
    def read(part: str, data_dir: data.DataDir) -> ArrayDataset:
        count = {"train": 20, "test": 5}[part]
        return ArrayDataset(np.arange(count, dtype=np.float32)[:, None], np.arange(count) % 2, name=name)

    return data.DatasetInfo(name, "numbers", (1,), 2, 20, 5, "it is there", read, where=lambda data_dir: Path("."))


def write_cifar(place: Path, images: int) -> None:
    place.mkdir(exist_ok=True)
    for name in [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]:
        (place / name).write_bytes(bytes(3073) * images)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_known", dict(data._known))
    data.register(small())


def test_lists_what_there_is(tmp_path: Path) -> None:
    rows = data.datasets()
    assert [row.name for row in rows] == ["cifar-10", "digits", "fashion-mnist"]
    assert rows[0].found(tmp_path) is None
    assert rows[1].found() is not None
    assert all(row.get and row.what for row in rows)


def test_what_is_said_of_digits_is_true() -> None:
    about = data.about("digits")
    train, test = data.load("digits"), data.load("digits", "test")
    assert (about.train, about.test, about.classes) == (len(train), len(test), train.classes)
    assert train.x.shape[1:] == about.shape


def test_unknown_names_and_parts() -> None:
    with pytest.raises(ConfigError, match=r"no data set of this name. Known are cifar-10, .* mean 'digits'\?"):
        data.load("digit")
    with pytest.raises(ConfigError, match=r"it has no part 'dev'\. Parts are 'train' and 'test'"):
        data.load("digits", "dev")  # type: ignore[arg-type]


def test_is_read_once_by_all_threads(registered: None) -> None:
    barrier, reads = Barrier(4), []
    info = data.about("small")

    def read(part: str, data_dir: data.DataDir) -> ArrayDataset:
        reads.append(part)
        return info.read(part, data_dir)

    data.register(replace(info, read=read))

    def load(_: int) -> ArrayDataset:
        barrier.wait()
        return data.load("small")

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(load, range(4)))
    assert reads == ["train"]
    assert all(each is found[0] for each in found)
    assert not found[0].x.flags.writeable


def test_a_failed_read_is_tried_again(registered: None, tmp_path: Path) -> None:
    with pytest.raises(DataError):
        data.load("cifar-10", data_dir=tmp_path)
    write_cifar(tmp_path, images=2)
    assert len(data.load("cifar-10", data_dir=tmp_path)) == 10


class TestWhereFilesAre:
    def test_the_environment_names_a_directory(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_cifar(tmp_path / "one", 1)
        write_cifar(tmp_path / "two", 2)
        monkeypatch.setenv("ROLECALL_DATA", str(tmp_path / "one"))
        assert len(data.load("cifar-10", "test")) == 1
        monkeypatch.setenv("ROLECALL_DATA", str(tmp_path / "two"))
        assert len(data.load("cifar-10", "test")) == 2
        assert len(data.load("cifar-10", "test", tmp_path / "one")) == 1

    def test_a_directory_given_is_the_only_one(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_cifar(tmp_path / "one", 1)
        monkeypatch.setenv("ROLECALL_DATA", str(tmp_path / "one"))
        with pytest.raises(DataError, match=f"found none of .* in {tmp_path}/other/cifar-10"):
            data.load("cifar-10", "test", tmp_path / "other")


class TestShards:
    def test_are_disjoint_and_complete(self) -> None:
        shards = [data.shard("digits", "dirichlet(0.5)", index, 10, seed=3) for index in range(10)]
        whole = data.load("digits")
        assert sum(map(len, shards)) == len(whole)
        rows = np.concatenate([shard.x.reshape(len(shard), -1) for shard in shards])
        assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, whole.x.reshape(len(whole), -1).tolist()))
        assert all(shard.classes == 10 for shard in shards)

    def test_are_partitioned_once(self, registered: None, monkeypatch: pytest.MonkeyPatch) -> None:
        calls: list[str] = []

        def counted(scheme: str, labels: Any, parts: int, seed: int, users: Any = None) -> list[Any]:
            calls.append(scheme)
            return partition(scheme, labels, parts, seed, users=users)

        monkeypatch.setattr(data, "deal", counted)
        for index in range(5):
            data.shard("small", "iid", index, 5)
        assert calls == ["iid"]

    def test_of_a_data_set_of_ones_own(self) -> None:
        whole = ArrayDataset(np.arange(6)[:, None], [0, 1] * 3)
        found = [data.shard(whole, "shards(1)", index, 2).y.tolist() for index in range(2)]
        assert sorted(found) == [[0, 0, 0], [1, 1, 1]]
        assert data.test_set(whole) is whole

    def test_whatever_has_arrays_will_do(self) -> None:
        class Mine:
            x, y = np.zeros((4, 2)), np.array([0, 1, 0, 1])

            def __len__(self) -> int:
                return 4

        assert len(data.shard(Mine(), "iid", 0, 2)) == 2
        assert data.test_set(Mine()).name == "Mine"

    def test_what_is_no_data_set(self) -> None:
        with pytest.raises(ConfigError, match=r"a list is no data set\. Give the name of one"):
            data.shard([1, 2], "iid", 0, 2)  # type: ignore[arg-type]

    @pytest.mark.parametrize(("index", "of"), [(2, 2), (-1, 2), (0, 0)])
    def test_an_index_out_of_range(self, index: int, of: int) -> None:
        with pytest.raises(ConfigError, match=f"index is {index}, of is {of}"):
            data.shard("digits", "iid", index, of)

    def test_test_set_is_whole(self) -> None:
        assert len(data.test_set("digits")) == 355
