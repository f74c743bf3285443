from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest

import rolecall as rc
from rolecall.core.conditions import check_conditions, compile_conditions


class Place(msgspec.Struct, frozen=True):
    city: str
    tags: list[str] = []


@dataclasses.dataclass
class Size:
    width: int


class Report(msgspec.Struct, frozen=True):
    round: int
    loss: float = 0.5
    place: Place | None = None
    size: Size | None = None
    extra: dict[str, Any] = {}
    anything: Any = None


class Subscriber:
    start, cities = 3, ("Oslo", "Rome")


def holds(where: dict[str, Any], item: Any, item_type: Any = Report) -> bool:
    return compile_conditions(where, item_type, Subscriber(), "here")(item)


REPORT = Report(3, 0.5, Place("Oslo", ["cold"]), Size(4), {"deep": {"er": 1}}, Place("Rome"))


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, True),
        ({"round": 3}, True),
        ({"round": 4}, False),
        ({"round__eq": 3}, True),
        ({"round__ne": 3}, False),
        ({"round__lt": 3}, False),
        ({"round__le": 3}, True),
        ({"round__gt": 2}, True),
        ({"round__ge": 4}, False),
        ({"round__in": (1, 3)}, True),
        ({"round__in": [1]}, False),
        ({"place__city": "Oslo"}, True),
        ({"place__tags__contains": "cold"}, True),
        ({"place__tags__contains": "warm"}, False),
        ({"size__width__gt": 3}, True),
        ({"extra__deep__er": 1}, True),
        ({"anything__city": "Rome"}, True),
        ({"round__gt": 2, "loss__lt": 0.6}, True),
        ({"round__gt": 2, "loss__lt": 0.4}, False),
        ({"round__ge": rc.attribute("start")}, True),
        ({"round__gt": rc.attribute("start")}, False),
        ({"place__city__in": rc.attribute("cities")}, True),
    ],
)
def test_a_condition_holds_or_not(where: dict[str, Any], expected: bool) -> None:
    assert holds(where, REPORT) is expected


def test_events_may_be_dicts() -> None:
    assert holds({"a__b__gt": 1}, {"a": {"b": 2}}, dict[str, Any])


def test_an_attribute_is_read_when_the_condition_is_made() -> None:
    subscriber = Subscriber()
    condition = compile_conditions({"round": rc.attribute("start")}, Report, subscriber, "here")
    subscriber.start = 99
    assert condition(REPORT)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"rounds": 3}, "condition 'rounds': Report has no field 'rounds'. Did you mean 'round'?"),
        ({"place__citty": 3}, "condition 'place__citty': Place has no field 'citty'. Did you mean 'city'?"),
        ({"size__height": 3}, "condition 'size__height': Size has no field 'height'."),
        ({"round__lte": 3}, "condition 'round__lte': int has no fields; the operators are eq, ne, lt,"),
        ({"loss__below": 3}, "condition 'loss__below': float has no fields; the operators are"),
        ({"round__real__gt": 3}, "condition 'round__real__gt': int has no fields"),
        (
            {"round": rc.attribute("stat")},
            "condition 'round': Subscriber has no attribute 'stat'. Did you mean 'start'?",
        ),
    ],
)
def test_a_wrong_name_is_found_before_any_event(where: dict[str, Any], message: str) -> None:
    with pytest.raises(rc.DeclarationError) as error:
        compile_conditions(where, Report, Subscriber(), "a/role.on_report")
    assert str(error.value).startswith(f"a/role.on_report: {message}")


@pytest.mark.parametrize("where", [{"extra__what__ever": 1}, {"anything__at__all": 1}])
def test_where_the_types_do_not_tell_nothing_is_refused(where: dict[str, Any]) -> None:
    check_conditions(where, Report, "here")
    check_conditions(where, Any, "here")
    check_conditions(where, dict[str, int], "here")


def test_names_are_checked_without_a_subscriber() -> None:
    check_conditions({"round": rc.attribute("whatever")}, Report, "here")
    with pytest.raises(rc.DeclarationError):
        check_conditions({"rond": 1}, Report, "here")


def test_fields_of_a_local_struct_are_known_by_name() -> None:
    class Inner(msgspec.Struct):
        depth: int

    class Outer(msgspec.Struct):
        inner: Inner

    check_conditions({"inner__depth": 1}, Outer, "here")
    with pytest.raises(rc.DeclarationError, match="Outer has no field 'iner'"):
        check_conditions({"iner": 1}, Outer, "here")


def test_what_cannot_be_compared_raises() -> None:
    with pytest.raises(TypeError):
        holds({"loss__lt": "x"}, REPORT)
    with pytest.raises(AttributeError):
        holds({"place__city": "Oslo"}, Report(1))
