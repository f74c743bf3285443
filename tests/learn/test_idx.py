from __future__ import annotations

import gzip
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rolecall.core.errors import DataError
from rolecall.learn.files import SYSTEM
from rolecall.learn.idx import fashion_mnist, read_idx, where_fashion_mnist

CODES = {"u1": 0x08, "i1": 0x09, ">i2": 0x0B, ">i4": 0x0C, ">f4": 0x0D, ">f8": 0x0E}


def idx_bytes(array: np.ndarray[Any, Any]) -> bytes:
    code = next(code for name, code in CODES.items() if np.dtype(name) == array.dtype)
    return struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape) + array.tobytes()


def write_fashion(place: Path, *, train: int = 6, test: int = 4, zipped: bool = False) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for prefix, count in (("train", train), ("t10k", test)):
        images = np.arange(count * 784, dtype=np.uint32).reshape(count, 28, 28).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", np.arange(count, dtype=np.uint8) % 10)):
            path = place / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}"
            path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))


@st.composite
def arrays(draw: st.DrawFn) -> np.ndarray[Any, Any]:
    shape = draw(hnp.array_shapes(max_dims=4, min_side=0, max_side=4))
    return draw(hnp.arrays(np.dtype(draw(st.sampled_from(sorted(CODES)))), shape))


@given(arrays(), st.booleans())
def test_reads_what_the_format_allows(
    tmp_path_factory: pytest.TempPathFactory, array: np.ndarray[Any, Any], zipped: bool
) -> None:
    path = tmp_path_factory.mktemp("idx") / ("a.gz" if zipped else "a")
    path.write_bytes(gzip.compress(idx_bytes(array)) if zipped else idx_bytes(array))
    found = read_idx(path)
    assert found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)


class TestDamaged:
    whole = idx_bytes(np.zeros((2, 28, 28), np.uint8))

    def message(self, tmp_path: Path, content: bytes, name: str = "images") -> str:
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_idx(path)
        assert str(path) in str(caught.value)
        return str(caught.value)

    def test_truncated(self, tmp_path: Path) -> None:
        assert "is truncated: [2, 28, 28] values take 1,568 bytes, 1,560 are there" in self.message(
            tmp_path, self.whole[:-8]
        )
        assert "is truncated: the dimensions take 12 bytes, 2 are there" in self.message(tmp_path, self.whole[:6])
        assert "is truncated: the magic number take 4 bytes, 0 are there" in self.message(tmp_path, b"")

    def test_truncated_gzip(self, tmp_path: Path) -> None:
        noise = idx_bytes(np.random.default_rng(0).integers(0, 256, (9, 28, 28), np.uint8))
        assert "gzip stream ends too early" in self.message(tmp_path, gzip.compress(noise)[:-100], "images.gz")

    def test_not_gzip(self, tmp_path: Path) -> None:
        assert "is not a sound gzip file" in self.message(tmp_path, self.whole, "images.gz")

    def test_spoilt_gzip(self, tmp_path: Path) -> None:
        spoilt = bytearray(gzip.compress(self.whole))
        spoilt[12:16] = b"\xff\xff\xff\xff"
        assert "is not a sound gzip file" in self.message(tmp_path, bytes(spoilt), "images.gz")

    def test_another_magic_number(self, tmp_path: Path) -> None:
        assert "is no IDX file: it begins with 89504e47, expected 0000 08 03 for images" in self.message(
            tmp_path, b"\x89PNG and more"
        )

    def test_more_than_announced(self, tmp_path: Path) -> None:
        assert "goes on after the [2, 28, 28] values" in self.message(tmp_path, self.whole + b"x")

    def test_a_size_nobody_means(self, tmp_path: Path) -> None:
        header = struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
        assert "the limit is" in self.message(tmp_path, header)

    def test_a_directory(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="cannot be read: Is a directory"):
            read_idx(tmp_path)


class TestFashionMnist:
    @pytest.mark.parametrize("zipped", [True, False])
    @pytest.mark.parametrize("folder", ["fashion-mnist", "."])
    def test_reads_images_and_labels(self, tmp_path: Path, zipped: bool, folder: str) -> None:
        write_fashion(tmp_path / folder, zipped=zipped)
        train, test = (fashion_mnist(part, tmp_path) for part in ("train", "test"))
        assert train.x.shape == (6, 1, 28, 28)
        assert (train.x.dtype, train.y.dtype) == (np.dtype(np.uint8), np.dtype(np.int64))
        assert len(test) == 4
        assert train.x[1, 0, 0, :3].tolist() == [784 % 256, 785 % 256, 786 % 256]
        assert train.y.tolist() == [0, 1, 2, 3, 4, 5]
        assert where_fashion_mnist(tmp_path) == tmp_path / folder

    def test_says_what_is_missing_and_how_to_get_it(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"'fashion-mnist': found none of .*apt install dataset-fashion-mnist.*--data-dir"
        ):
            fashion_mnist("train", tmp_path)
        write_fashion(tmp_path)
        (tmp_path / "train-labels-idx1-ubyte").unlink()
        with pytest.raises(DataError, match=f"{tmp_path} lacks train-labels-idx1-ubyte"):
            fashion_mnist("train", tmp_path)

    @pytest.mark.parametrize(
        ("name", "array", "message"),
        [
            (
                "images-idx3",
                np.zeros((6, 32, 32), np.uint8),
                r"holds uint8 \[6, 32, 32\], expected uint8 \[n, 28, 28\]",
            ),
            ("labels-idx1", np.zeros(5, np.uint8), r"holds uint8 \[5\], expected uint8 \[6\]"),
            ("labels-idx1", np.full(6, 10, np.uint8), "holds the label 10, expected 0 to 9"),
        ],
    )
    def test_files_that_do_not_fit(self, tmp_path: Path, name: str, array: np.ndarray[Any, Any], message: str) -> None:
        write_fashion(tmp_path)
        (tmp_path / f"train-{name}-ubyte").write_bytes(idx_bytes(array))
        with pytest.raises(DataError, match=message):
            fashion_mnist("train", tmp_path)

    def test_the_real_files(self) -> None:
        if not (SYSTEM / "fashion-mnist").is_dir():
            pytest.skip("Debian's package dataset-fashion-mnist is not installed")
        train, test = (fashion_mnist(part, SYSTEM) for part in ("train", "test"))
        assert (len(train), len(test)) == (60_000, 10_000)
        assert np.bincount(train.y).tolist() == [6_000] * 10
        assert train.y[:5].tolist() == [9, 0, 0, 3, 0]
        assert 70 < train.x.mean() < 76
