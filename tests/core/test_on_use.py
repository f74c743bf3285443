"""Attributes that are made when they are first looked at."""

from __future__ import annotations

from rolecall.core.on_use import OnUse


class Office:
    letters = OnUse(list[str])
    counts = OnUse(dict[str, int])


def test_an_attribute_is_made_once_for_each_object() -> None:
    one, other = Office(), Office()
    one.letters.append("a")
    one.letters.append("b")
    assert one.letters == ["a", "b"]
    assert other.letters == []


def test_an_attribute_can_be_set_and_taken_away_as_any_other() -> None:
    office = Office()
    office.counts = {"a": 1}
    assert office.counts == {"a": 1}
    del office.counts
    assert office.counts == {}


def test_nothing_is_made_that_nobody_looks_at() -> None:
    office = Office()
    _ = office.letters
    assert list(vars(office)) == ["letters"]
    assert isinstance(Office.counts, OnUse)
