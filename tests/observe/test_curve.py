from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.observe.curve import draw

LEARNING = [(r, 0.97 - 0.87 * math.exp(-r / 6)) for r in range(1, 31)]

EXPECTED = """\
      accuracy
1.00 +                                                ****************** 0.964
     |                        ************************
0.75 +                 *******
     |             ****
     |        *****
0.50 +      **
     |   ***
     |  *
0.25 +**
     |
0.00 +
     ++-------------------+----------------------+---------------------+
      1                  10                     20                    30 round
"""


def drawn(points: list[tuple[float, float]], unicode: bool = False, **options: int) -> str:
    return draw(points, x_label="round", y_label="accuracy", unicode=unicode, **options)


def test_a_learning_curve_in_ascii() -> None:
    assert drawn(LEARNING, width=78, height=11) == EXPECTED


def test_a_learning_curve_in_braille_has_the_same_axes() -> None:
    lines = drawn(LEARNING, unicode=True, height=10).splitlines()
    assert lines[0].strip() == "accuracy"
    assert any(line.endswith(" 0.964") for line in lines)
    assert lines[-2].lstrip().startswith("└┬─")
    assert lines[-1].split() == ["1", "10", "20", "30", "round"]
    dots = {char for line in lines for char in line if 0x2800 < ord(char) < 0x2900}
    assert len(dots) > 5


def test_the_whole_fits_into_eighty_columns() -> None:
    assert max(map(len, drawn(LEARNING, unicode=True).splitlines())) <= 80
    assert max(map(len, drawn([(0, 1e12), (1e6, -1e12)]).splitlines())) <= 80


def test_one_point_has_axes_around_it() -> None:
    lines = drawn([(1, 0.25)]).splitlines()
    assert sum(line.count("*") for line in lines) == 1
    assert lines[-1].split() == ["0", "1", "2", "round"]


def test_a_constant_is_a_level_line() -> None:
    lines = drawn([(1, 0.5), (9, 0.5)]).splitlines()
    assert [line for line in lines if "*" in line and line.endswith("0.500")]


@pytest.mark.parametrize("points", [[], [(1.0, math.nan)], [(math.inf, 1.0)], [(1.0, 1e300)]])
def test_without_a_point_it_says_so(points: list[tuple[float, float]]) -> None:
    assert drawn(points) == "accuracy by round: no points to draw\n"


def test_rounds_are_whole_numbers() -> None:
    for last in range(2, 60):
        labels = drawn([(1, 0.1), (last, 0.2)]).splitlines()[-1].split()
        assert all(label.isdigit() for label in labels[:-1]), labels


def test_quarters_keep_their_decimals() -> None:
    text = drawn([(0.0, 0.0), (1.0, 1.0)], height=12)
    assert "0.25 +" in text
    assert "1.00 +" in text


number = st.floats(allow_nan=True, allow_infinity=True)
pairs = st.lists(st.tuples(number, number), max_size=30)


@given(st.lists(st.tuples(number, number), max_size=30), st.integers(30, 120), st.integers(3, 30), st.booleans())
def test_no_points_can_break_it_or_the_width(
    points: list[tuple[float, float]], width: int, height: int, unicode: bool
) -> None:
    text = drawn(points, unicode=unicode, width=width, height=height)
    assert text.endswith("\n")
    lines = text.splitlines()
    assert max(map(len, lines)) <= max(width, 45)
    if len(lines) > 1:
        assert len(lines) == height + 3


@given(st.lists(st.tuples(st.integers(0, 1000), st.floats(-1e6, 1e6)), min_size=2, unique_by=lambda p: p[0]))
def test_the_highest_point_is_not_drawn_below_the_lowest(pairs: list[tuple[int, float]]) -> None:
    points = sorted((float(x), y) for x, y in pairs)
    rows = [index for index, line in enumerate(drawn(points).splitlines()[1:-2]) if "*" in line]
    assert rows
