from __future__ import annotations

import dataclasses
import datetime
import enum
import math
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, NamedTuple, Optional, Protocol, runtime_checkable
from uuid import UUID

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from rolecall.core.errors import DeclarationError, NotEncodable, WrongType
from rolecall.core.ids import RoleId
from rolecall.core.tensors import DTYPES, Tensors
from rolecall.wire import (
    Codec,
    LimitExceeded,
    Limits,
    Malformed,
    chunk_decode,
    chunk_encode,
    decode,
    encode,
)


class Phase(enum.Enum):
    WARM = "warm"
    COLD = "cold"


class Update(msgspec.Struct, frozen=True):
    params: Tensors
    samples: int
    loss: float = 0.0


@dataclasses.dataclass
class Plan:
    who: list[RoleId]
    rates: np.ndarray
    phase: Phase = Phase.WARM


@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: int


class Pair(NamedTuple):
    left: Tensors
    right: RoleId


def model(scale: float = 1.0) -> Tensors:
    return Tensors({"w": np.full((2, 3), scale, np.float32), "b": np.zeros(3, np.float64)})


def round_trip(value: Any, declared: Any = Any) -> Any:
    return decode([bytes(segment) for segment in encode(value)], declared)


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc")
    if isinstance(a, Tensors):
        return isinstance(b, Tensors) and a.digest() == b.digest()
    if isinstance(a, float) and math.isnan(a):
        return isinstance(b, float) and math.isnan(b)
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, msgspec.Struct | Plan):
        return all(same(getattr(a, name), getattr(b, name)) for name in a.__annotations__)
    return bool(a == b)


# ---------------------------------------------------------------------------------------------- round trips

INTS = st.integers(-(2**63), 2**64 - 1)
DATES = st.datetimes(timezones=st.just(datetime.UTC))
ARRAYS = hnp.arrays(
    st.sampled_from([np.dtype(d) for d in ("?", "i1", "u2", "i4", "u8", "f2", "f4", "f8", "c8", "c16")]),
    hnp.array_shapes(min_dims=0, min_side=0, max_side=3),
)
TENSORS = st.dictionaries(
    st.text(max_size=5),
    ARRAYS.filter(lambda array: array.dtype.name in DTYPES),
    max_size=4,
).map(Tensors)
ROLES = st.from_regex(r"[a-z]{1,5}/[a-z]{1,5}", fullmatch=True).map(RoleId)

LEAVES: list[tuple[Any, st.SearchStrategy[Any]]] = [
    (type(None), st.none()),
    (bool, st.booleans()),
    (int, INTS),
    (float, st.floats()),
    (str, st.text(max_size=40)),
    (bytes, st.binary(max_size=40)),
    (Phase, st.sampled_from(Phase)),
    (datetime.datetime, DATES),
    (datetime.date, st.dates()),
    (datetime.timedelta, st.timedeltas(datetime.timedelta(-1000), datetime.timedelta(1000))),
    (UUID, st.uuids()),
    (Decimal, st.decimals(allow_nan=False)),
    (RoleId, ROLES),
    (Point, st.builds(Point, INTS, INTS)),
    (np.float32, st.floats(width=32, allow_nan=False).map(np.float32)),
    (np.int8, st.integers(-128, 127).map(np.int8)),
    (np.ndarray, ARRAYS),
    (Tensors, TENSORS),
    (Update, st.builds(Update, TENSORS, INTS, st.floats())),
    (Plan, st.builds(Plan, st.lists(ROLES, max_size=3), ARRAYS, st.sampled_from(Phase))),
    (Pair, st.builds(Pair, TENSORS, ROLES)),
]
CONTAINERS: list[Callable[[Any, st.SearchStrategy[Any]], tuple[Any, st.SearchStrategy[Any]]]] = [
    lambda declared, items: (list[declared], st.lists(items, max_size=20)),
    lambda declared, items: (tuple[declared, ...], st.lists(items, max_size=3).map(tuple)),
    lambda declared, items: (tuple[int, declared], st.tuples(INTS, items)),
    lambda declared, items: (dict[str, declared], st.dictionaries(st.text(max_size=5), items, max_size=3)),
    lambda declared, items: (dict[RoleId, declared], st.dictionaries(ROLES, items, max_size=3)),
    lambda declared, items: (dict[int, declared], st.dictionaries(INTS, items, max_size=3)),
    lambda declared, items: (Optional[declared], st.none() | items),  # noqa: UP045
]


