from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import DeclarationError, NotEncodable, WrongArgument, WrongType
from rolecall.core.ids import RoleId
from rolecall.core.tensors import Tensors
from rolecall.wire import ArgsCodec, Malformed, encode


class Options(msgspec.Struct):
    rate: float
    layers: list[int] = []


CODEC = ArgsCodec(
    "Trainer.train",
    [
        ("params", Tensors, False),
        ("epochs", int, True),
        ("plan", dict[RoleId, int], True),
        ("options", Options | None, True),
    ],
)
PARAMS = Tensors({"w": np.ones(3, np.float32)})


def call(*args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return CODEC.decode([bytes(segment) for segment in CODEC.encode(args, kwargs)])


def test_arguments_arrive_as_the_caller_gave_them() -> None:
    assert call(PARAMS) == ((PARAMS,), {})
    assert call(PARAMS, 3) == ((PARAMS, 3), {})
    assert call(PARAMS, epochs=3) == ((PARAMS,), {"epochs": 3})
    assert call(params=PARAMS) == ((), {"params": PARAMS})
    assert call(PARAMS, options=Options(0.1)) == ((PARAMS,), {"options": Options(0.1)})
    assert call(PARAMS, 3, {RoleId("a/b"): 1}, None) == ((PARAMS, 3, {"a/b": 1}, None), {})


def test_arguments_arrive_as_their_declared_types() -> None:
    (_, _, plan, options), _ = call(PARAMS, 1, {RoleId("a/b"): 1}, Options(1))
    assert type(next(iter(plan))) is RoleId
    assert type(options) is Options


def test_no_parameters() -> None:
    codec = ArgsCodec("X.f", [])
    assert codec.decode(codec.encode((), {})) == ((), {})


@given(st.lists(st.text(max_size=5) | st.integers(-9, 9), max_size=4), st.integers(0, 4))
def test_any_split_into_positional_and_keyword(values: list[Any], positional: int) -> None:
    names = ["a", "self", "class_", "_x"][: len(values)]
    codec = ArgsCodec("X.f", [(name, Any, False) for name in names])
    args = tuple(values[:positional])
    kwargs = dict(list(zip(names, values, strict=True))[positional:])
    assert codec.decode(codec.encode(args, kwargs)) == (args, kwargs)


def test_arrays_are_not_copied() -> None:
    segments = CODEC.encode((PARAMS,), {})
    (got,), _ = CODEC.decode(segments)
    assert np.shares_memory(got["w"], PARAMS["w"])


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        (("x",), {}, r"argument 'params': expected Tensors, found str\."),
        ((), {"params": 1}, r"argument 'params': expected Tensors, found int\."),
        ((PARAMS, PARAMS), {}, r"argument 'epochs': expected int, found an array or Tensors\."),
        ((PARAMS, 1, [1]), {}, r"argument 'plan': expected dict\[.*RoleId, int\], found list\."),
        ((PARAMS, 1, {"a": "b"}), {}, r"argument 'plan' at \[\.\.\.\]: expected int, found str\."),
        ((PARAMS, 1, {2: 3}), {}, r"argument 'plan' \(a key\): expected RoleId, found int\."),
        ((PARAMS,), {"options": 3}, r"argument 'options': expected .*Options \| None, found int\."),
        (
            (PARAMS,),
            {"options": {"rate": 1, "layers": [1, None]}},
            r"argument 'options' at layers\[1\]: expected int, found None",
        ),
        (
            (PARAMS,),
            {"options": {}},
            r"argument 'options': expected a value with rate, found one without it\.",
        ),
    ],
)
def test_a_wrong_type_names_the_parameter(args: tuple[Any, ...], kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(WrongType, match=r"^Trainer\.train: " + message):
        call(*args, **kwargs)


def test_what_cannot_travel_names_the_parameter() -> None:
    with pytest.raises(NotEncodable, match=r"^Trainer\.train: argument 'plan' at \['a'\]: a value of type object"):
        CODEC.encode((PARAMS,), {"plan": {"a": object()}})
    with pytest.raises(NotEncodable, match=r"^Trainer\.train: argument 'params': a value of type function"):
        CODEC.encode((lambda: 0,), {})


@pytest.mark.parametrize(
    ("args", "kwargs", "problem"),
    [
        ((), {}, "argument 'params' is missing"),
        ((), {"epochs": 1}, "argument 'params' is missing"),
        ((1, 2, 3, 4, 5), {}, "5 arguments given, where it takes 4"),
        ((PARAMS,), {"epoch": 1}, "there is no argument 'epoch'"),
        ((PARAMS,), {"params": PARAMS}, "argument 'params' is given twice"),
    ],
)
def test_what_does_not_fit_the_signature(args: tuple[Any, ...], kwargs: dict[str, Any], problem: str) -> None:
    signature = r"\. Its signature is \(params, epochs=\.\.\., plan=\.\.\., options=\.\.\.\)\.$"
    with pytest.raises(WrongArgument, match=r"^Trainer\.train: " + problem + signature):
        CODEC.encode(args, kwargs)


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ([[PARAMS, 1, {}, None, 5]], "expected array of at most length 4, found 5"),
        ([[PARAMS], {"zz": 1}], "expected no field zz, found one"),
        ([[]], "argument 'params' is missing"),
        ([[PARAMS], {"params": PARAMS}], "argument 'params' is given twice"),
        ({"a": 1}, "expected .*, found dict"),
        ([[PARAMS], {}, 3], "expected array of at most length 2, found 3"),
    ],
)
def test_what_arrives_is_held_against_the_signature_too(sent: Any, problem: str) -> None:
    with pytest.raises(WrongArgument, match=problem):
        CODEC.decode(encode(sent))


def test_damaged_arguments() -> None:
    with pytest.raises(Malformed):
        CODEC.decode([b"\xc1"])


def test_a_parameter_that_cannot_be_told_apart_is_refused_at_once() -> None:
    with pytest.raises(
        DeclarationError, match=r"^Trainer\.train: argument 'what': values declared as .* cannot be told"
    ):
        ArgsCodec("Trainer.train", [("what", Tensors | str, False)])
