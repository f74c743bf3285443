from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from rolecall.core.errors import DataError
from rolecall.learn.cifar import cifar10, read_cifar_batch, where_cifar10

NAMES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


def record(label: int, red: int, green: int, blue: int) -> bytes:
    return bytes([label]) + bytes([red]) * 1024 + bytes([green]) * 1024 + bytes([blue]) * 1024


def write_cifar(place: Path, records: int = 2) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(NAMES):
        (place / name).write_bytes(b"".join(record(number, 10 * number, i, 255) for i in range(records)))


def test_channels_are_planes(tmp_path: Path) -> None:
    (tmp_path / "batch.bin").write_bytes(record(3, red=200, green=100, blue=50))
    images, labels = read_cifar_batch(tmp_path / "batch.bin")
    assert labels.tolist() == [3]
    assert images.shape == (1, 3, 32, 32)
    assert [np.unique(plane).tolist() for plane in images[0]] == [[200], [100], [50]]


def test_rows_and_columns_are_in_order(tmp_path: Path) -> None:
    plane = bytes(range(256)) * 4
    (tmp_path / "batch.bin").write_bytes(b"\0" + plane + plane[::-1] + bytes(1024))
    image = read_cifar_batch(tmp_path / "batch.bin")[0][0]
    assert image[0, 0, :3].tolist() == [0, 1, 2]
    assert image[0, 1, :3].tolist() == [32, 33, 34]
    assert image[1, 0, :3].tolist() == [255, 254, 253]
    assert not image[2].any()


@pytest.mark.parametrize("folder", ["cifar-10", "cifar-10-batches-bin", "."])
def test_reads_all_batches_in_order(tmp_path: Path, folder: str) -> None:
    write_cifar(tmp_path / folder)
    train, test = (cifar10(part, tmp_path) for part in ("train", "test"))
    assert train.y.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert train.x.shape == (10, 3, 32, 32)
    assert train.x[:, 0, 0, 0].tolist() == [0, 0, 10, 10, 20, 20, 30, 30, 40, 40]
    assert test.y.tolist() == [5, 5]
    assert where_cifar10(tmp_path) == tmp_path / folder


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (record(1, 2, 3, 4) * 2 + b"rest", "is truncated: it has 2 records of 3,073 bytes and 4 bytes more"),
        (b"", "is truncated: it has 0 records"),
        (record(10, 0, 0, 0), "holds the label 10, expected 0 to 9. Is it CIFAR-10's binary version"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    write_cifar(tmp_path)
    (tmp_path / NAMES[2]).write_bytes(content)
    with pytest.raises(DataError, match=f"data_batch_3.bin: {message}"):
        cifar10("train", tmp_path)


def test_says_what_is_missing_and_how_to_get_it(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    (tmp_path / NAMES[4]).unlink()
    with pytest.raises(DataError, match=r"lacks data_batch_5.bin. Unpack cifar-10-binary.tar.gz .*--data-dir"):
        cifar10("train", tmp_path)