@st.composite
def declared_values(draw: st.DrawFn) -> tuple[Any, Any]:
    declared, strategy = draw(st.sampled_from(LEAVES))
    for container in draw(st.lists(st.sampled_from(CONTAINERS), max_size=3)):
        declared, strategy = container(declared, strategy)
    return declared, draw(strategy)


@given(declared_values())
def test_what_is_sent_arrives_as_its_declared_type(case: tuple[Any, Any]) -> None:
    declared, value = case
    assert same(value, round_trip(value, declared))


ANYTHING = st.recursive(
    st.none() | st.booleans() | INTS | st.floats() | st.text(max_size=9) | st.binary(max_size=9) | ARRAYS | TENSORS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=15,
)


@given(ANYTHING)
def test_plain_values_and_arrays_need_no_declared_type(value: Any) -> None:
    assert same(value, round_trip(value))


@given(st.sets(INTS), st.frozensets(st.text(max_size=5)))
def test_sets(numbers: set[int], texts: frozenset[str]) -> None:
    assert round_trip(numbers, set[int]) == numbers
    assert round_trip(texts, frozenset[str]) == texts


def test_under_any_collections_arrive_as_lists_and_dicts() -> None:
    assert round_trip((1, {2})) == [1, [2]]
    assert round_trip(Point(1, 2)) == {"x": 1, "y": 2}
    assert round_trip(Phase.COLD) == "cold"
    assert isinstance(round_trip(Update(model(), 3))["params"], Tensors)


def test_a_role_id_arrives_as_a_role_id_as_value_and_as_key() -> None:
    got = round_trip({RoleId("a/b"): [RoleId("c/d")]}, dict[RoleId, list[RoleId]])
    assert got == {"a/b": ["c/d"]}
    assert type(next(iter(got))) is RoleId
    assert type(got["a/b"][0]) is RoleId


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i1", "i8", "u1", "u8", "?"])
def test_numpy_scalars_arrive_as_plain_numbers_unless_declared(kind: str) -> None:
    value = np.dtype(kind).type(1)
    assert type(round_trip(value)) in (int, float, bool)
    back = round_trip(value, type(value))
    assert type(back) is type(value)
    assert back == value


def test_a_complex_scalar() -> None:
    assert round_trip(np.complex64(1 + 2j), np.complex64) == np.complex64(1 + 2j)


def test_abstract_base_classes_as_declared_types() -> None:
    assert same(round_trip([model()], Sequence[Tensors]), [model()])
    assert same(round_trip({"a": model()}, Mapping[str, Tensors]), {"a": model()})
    assert same(round_trip(model(), object), model())


def test_a_type_annotated_with_what_cannot_be_hashed() -> None:
    assert round_trip(3, Annotated[int, ["not hashable"]]) == 3


# ---------------------------------------------------------------------------------------------- arrays


def test_segments_share_memory_with_the_tensors_that_are_sent() -> None:
    sent = model()
    segments = encode({"deep": [sent]})
    raw = [np.frombuffer(segment, np.uint8) for segment in segments[1:]]
    assert np.shares_memory(raw[0], sent["w"])
    assert np.shares_memory(raw[1], sent["b"])


