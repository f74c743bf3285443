from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import ConfigError
from rolecall.core.patterns import matches
from rolecall.fleet.marks import Marks
from rolecall.fleet.values import Place, imported, resolved


def settled(value: Any, ordinal: int = 2, seed: int = 7, key: tuple[str, ...] = ("options",)) -> Any:
    place = Place(f"client{ordinal + 1}", f"client{ordinal + 1}/trainer", ordinal, 10, seed)
    return resolved(value, place, ("x",), Marks("app.yaml"), key)


def test_what_the_node_gives() -> None:
    assert settled({"index": "$ordinal", "of": "$count", "seed": "$seed"}) == {
        "index": 2,
        "of": 10,
        "seed": 7,
    }
    assert settled(["$node", "$role"]) == ["client3", "client3/trainer"]
    assert settled("part-$ordinal-of-$count.npz") == "part-2-of-10.npz"


def test_dollars() -> None:
    assert settled("$$ordinal costs $5 or $ 6, $$${x}") == "$ordinal costs $5 or $ 6, $${x}"


def test_a_range_and_a_cycle_give_one_value_for_each_node() -> None:
    def all_of(value: Any) -> list[Any]:
        return [settled(value, ordinal) for ordinal in range(5)]

    assert all_of({"$range": {"from": 1, "to": 9, "step": 2}}) == [1, 3, 5, 7, 9]
    assert all_of({"$range": {"from": 0.5, "step": 0.25}}) == [0.5, 0.75, 1.0, 1.25, 1.5]
    assert all_of({"$range": {"from": 5, "to": 1, "step": -1}}) == [5, 4, 3, 2, 1]
    assert all_of({"$cycle": ["a", "$node"]}) == ["a", "client2", "a", "client4", "a"]
    assert all_of({"$cycle": {"from": 1, "to": 3}}) == [1, 2, 3, 1, 2]
    assert all_of({"$range": {"from": 0.1, "to": 0.5, "step": 0.1}})[-1] == pytest.approx(0.5)


BOUNDS = st.tuples(*[st.floats(-1e300, 1e300)] * 2).map(sorted)


@given(BOUNDS, st.integers(0, 100), st.integers(0, 2**63 - 1))
def test_a_uniform_value_stays_in_its_bounds(bounds: list[float], ordinal: int, seed: int) -> None:
    low, high = bounds
    assert low <= settled({"$random": {"uniform": [low, high]}}, ordinal, seed) <= high


@given(st.tuples(*[st.floats(1e-300, 1e300)] * 2).map(sorted), st.integers(0, 2**40))
def test_a_loguniform_value_stays_in_its_bounds(bounds: list[float], seed: int) -> None:
    assert bounds[0] <= settled({"$random": {"loguniform": bounds}}, 0, seed) <= bounds[1]


@given(st.tuples(*[st.integers(-(10**20), 10**20)] * 2).map(sorted), st.integers(0, 2**40))
def test_a_whole_number_stays_in_its_bounds(bounds: list[int], seed: int) -> None:
    drawn = settled({"$random": {"integers": bounds}}, 0, seed)
    assert type(drawn) is int
    assert bounds[0] <= drawn <= bounds[1]


@given(st.lists(st.integers(), min_size=1, max_size=5), st.integers(0, 2**40))
def test_a_choice_is_one_of_the_list(items: list[int], seed: int) -> None:
    assert settled({"$random": {"choice": items}}, 0, seed) in items


def test_both_ends_of_a_whole_range_are_drawn() -> None:
    assert {settled({"$random": {"integers": [1, 3]}}, ordinal) for ordinal in range(60)} == {1, 2, 3}


@given(st.permutations(["lr", "wd", "speed", "name"]))
def test_a_random_value_does_not_depend_on_the_order_of_keys(order: list[str]) -> None:
    form = {"$random": {"uniform": [0, 1]}}
    assert settled(dict.fromkeys(order, form)) == settled(dict.fromkeys(sorted(order), form))


