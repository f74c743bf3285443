from __future__ import annotations

import numpy as np
import pytest

from rolecall.core.errors import ConfigError
from rolecall.core.tensors import Tensors
from rolecall.learn import BadUpdate, Gradient, Update, screened

LIKE = Tensors({"w": np.zeros(3, np.float32), "b": np.zeros(1, np.float32)})
GOOD = Update(LIKE + 1.0, samples=4, loss=0.5)
NAN = Update(Tensors({"w": np.array([0, np.nan, 1], np.float32), "b": np.zeros(1, np.float32)}), 4, 0.5)
INFINITE = Update(Tensors({"w": np.zeros(3, np.float32), "b": np.array([np.inf], np.float32)}), 4, 0.5)
OTHER = Update(Tensors({"w": np.zeros(4, np.float32), "b": np.zeros(1, np.float32)}), 4, 0.5)
EMPTY = Update(LIKE, samples=0, loss=0.5)


@pytest.mark.parametrize(
    ("bad", "problem"),
    [
        (NAN, "tensor 'w' holds values that are infinite or not a number"),
        (INFINITE, "tensor 'b' holds values"),
        (OTHER, r"expected 'w' float32 \[3\], found 'w' float32 \[4\]"),
        (EMPTY, "it rests on 0 samples"),
        (Gradient(NAN.params, 4, 0.5), "tensor 'w' holds"),
    ],
)
def test_a_bad_update_is_an_error_that_names_its_role(bad: Update, problem: str) -> None:
    with pytest.raises(BadUpdate, match=f"client2/trainer: its update cannot be averaged: .*{problem}") as caught:
        screened({"client1/trainer": GOOD, "client2/trainer": bad}, LIKE)
    assert caught.value.role == "client2/trainer"


def test_or_it_is_left_out() -> None:
    found = screened({"a": NAN, "b": GOOD, "c": OTHER}, LIKE, "drop")
    assert found == {"b": GOOD}


def test_nothing_good_is_an_error_whatever_the_policy() -> None:
    with pytest.raises(BadUpdate, match=r"^a: "):
        screened({"a": NAN, "b": OTHER}, LIKE, "drop")


def test_an_unknown_policy() -> None:
    with pytest.raises(ConfigError, match="found 'ignore'"):
        screened({"a": GOOD}, LIKE, "ignore")  # type: ignore[arg-type]