def test_tensors_that_arrive_share_memory_with_the_segments() -> None:
    segments = [bytes(segment) for segment in encode(Update(model(), 3))]
    got = decode(segments, Update).params
    assert np.shares_memory(got["w"], np.frombuffer(segments[1], np.uint8))
    assert np.shares_memory(got["b"], np.frombuffer(segments[2], np.uint8))


def test_arrays_are_not_copied_either_way() -> None:
    sent = np.arange(100.0).reshape(10, 10)
    segments = encode([sent])
    assert np.shares_memory(np.frombuffer(segments[1], np.uint8), sent)
    assert np.shares_memory(decode(segments)[0], sent)


def test_arrays_that_arrive_cannot_be_written_to() -> None:
    segments = [bytearray(segment) for segment in encode([np.arange(3), np.zeros((0, 2)), np.array(1.0)])]
    for array in decode([memoryview(segment) for segment in segments]):
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 1


def test_arrays_are_not_copied_out_of_a_chunk() -> None:
    sent = [
        np.arange(100.0),
        Tensors({"w": np.ones(99, np.float32), "b": np.ones(99)}),
        np.arange(50, dtype="c16"),
    ]
    chunk = chunk_encode(encode(sent))
    array, tensors, numbers = decode(chunk_decode(chunk))
    for got in (array, tensors["w"], tensors["b"], numbers):
        assert np.shares_memory(got, np.frombuffer(chunk, np.uint8))


@pytest.mark.parametrize("offset", range(9))
def test_arrays_are_aligned_wherever_they_lay_so_that_sums_agree_to_the_last_digit(offset: int) -> None:
    sent = np.random.default_rng(1).random(100_001).astype(np.float32)
    segments = encode([sent, Tensors({"w": sent})])
    moved = [memoryview(bytes(offset) + segment)[offset:] for segment in segments]
    array, tensors = decode(moved)
    assert array.flags.aligned
    assert array.sum() == tensors["w"].sum() == sent.sum()


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12).reshape(3, 4).T,
        np.arange(12)[::-2],
        np.asfortranarray(np.ones((2, 3))),
        np.arange(3, dtype=">f4"),
        np.broadcast_to(np.float32(1), (3, 3)),
        np.zeros((0, 3)),
        np.array(5),
    ],
    ids=["transposed", "strided", "fortran", "big-endian", "broadcast", "empty", "scalar"],
)
def test_any_layout_in_memory_travels(array: npt.NDArray[Any]) -> None:
    got = round_trip(array)
    assert got.dtype == array.dtype.newbyteorder("=")
    assert got.shape == array.shape
    assert np.array_equal(got, array)


def test_the_declared_dtype_of_an_array_is_checked() -> None:
    single = np.zeros(2, np.float32)
    assert same(round_trip(single, npt.NDArray[np.float32]), single)
    assert same(round_trip(single, npt.NDArray[np.floating[Any]]), single)
    assert same(round_trip(single, npt.NDArray[Any]), single)
    with pytest.raises(WrongType, match=r"found ndarray of float32"):
        round_trip(single, npt.NDArray[np.int64])


def test_empty_tensors() -> None:
    assert len(encode(Tensors({}))) == 1
    assert round_trip([Tensors({}), model()], list[Tensors]) == [Tensors({}), model()]


def test_large_headers_of_tensors_travel_too() -> None:
    many = Tensors({f"layer{i}.weight": np.full(1, i, np.float32) for i in range(2000)})
    assert same(round_trip(many, Tensors), many)


def test_one_encoding_serves_many_receivers() -> None:
    segments = encode(model())
    assert decode(segments, Tensors) == decode(segments, Tensors) == model()


# ---------------------------------------------------------------------------------------------- torch


def test_a_torch_tensor_arrives_as_one_where_the_type_says_so() -> None:
    torch = pytest.importorskip("torch")
    sent = torch.arange(6.0).reshape(2, 3).t()
    got = round_trip({"x": sent}, dict[str, torch.Tensor])["x"]
    assert torch.equal(got, sent)
    got += 1  # it is a copy, and may be written to
    assert same(round_trip(sent), sent.numpy())


