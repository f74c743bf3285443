from __future__ import annotations

import enum
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Annotated, Any, Literal, Protocol, TypedDict

import msgspec
import numpy as np
import pytest

import rolecall as rc
from rolecall.core.declarations import declarations
from rolecall.core.signatures import ANYTHING, Signature, accepted_classes


class Shape(Protocol):
    def area(self) -> float: ...


class Table(TypedDict):
    name: str


class Box(msgspec.Struct):
    size: int


class Colour(enum.Enum):
    RED = 1


class Role(rc.Role):
    @rc.service
    async def plain(self, count: int, name: str = "x", *, rate: float | None = None) -> list[int]: ...

    @rc.service
    async def must_name(self, *, rate: float) -> None: ...

    @rc.service
    async def by_position(self, count: int, /) -> None: ...

    @rc.service
    async def unannotated(self, thing, other=3): ...  # type: ignore[no-untyped-def]

    @rc.stream
    async def items(self, box: Box) -> AsyncIterator[int]:
        yield box.size


def signature(name: str) -> Signature:
    return declarations(Role).channels[name].signature(Role)


# ---------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("name", "args", "kwargs"),
    [
        ("plain", (1,), {}),
        ("plain", (1, "y"), {}),
        ("plain", (True,), {"name": "y", "rate": 1}),
        ("plain", (), {"count": 1, "rate": None}),
        ("must_name", (), {"rate": 0.5}),
        ("must_name", (), {"rate": 3}),
        ("by_position", (1,), {}),
        ("unannotated", (object(), []), {}),
        ("items", (Box(1),), {}),
    ],
)
def test_what_fits(name: str, args: Any, kwargs: Any) -> None:
    signature(name).check(args, kwargs)


@pytest.mark.parametrize(
    ("name", "args", "kwargs", "problem"),
    [
        ("plain", (), {}, "missing a required argument: 'count'"),
        ("plain", (1, "y", 0.5), {}, "too many positional arguments"),
        ("plain", (1,), {"count": 2}, "multiple values for argument 'count'"),
        ("plain", (1,), {"speed": 2}, "got an unexpected keyword argument 'speed'"),
        ("plain", ("1",), {}, "argument 'count' is str, not int"),
        ("plain", (1,), {"name": 3}, "argument 'name' is int, not str"),
        ("plain", (1,), {"rate": "fast"}, "argument 'rate' is str, not float | None"),
        ("plain", (None,), {}, "argument 'count' is None, not int"),
        ("plain", (np.int64(1),), {}, "argument 'count' is int64, not int"),
        ("must_name", (0.5,), {}, "too many positional arguments"),
        ("must_name", (), {}, "missing a required argument: 'rate'"),
        ("by_position", (), {"count": 1}, "'count' parameter is positional only"),
        ("items", ({"size": 1},), {}, "argument 'box' is dict, not Box"),
    ],
)
def test_what_does_not_fit_is_said_with_the_signature(name: str, args: Any, kwargs: Any, problem: str) -> None:
    with pytest.raises(rc.WrongArgument) as error:
        signature(name).check(args, kwargs)
    text = str(error.value)
    assert text.startswith(f"Role.{name}: ") and problem in text and "Its signature is (" in text
    assert isinstance(error.value, TypeError) and isinstance(error.value, rc.CallerError)


def test_a_signature_is_shown_as_it_was_written() -> None:
    with pytest.raises(rc.WrongArgument) as error:
        signature("plain").check((), {})
    shown = "(count: int, name: str = ..., rate: float | None = ...) -> list[int]"
    assert str(error.value).endswith(f"Its signature is {shown}.")


def test_what_the_runtime_sends_is_not_checked() -> None:
    ANYTHING.check((1, "x"), {"y": 2})


@pytest.mark.parametrize("stars", ["*", "**"])
def test_a_channel_names_its_parameters(stars: str) -> None:
    namespace: dict[str, Any] = {"rc": rc}
    exec(f"class Loose(rc.Role):\n  @rc.service\n  async def take(self, {stars}things: int) -> None: ...", namespace)
    with pytest.raises(rc.DeclarationError) as error:
        declarations(namespace["Loose"])
    assert str(error.value).startswith(f"Loose.take: it takes {stars}things. Name its parameters")


def test_an_override_is_resolved_for_its_own_class() -> None:
    class Sub(Role):
        async def plain(self, count: int, name: str = "x", *, rate: float | None = None, more: int = 0) -> list[int]:
            return []

    names = [p.name for p in declarations(Sub).channels["plain"].signature(Sub).parameters]
    assert names == ["count", "name", "rate", "more"]
    assert declarations(Sub).channels["plain"].signature(Sub).channel == "Sub.plain"


# ---------------------------------------------------------------------------------------------- classes


@pytest.mark.parametrize(
    ("hint", "fits", "does_not"),
    [
        (float, [1, 1.5, True], ["1", None]),
        (int, [1, True], [1.0]),
        (None, [None], [0]),
        (int | None, [1, None], ["x"]),
        (list[int] | str, [[1], ["not looked at"], "x"], [(1,)]),
        (dict[str, int], [{}], [[]]),
        (Sequence[int], [[1], (1,)], [{1}]),
        (Callable[[int], int], [abs], [3]),
        (Annotated[int, "x"], [1], ["x"]),
        (Table, [{"name": "x"}], ["x"]),
        (Box, [Box(1)], [1]),
        (Colour, [Colour.RED], [1]),
        (type[Box], [Box], [Box(1)]),
        (rc.RoleId, [rc.RoleId("a/b")], ["a/b"]),
        (np.ndarray, [np.zeros(1)], [[0]]),
    ],
)
def test_the_outermost_type_is_checked(hint: Any, fits: list[Any], does_not: list[Any]) -> None:
    classes = accepted_classes(hint)
    assert all(isinstance(value, classes) for value in fits)
    assert not any(isinstance(value, classes) for value in does_not)


@pytest.mark.parametrize("hint", [Any, object, Shape, Literal["a"], Shape | int, "text"])
def test_what_isinstance_cannot_tell_is_left_to_the_wire(hint: Any) -> None:
    assert isinstance(object(), accepted_classes(hint))
