from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.wire import LimitExceeded, Limits
from rolecall.wire.nesting import check_depth

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=300)
    | st.binary(max_size=300)
    | st.binary(max_size=300).map(lambda data: msgspec.msgpack.Ext(5, data))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=20) | st.dictionaries(st.text(max_size=40), inner, max_size=20),
    max_leaves=40,
)


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values()) or [None] * len(value)
    return 1 + max(map(depth_of, value)) if isinstance(value, list) and value else 0


@given(VALUES)
def test_the_depth_of_any_value_is_found_exactly(value: Any) -> None:
    packed = msgspec.msgpack.encode(value)
    depth = depth_of(value)
    check_depth(packed, Limits(depth=depth))
    check_depth(memoryview(packed), Limits(depth=depth))
    if depth:
        with pytest.raises(LimitExceeded, match="`depth`"):
            check_depth(packed, Limits(depth=depth - 1))


def test_wide_values_are_not_deep() -> None:
    wide = {f"key{i}": [[i], {"x": float(i)}] for i in range(70_000)}
    check_depth(msgspec.msgpack.encode(wide), Limits(depth=3))


@given(st.binary(max_size=200))
def test_any_bytes(data: bytes) -> None:
    try:
        check_depth(data, Limits(depth=2))
    except LimitExceeded:
        pass