def test_torch_parameters_and_bfloat16_travel() -> None:
    torch = pytest.importorskip("torch")
    sent = torch.nn.Parameter(torch.tensor([1.5, -2.25, 3e30], dtype=torch.bfloat16))
    got = round_trip([sent], list[torch.Tensor])[0]
    assert got.dtype == torch.bfloat16
    assert torch.equal(got, sent)
    assert same(round_trip(sent), sent.detach().float().numpy())
    assert same(round_trip(Tensors({"a": sent}), Tensors), Tensors({"a": sent}))


def test_a_sparse_tensor_is_refused() -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(NotEncodable, match=r"value\[0\].*sparse.*dense"):
        encode([torch.eye(3).to_sparse()])


# ---------------------------------------------------------------------------------- what cannot travel


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), r"^args: a value of type object cannot travel\. Send numbers, text"),
        ({"plan": [1, 2, lambda: 0]}, r"^args\['plan'\]\[2\]: a value of type function"),
        (Plan([RoleId("a/b")], object()), r"^args\.rates: a value of type object"),  # type: ignore[arg-type]
        (
            Update(model(), 2**64),
            r"^args\.samples: a value of type int cannot travel\. It does not fit in 64 bits",
        ),
        ({complex(1): 1}, r"^args \(the key \(1\+0j\)\): a value of type complex"),
        (
            [np.array([object()])],
            r"^args\[0\]: .* numpy\.ndarray of dtype object .* Convert it to one of float16",
        ),
        (np.ma.array([1], mask=[True]), r"MaskedArray cannot travel\. Send its data and its mask"),
        (["\ud800"], r"^args\[0\]: a value of type str cannot travel\. The reason: .*surrogates"),
        (Exception("x"), r"a value of type Exception"),
        (int, r"a value of type type"),
    ],
)
def test_the_error_names_the_part_that_cannot_travel(value: Any, message: str) -> None:
    with pytest.raises(NotEncodable, match=message):
        encode(value, where="args")


def test_a_value_that_contains_itself_cannot_travel() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(
        NotEncodable, match=r"^value: a value of type list.*nested more than 64 deep, or contains itself"
    ):
        encode(endless)


def test_a_failed_encoding_leaves_nothing_behind() -> None:
    with pytest.raises(NotEncodable):
        encode([model(), object()])
    assert len(encode([model()])) == 3


# ---------------------------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("value", "declared", "message"),
    [
        ("x", Tensors, r"value: expected Tensors, found str\."),
        (np.zeros(1), Tensors, r"value: expected Tensors, found ndarray\."),
        (3, Tensors | None, r"value: expected Tensors, found int\."),
        (model(), int, r"value: expected int, found an array or Tensors\."),
        ([1, "x"], list[int], r"value\[1\]: expected int, found str\."),
        (
            {"a": {"b": None}},
            dict[str, dict[str, int]],
            r"value\[\.\.\.\]\[\.\.\.\]: expected int, found None\.",
        ),
        ({"params": 1, "samples": 1}, Update, r"value\.params: expected Tensors, found int\."),
        ({"samples": 1}, Update, r"value: expected a value with params, found one without it\."),
        ([], Update, r"value: expected Update, found list\."),
        ({"x": 1}, list[int], r"value: expected list\[int\], found dict\."),
        ({1: 1}, dict[str, int], r"value \(a key\): expected str, found int\."),
        ({"k": 1}, dict[int, int], r"value \(a key\): expected int, found str\."),
        ("lukewarm", Phase, r"value: expected a member of the enum, found 'lukewarm'\."),
        (300, np.int8, r"value: expected int8, found int64 300\."),
        ("x", np.float32, r"value: expected float32, found str\."),
        (1, np.floating, r"value: expected floating, found int64 1\."),
        ([1, 2, 3], tuple[int, int], r"value: expected array of length 2, found 3\."),
        (
            "ab",
            Annotated[str, msgspec.Meta(min_length=3)],
            r"value: expected str of length >= 3, found another\.",
        ),
        ("soon", datetime.datetime, r"value: expected datetime.*, found another \(Invalid RFC3339"),
    ],
)
def test_the_error_says_where_what_was_expected_and_what_was_found(value: Any, declared: Any, message: str) -> None:
    with pytest.raises(WrongType, match="^" + message):
        round_trip(value, declared)


