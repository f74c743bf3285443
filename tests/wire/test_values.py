from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import DataError, NotEncodable, WrongType
from rolecall.core.ids import RoleId
from rolecall.core.tensors import Tensors
from rolecall.wire import load_value, save_value


class Progress(msgspec.Struct):
    round: int
    params: Tensors
    seen: dict[RoleId, int]
    curve: np.ndarray


def progress() -> Progress:
    params = Tensors({"w": np.arange(6, dtype=np.float32).reshape(2, 3), "mask": np.array([True, False])})
    return Progress(3, params, {RoleId("a/b"): 1}, np.array([0.5, 0.75]))


def test_a_value_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    save_value(path, progress())
    got = load_value(path, Progress)
    assert got.round == 3
    assert got.params.digest() == progress().params.digest()
    assert got.seen == {RoleId("a/b"): 1}
    assert got.curve.tolist() == [0.5, 0.75]


def test_other_programs_can_read_the_tensors(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    path = tmp_path / "state.safetensors"
    save_value(path, [progress(), np.array([1 + 2j]), np.zeros((0, 3), np.int16)])
    with safetensors.safe_open(path, "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
    assert tensors["1"].tolist() == [0, 1, 2, 3, 4, 5]
    assert tensors["1"].dtype == np.float32
    assert tensors["2"].tolist() == [True, False]
    assert tensors["3"].tolist() == [0.5, 0.75]
    assert tensors["4"].nbytes == 16
    assert tensors["5"].size == 0


@pytest.mark.parametrize("value", [None, 3, "text", [1, {"a": b"x"}], Tensors({}), []])
def test_values_without_arrays(tmp_path: Path, value: Any) -> None:
    save_value(tmp_path / "v", value)
    assert load_value(tmp_path / "v") == value


def test_bfloat16_keeps_its_type(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    sent = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    save_value(tmp_path / "v", {"x": sent})
    assert torch.equal(load_value(tmp_path / "v", dict[str, torch.Tensor])["x"], sent)


def test_more_than_ten_arrays_keep_their_places(tmp_path: Path) -> None:
    arrays = [np.full(3, i) for i in range(30)]
    save_value(tmp_path / "v", arrays)
    assert [array[0] for array in load_value(tmp_path / "v", list[np.ndarray])] == list(range(30))


def test_a_failed_save_leaves_the_old_file_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "v"
    save_value(path, "old")
    with pytest.raises(NotEncodable, match=r"/v\[0\]: a value of type object"):
        save_value(path, [object()])

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"/v: cannot be written: No space left on device"):
        save_value(path, "new")
    assert load_value(path) == "old"
    assert os.listdir(tmp_path) == ["v"]


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written: No such file"):
        save_value(tmp_path / "nowhere" / "v", 1)
    with pytest.raises(DataError, match="cannot be read: No such file"):
        load_value(tmp_path / "v")


def test_a_value_of_another_type(tmp_path: Path) -> None:
    save_value(tmp_path / "v", {"round": "three"})
    with pytest.raises(WrongType, match=r"/v\.round: expected int, found str"):
        load_value(tmp_path / "v", Progress)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "fewer than its header"),
        (b"\xff" * 8, "fewer than its header"),
        (b"\x02\0\0\0\0\0\0\0{}", "no 'rolecall.value'"),
        (b"\x04\0\0\0\0\0\0\0nope", "header is damaged"),
        (b'\x27\0\0\0\0\0\0\0{"__metadata__":{"rolecall.value":"?"}}  ', "header is damaged"),
        (b'\x28\0\0\0\0\0\0\0{"__metadata__":{"rolecall.value":"\xc2\x80"}}', "header is damaged"),
        (b'\x2a\0\0\0\0\0\0\0{"__metadata__":{"rolecall.value":"wQ=="}} ' + b" " * 3, "damaged"),
    ],
)
def test_a_file_of_something_else(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "v").write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_value(tmp_path / "v")


def test_a_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "v"
    save_value(path, progress())
    whole = path.read_bytes()
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match="holds no value that rolecall saved, or a part of one"):
            load_value(path, Progress)


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=4))
def test_a_damaged_file_gives_a_named_error(tmp_path_factory: pytest.TempPathFactory, at: int, piece: bytes) -> None:
    path = tmp_path_factory.mktemp("damaged") / "v"
    save_value(path, progress())
    whole = path.read_bytes()
    at %= len(whole)
    path.write_bytes(whole[:at] + piece + whole[at + len(piece) :])
    try:
        load_value(path, Progress)
    except (DataError, WrongType):
        pass
