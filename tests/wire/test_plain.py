from __future__ import annotations

import datetime
import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest

from rolecall.core.tensors import Tensors
from rolecall.wire.plain import as_json


class Report(msgspec.Struct):
    loss: float
    params: Tensors | None = None


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (math.nan, None),
        ((1, {"a": "b"}), [1, {"a": "b"}]),
        ({1: 2}, {"1": 2}),
        (Report(0.5), {"loss": 0.5, "params": None}),
        (Report(0.5, Tensors({"w": np.zeros((2, 3), np.float32)})), {"loss": 0.5, "params": {"w": "float32 [2, 3]"}}),
        (np.arange(3), [0, 1, 2]),
        (np.float32(1.5), 1.5),
        (np.zeros((100, 2)), "float64 [100, 2]"),
        (np.array([1.0, np.inf]), [1.0, None]),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (b"ab", "YWI="),
        (int, repr(int)),
    ],
)
def test_values_become_what_json_knows(value: Any, shown: Any) -> None:
    assert as_json(value) == shown
    json.dumps(shown, allow_nan=False)