@pytest.mark.parametrize("declared", [Tensors | str, Tensors | np.ndarray, Update | Plan, "Nowhere"])
def test_a_type_that_cannot_be_told_apart_is_refused_when_it_is_declared(declared: Any) -> None:
    with pytest.raises(DeclarationError, match=r"^Trainer\.train: values declared as .* cannot be told apart"):
        Codec(declared, where="Trainer.train")


def test_a_codec_names_its_value_in_errors() -> None:
    codec = Codec(list[int], where="Trainer.train: result")
    assert codec.decode(codec.encode([1])) == [1]
    with pytest.raises(NotEncodable, match=r"^Trainer\.train: result\[0\]: "):
        codec.encode([object()])  # type: ignore[list-item]
    with pytest.raises(WrongType, match=r"^Trainer\.train: result\[0\]: expected int, found str"):
        codec.decode(encode(["x"]))


class Sized(Protocol):
    def __len__(self) -> int: ...


@runtime_checkable
class Iterating(Protocol):
    def __iter__(self) -> Any: ...


def test_a_protocol_is_checked_where_that_is_possible() -> None:
    assert same(round_trip(model(), Iterating), model())
    with pytest.raises(WrongType, match="expected Iterating, found int"):
        round_trip(3, Iterating)
    with pytest.raises(WrongType, match="Sized is a Protocol without @runtime_checkable"):
        round_trip(model(), Sized)


# ---------------------------------------------------------------------------------- damage and limits


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        ([], "without segments"),
        ([b""], "truncated"),
        ([b"\xc1"], "damaged"),
        ([b"\x01\x01"], "trailing"),
        ([b"\xa1\xff"], "utf-8"),
        ([msgspec.msgpack.encode(msgspec.msgpack.Ext(99, b""))], "extension 99 is not known"),
        ([msgspec.msgpack.encode(msgspec.msgpack.Ext(1, b"\xff"))], "header of an array is damaged"),
    ],
)
def test_damaged_messages(segments: list[bytes], message: str) -> None:
    with pytest.raises(Malformed, match=message):
        decode(segments)


def array_message(segment: int, dtype: str, shape: tuple[int, ...], raw: bytes = bytes(8)) -> list[bytes]:
    header = msgspec.msgpack.encode((segment, dtype, shape))
    return [msgspec.msgpack.encode(msgspec.msgpack.Ext(2, header)), raw]


