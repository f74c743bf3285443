from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import numpy as np
import pytest

from rolecall.core.tensors import Tensors
from rolecall.wire import encode, size_bytes


class Update(msgspec.Struct):
    params: Tensors
    samples: int


@dataclasses.dataclass
class Batch:
    rows: list[Any]


MODEL = Tensors({"w": np.zeros(1000, np.float32), "b": np.zeros(10)})


@pytest.mark.parametrize(
    ("value", "about"),
    [
        (MODEL, 4080),
        (Update(MODEL, 3), 4080),
        ((Update(MODEL, 3), {"other": MODEL}), 8160),
        (Batch([np.zeros(1000)]), 8000),
        ([np.zeros(100)] * 500, 400_000),
        ({"x": b"a" * 5000}, 5000),
        ("a" * 5000, 5000),
        (dict.fromkeys(range(1000), "x" * 84), 116_000),
        ({frozenset("a" * 9)}, 1),
    ],
)
def test_it_is_near_what_is_sent(value: Any, about: int) -> None:
    assert about <= size_bytes(value) <= about * 1.3 + 100


@pytest.mark.parametrize("value", [None, 1, 2.5, True, (), [], {}, "", object(), np.float32(1)])
def test_small_things_are_small_but_not_nothing(value: Any) -> None:
    assert 0 < size_bytes(value) < 100


def test_a_torch_tensor() -> None:
    torch = pytest.importorskip("torch")
    assert size_bytes([torch.zeros(1000)]) >= 4000


def test_it_ends_for_a_value_that_contains_itself() -> None:
    endless: list[Any] = []
    endless.extend([endless] * 3)
    assert size_bytes(endless) > 0


def test_it_is_never_far_below_the_encoded_size() -> None:
    value = {"rows": [{"name": f"row {i}", "values": list(range(5))} for i in range(300)]}
    assert size_bytes(value) > 0.5 * len(encode(value)[0])
