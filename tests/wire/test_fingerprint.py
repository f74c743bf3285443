from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import NotEncodable
from rolecall.core.ids import RoleId
from rolecall.core.tensors import Tensors
from rolecall.wire import fingerprint


class Box(msgspec.Struct):
    items: list[Any]


@dataclasses.dataclass
class Plan:
    who: dict[int, Any]


def value() -> dict[str, Any]:
    return {
        "array": np.arange(1000.0),
        "list": [1, [2, 3]],
        "dict": {"a": 1},
        "numbers": {1: "x", 2: np.zeros(3)},
        "set": {1, 2},
        "box": Box([Plan({3: [4]})]),
        "bytes": bytearray(b"abc"),
    }


def change(what: str) -> Callable[[dict[str, Any]], object]:
    return {
        "array element": lambda v: v["array"].__setitem__(500, 500.0000000001),
        "array sign": lambda v: v["array"].__setitem__(0, -0.0),
        "array in a dict": lambda v: v["numbers"][2].__setitem__(1, 1),
        "array slice": lambda v: np.negative(v["array"], out=v["array"]),
        "list append": lambda v: v["list"].append(1),
        "inner list": lambda v: v["list"][1].pop(),
        "list order": lambda v: v["list"].reverse(),
        "dict set": lambda v: v["dict"].__setitem__("a", 2),
        "dict add": lambda v: v["dict"].__setitem__("b", 1),
        "dict of numbers": lambda v: v["numbers"].__setitem__(1, "y"),
        "key of another type": lambda v: v["dict"].__setitem__(1, 1),
        "set add": lambda v: v["set"].add(3),
        "field": lambda v: setattr(v["box"], "items", []),
        "deep in a field": lambda v: v["box"].items[0].who[3].append(5),
        "bytearray": lambda v: v["bytes"].__setitem__(0, 0),
    }[what]


CHANGES = [
    "array element",
    "array sign",
    "array in a dict",
    "array slice",
    "list append",
    "inner list",
    "list order",
    "dict set",
    "dict add",
    "dict of numbers",
    "key of another type",
    "set add",
    "field",
    "deep in a field",
    "bytearray",
]


@pytest.mark.parametrize("what", CHANGES)
def test_any_change_in_place_is_seen(what: str) -> None:
    original = value()
    before = fingerprint(original)
    assert fingerprint(original) == before == fingerprint(copy.deepcopy(original))
    change(what)(original)
    assert fingerprint(original) != before


@given(st.data())
def test_any_single_element_counts(data: st.DataObject) -> None:
    array = np.zeros(data.draw(st.integers(1, 3000)), np.float32)
    before = fingerprint([array])
    array[data.draw(st.integers(0, array.size - 1))] = data.draw(st.floats(width=32).filter(bool))
    assert fingerprint([array]) != before


KEYS = st.text(max_size=3) | st.integers() | st.booleans() | st.tuples(st.integers(0, 9), st.text(max_size=2))


@given(st.dictionaries(KEYS.filter(lambda k: not isinstance(k, int) or -(2**63) <= k < 2**64), st.integers(0, 9)))
def test_the_order_of_insertion_does_not_count(mapping: dict[Any, int]) -> None:
    backwards = dict(reversed(mapping.items()))
    assert fingerprint([mapping]) == fingerprint([backwards])
    assert fingerprint(set(mapping)) == fingerprint(set(backwards))


def test_equal_content_in_other_objects() -> None:
    assert fingerprint(Tensors({"a": np.ones(3)})) == fingerprint(Tensors({"a": np.ones(3)}))
    assert fingerprint(RoleId("a/b")) == fingerprint("a/b")
    assert fingerprint(Box([1])) == fingerprint(Box([1]))


def test_names_dtypes_and_shapes_count() -> None:
    variants = [
        Tensors({"a": np.zeros(6, np.float32)}),
        Tensors({"b": np.zeros(6, np.float32)}),
        Tensors({"a": np.zeros((2, 3), np.float32)}),
        Tensors({"a": np.zeros(6, np.int32)}),
        Tensors({"a": np.zeros(3, np.float32), "b": np.zeros(3, np.float32)}),
    ]
    assert len({fingerprint(each) for each in variants}) == len(variants)


def test_it_does_not_copy_the_arrays() -> None:
    import tracemalloc

    tensors = Tensors({"w": np.ones(1_000_000, np.float32)})
    tracemalloc.start()
    try:
        fingerprint([tensors])
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


def test_what_cannot_travel_has_no_fingerprint() -> None:
    with pytest.raises(NotEncodable, match=r"^args\[0\]: a value of type object"):
        fingerprint([object()], where="args")