def tensors_message(first: int, spec: list[tuple[str, str, tuple[int, ...]]], *raw: bytes) -> list[bytes]:
    header = msgspec.msgpack.encode((first, spec))
    return [msgspec.msgpack.encode(msgspec.msgpack.Ext(1, header)), *raw]


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (array_message(0, "float64", (1,)), "segment 0"),
        (array_message(2, "float64", (1,)), "segment 2, but there are 2"),
        (array_message(-1, "float64", (1,)), "segment -1"),
        (array_message(1, "object", (1,)), "unknown dtype 'object'"),
        (array_message(1, "float64", (-1,)), "negative dimension"),
        (array_message(1, "float64", (-1, -1)), "negative dimension"),
        (array_message(1, "float64", (2,)), "takes 16 bytes, but 8 came"),
        (array_message(1, "float64", (2**40, 2**40)), "impossible shape"),
        (array_message(1, "float64", (0, 2**62), b""), "impossible shape"),
        (array_message(1, "float64", (1,) * 40), "40 dimensions"),
        (tensors_message(1, [("w", "float64", (2,))], bytes(8)), "do not fit together: .*16 bytes, found 8"),
        (tensors_message(1, [("w", "f8", (1,))], bytes(8)), "unknown dtype 'f8'"),
        (tensors_message(1, [("w", "complex64", (1,))], bytes(8)), "do not fit together"),
        (tensors_message(1, [("w", "float64", (0, 2**62))], b""), "impossible shape"),
        (tensors_message(1, [("w", "float64", ())] * 2, bytes(16)), "two tensors are named 'w'"),
        (tensors_message(1, [("w", "float64", ()), ("b", "int8", ())], bytes(8)), "segment 2"),
    ],
)
@pytest.mark.parametrize("declared", [Any, Tensors, np.ndarray])
def test_array_headers_are_not_trusted(segments: list[bytes], message: str, declared: Any) -> None:
    with pytest.raises(Malformed, match=message):
        decode(segments, declared)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        (Limits(message_bytes=100), "message_bytes"),
        (Limits(segments=3), "segments"),
        (Limits(tensors=2), "tensors"),
        (Limits(depth=1), "depth"),
    ],
)
def test_limits_are_named_with_what_to_do(limits: Limits, name: str) -> None:
    segments = encode([[model()], [model()]])
    assert decode(segments)
    with pytest.raises(LimitExceeded, match=rf"`{name}`.*or raise Limits\({name}="):
        decode(segments, limits=limits)


@pytest.mark.parametrize("size", [1, 40, 200])
def test_messages_of_any_size_are_looked_at_for_their_depth(size: int) -> None:
    """Short ones take a shorter way."""
    value: Any = "x" * size
    for _ in range(3):
        value = [value]
    assert decode(encode(value), limits=Limits(depth=3)) == value
    with pytest.raises(LimitExceeded, match="`depth`"):
        decode(encode(value), limits=Limits(depth=2))


@given(st.binary(max_size=70), st.sampled_from([Any, int, str, Tensors, list[float]]))
def test_short_messages_are_read_as_long_ones_are(packed: bytes, declared: Any) -> None:
    """A segment that nobody looks at makes a message one of those in which arrays may be."""

    def outcome(segments: list[bytes]) -> object:
        try:
            return repr(decode(segments, declared))
        except (Malformed, WrongType) as error:
            return type(error), str(error)

    if b"\xc7" not in packed and not any(0xC7 <= byte <= 0xD8 for byte in packed):
        assert outcome([packed]) == outcome([packed, b""])


def test_limits_count_each_decoding_anew() -> None:
    segments = encode(model())
    for _ in range(5):
        assert decode(segments, limits=Limits(tensors=2)) == model()


# ---------------------------------------------------------------------------------------------- side by side


def test_threads_do_not_disturb_each_other() -> None:
    wrong: list[float] = []

    def work(scale: float) -> None:
        for _ in range(200):
            got = decode(encode([model(scale), np.full(3, scale)]))
            if got[0]["w"][0, 0] != scale or got[1][0] != scale:
                wrong.append(scale)

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


class Nested(msgspec.Struct):
    inside: Tensors
    after: Tensors

    def __post_init__(self) -> None:
        assert decode(encode([np.ones(3)]))[0].sum() == 3


def test_a_value_may_decode_others_while_it_is_built() -> None:
    value = [Nested(model(1.0), model(2.0)), Nested(model(3.0), model(4.0))]
    got = decode(encode(value), list[Nested])
    assert [each.inside["w"][0, 0] for each in got] == [1.0, 3.0]


def test_nothing_is_kept_alive_after_a_message() -> None:
    value = np.zeros(10)
    before = sys.getrefcount(value)
    decode(encode(value))
    assert sys.getrefcount(value) == before