def test_random_values_differ_by_key_role_and_seed() -> None:
    form = {"$random": {"uniform": [0, 1]}}
    found = [
        settled(form),
        settled(form, 3),
        settled(form, seed=8),
        settled({"a": form})["a"],
        settled([form])[0],
    ]
    assert len(set(found)) == len(found)


def test_random_values_are_the_same_in_another_process() -> None:
    code = (
        "from rolecall.fleet.values import Place, resolved\nfrom rolecall.fleet.marks import Marks\n"
        "f = {'$random': {'uniform': [0, 1]}}\n"
        "print(resolved({'a': f, 'b': {'$random': {'choice': list('abcdef')}}}, Place('n', 'n/r', 0, "
        "1, 7), (), Marks('')))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for hashes in ("1", "2")
    }
    assert outputs == {"{'a': 0.9897675211418451, 'b': 'e'}\n"}


def test_objects_of_python_get_the_form_that_a_file_can_hold() -> None:
    live = object()
    found = settled({"a": (1, (2,)), "b": np.float64(0.5), "c": Path("x/y"), "d": matches, "e": live, "f": np.int64(3)})
    assert found == {
        "a": [1, [2]],
        "b": 0.5,
        "c": "x/y",
        "d": {"$import": "rolecall.core.patterns:matches"},
        "e": live,
        "f": 3,
    }
    assert type(found["b"]) is float
    assert imported(found, "app")["d"] is matches


def test_an_import_that_leads_nowhere_is_named() -> None:
    with pytest.raises(ConfigError, match=r"roles.a.options.fn: the module rolecall.core.patterns has no 'match'"):
        imported({"fn": {"$import": "rolecall.core.patterns:match"}}, "roles.a.options")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("$ordnal", r"app.yaml: x: \$ordnal has no meaning. Did you mean 'ordinal'"),
        ({"$rnd": 1}, r"there is no value \$rnd. .*\$random, \$range, \$cycle, \$import"),
        ({"$random": 3, "b": 1}, "stands beside other keys"),
        ({"$random": {"uniforn": [0, 1]}}, "expected one of .*Did you mean 'uniform'"),
        ({"$random": [0, 1]}, "found a list of 2, expected one of"),
        ({"$random": {"uniform": 3}}, "expected a list"),
        ({"$random": {"uniform": [1]}}, "expected .low, high., two finite numbers"),
        ({"$random": {"uniform": [0, float("inf")]}}, "two finite numbers"),
        ({"$random": {"uniform": [True, 2]}}, "two finite numbers"),
        ({"$random": {"uniform": [2, 1]}}, r"the lower bound first. Write \[1, 2\]"),
        ({"$random": {"loguniform": [0, 1]}}, "expected bounds above 0"),
        ({"$random": {"integers": [0.5, 1]}}, "two whole numbers"),
        ({"$random": {"choice": []}}, "expected a list"),
        ({"$range": {"from": 1, "to": 2}}, r"it has 2 values, for 10 nodes.*\$cycle"),
        ({"$range": [1, 2]}, "expected .from: ..., to: ..., step: ...."),
        ({"$range": {"from": 1, "stop": 2}}, "unknown key 'stop'"),
        ({"$range": {"from": "1"}}, "found '1', expected a number"),
        ({"$range": {"from": 1, "to": 5, "step": 0}}, "it never comes to 5 in steps of 0"),
        ({"$range": {"from": 1, "to": 5, "step": -1}}, "it never comes to 5"),
        ({"$cycle": []}, "expected a list or"),
        ({"$cycle": {"from": 1}}, "the key 'to' is missing"),
        ({"$import": 3}, "expected 'module:name'"),
        ({"$live": "list of ArrayDataset"}, r"list of ArrayDataset\). Pass the object from Python"),
    ],
)
def test_a_wrong_form_says_what_is_wrong(value: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        settled(value)
