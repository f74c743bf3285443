from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import ConfigError
from rolecall.fleet.yaml_tree import COPIES_LIMIT, DEPTH_LIMIT, dump, read

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(
        [
            "1e-3",
            "no",
            "yes",
            "on",
            "12:30",
            "010",
            "0o7",
            "~",
            "",
            "null",
            "<<",
            "=",
            "2024-01-01",
            "1_0",
            "$x",
            "${a}",
            "a: b",
            "# x",
            "-",
            "[",
            "1.",
            ".5",
            "+1",
            "0x1f",
            ".inf",
            "!!str",
        ]
    )
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
)


@given(TREES)
def test_what_is_written_is_read_again(tree: Any) -> None:
    assert read(dump(tree), "f").tree == tree


def test_not_a_number_is_written_and_read() -> None:
    assert math.isnan(read(dump({"x": math.nan}), "f").tree["x"])


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-1E6", -1e6),
        ("010", 10),
        ("0x1F", 31),
        ("0o17", 15),
        ("60_000", 60000),
        ("true", True),
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("~", None),
        ("", None),
        ("2024-01-01", "2024-01-01"),
        ("-.inf", -math.inf),
        ("'1'", "1"),
        ("!!str 5", "5"),
        ("dirichlet(0.5)",) * 2,
    ],
)
def test_scalars_mean_what_yaml_1_2_says(text: str, value: object) -> None:
    found = read(text, "f").tree
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_item_has_its_line() -> None:
    places = read("a: 1\nb:\n  - x\n  - y: 2\n", "app.yaml").places
    lines = {".".join(map(str, path)): mark.line for path, mark in places.items()}
    assert lines == {"a": 1, "b": 2, "b.0": 3, "b.1": 4, "b.1.y": 4}
    assert places["b", 1, "y"].file == "app.yaml"


def test_anchors_and_merges() -> None:
    text = "base: &b {x: 1, y: 2}\none: {<<: *b, y: 3}\ntwo: {<<: [{z: 0}, *b]}\nthree: *b\n"
    tree = read(text, "f").tree
    assert tree["one"] == {"x": 1, "y": 3}
    assert tree["two"] == {"x": 1, "y": 2, "z": 0}
    assert tree["three"] == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "f.yaml:3: the key 'a' is here twice, first in line 1"),
        ("a:\n  b: 1\n  b: 2", "f.yaml:3: a: the key 'b' is here twice, first in line 2"),
        (
            "a: !!python/object/apply:os.system [echo]",
            "the tag !!python/object/apply:os.system is not supported",
        ),
        ("a: !include other.yaml", "`include: \\[other.yaml\\]`"),
        ("a: &x [*x]", "never ends"),
        ("a: &x {<<: *x}", "never ends"),
        ("a: *x", "undefined alias 'x'"),
        ("a: b: c", "f.yaml:1: this is not readable as YAML.*quotes"),
        ("a:\n\t- b", "f.yaml:2: .*no tabs"),
        ("a: 1\n---\nb: 1", "second document"),
        ("? [1, 2]\n: 3", "a key must be text or a number"),
        ("a: " + "9" * 200, "200 digits is too long"),
        ("a: \x07", "special characters"),
        ("a: !!int x", "'x' cannot be read as the !!int"),
        ("<<: 3", "merges a mapping"),
        ("- <<", "no meaning here"),
    ],
)
def test_what_cannot_be_read_says_why(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        read(text, "f.yaml")


def test_a_bomb_of_aliases_is_refused() -> None:
    lines = ["a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(ConfigError, match=f"aliases repeat more than {COPIES_LIMIT:,}"):
        read("\n".join(lines), "f")


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 1000, "\n".join(" " * i + "a:" for i in range(1000))])
def test_depth_is_bounded(text: str) -> None:
    with pytest.raises(ConfigError, match=f"more than {DEPTH_LIMIT} deep"):
        read(text, "f")


@given(st.text(max_size=60) | st.text("[]{}:-,&*!#'\"\n a1<", max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read(text, "f")
    except ConfigError as error:
        assert str(error).startswith("f")
