"""Attributes that are made when they are first looked at."""

from __future__ import annotations

from rolecall.core.on_use import OnUse


class Office:
    """Has letters and counts only once there is something to keep."""

    __slots__ = ("counts_", "letters_")

    letters = OnUse(list[str])
    counts = OnUse(dict[str, int])


def test_an_attribute_is_made_once_for_each_object() -> None:
    one, other = Office(), Office()
    one.letters.append("a")
    one.letters.append("b")
    assert one.letters == ["a", "b"]
    assert other.letters == []


def test_an_attribute_can_be_set_as_any_other() -> None:
    office = Office()
    office.counts = {"a": 1}
    assert office.counts == {"a": 1}


def test_nothing_is_made_that_nobody_looks_at() -> None:
    office = Office()
    _ = office.letters
    assert not hasattr(office, "counts_")
    assert isinstance(Office.counts, OnUse)
