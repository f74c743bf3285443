from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.patterns import NAMES_LIMIT, expand_range, is_pattern, matches, natural_key, select

NAMES = st.from_regex(r"[a-z]{1,4}[0-9]{0,3}", fullmatch=True)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("server", ["server"]),
        ("client[1-3]", ["client1", "client2", "client3"]),
        ("edge[01-03]", ["edge01", "edge02", "edge03"]),
        ("edge[08-11]", ["edge08", "edge09", "edge10", "edge11"]),
        ("n[1,4-5,9]", ["n1", "n4", "n5", "n9"]),
        ("rack[1-2]-n[1-2]", ["rack1-n1", "rack1-n2", "rack2-n1", "rack2-n2"]),
        ("n[7]x", ["n7x"]),
    ],
)
def test_a_range_stands_for_names_in_order(text: str, names: list[str]) -> None:
    assert expand_range(text) == names


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("client[1-", "without its partner"),
        ("client]", "without its partner"),
        ("client[]", "no number and no span"),
        ("client[a-c]", "no number and no span"),
        ("client[1-2-3]", "no number and no span"),
        ("client[9-3]", r"runs backwards; write \[3-9\]"),
        ("client[01-010]", "different widths"),
        ("client[1-99999999]", "at most 100,000"),
        ("a[1-1000]b[1-1000]", "at most 100,000"),
        ("a[1-99999999999999999999]", "no number and no span"),
    ],
)
def test_a_wrong_range_says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        expand_range(text)


def test_the_limit_is_told_from_its_square_before_any_name_is_made() -> None:
    assert len(expand_range(f"n[1-{NAMES_LIMIT}]")) == NAMES_LIMIT


@pytest.mark.parametrize(
    ("pattern", "name", "expected"),
    [
        ("client*", "client3", True),
        ("client*", "client3/trainer", False),
        ("client*/trainer", "client3/trainer", True),
        ("client*/trainer", "client3/trainer2", False),
        ("*/trainer", "a/trainer", True),
        ("*", "a/b", False),
        ("client?", "client3", True),
        ("client?", "client30", False),
        ("client[1-3]/t*", "client2/trainer", True),
        ("client[1-3]/t*", "client4/trainer", False),
        ("client[1-3]", "client1\n", False),
        ("a.c", "abc", False),
        ("a**b", "ab", True),
        ("server", "server", True),
        ("*a*b", "xaaxb", True),
        ("*ab*b", "aab", False),
        ("*", "", True),
        ("a*/b*c*d", "a1/bxcxd", True),
        ("x*[5,151]*1", "x151", True),
        ("a|b(c", "a|b(c", True),
    ],
)
def test_matching(pattern: str, name: str, expected: bool) -> None:
    assert matches(pattern, name) is expected


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_stars_and_question_marks_mean_what_they_do_in_a_shell(pattern: str, name: str) -> None:
    assert matches(pattern, name) is fnmatch.fnmatchcase(name, pattern)


def test_many_stars_take_no_time_to_speak_of() -> None:
    assert not matches("*a" * 30 + "b", "a" * 200)


@given(st.integers(0, 1500), st.integers(0, 60), st.sampled_from([0, 3, 4]), st.integers(0, 1700))
def test_a_range_matches_exactly_the_names_it_expands_to(low: int, length: int, width: int, other: int) -> None:
    pattern = f"n[{low:0{width}d}-{low + length:0{width}d}]x"
    names = expand_range(pattern)
    assert len(names) == length + 1
    assert all(matches(pattern, name) for name in names)
    for candidate in (f"n{other}x", f"n{other:03d}x", f"n{other:04d}x"):
        assert matches(pattern, candidate) is (candidate in names)


@given(st.lists(NAMES, max_size=12), st.randoms(use_true_random=False))
def test_the_natural_order_does_not_depend_on_the_order_before(names: list[str], random: object) -> None:
    shuffled = list(names)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert sorted(shuffled, key=natural_key) == sorted(names, key=natural_key)


def test_numbers_compare_by_value() -> None:
    assert sorted(["c10", "c2", "c1", "b", "c02", "c"], key=natural_key) == [
        "b",
        "c",
        "c1",
        "c02",
        "c2",
        "c10",
    ]


def test_a_number_of_any_length_has_its_place() -> None:
    assert natural_key("n" + "9" * 6000) < natural_key("n1" + "0" * 6000)


def test_selecting_gives_the_natural_order() -> None:
    assert select("c*/t", ["c10/t", "c2/t", "c1/x", "d/t"]) == ["c2/t", "c10/t"]


@pytest.mark.parametrize(("text", "expected"), [("client1", False), ("client*", True), ("c?", True), ("c[1-2]", True)])
def test_what_is_a_pattern(text: str, expected: bool) -> None:
    assert is_pattern(text) is expected
