from __future__ import annotations

from typing import Any

import pytest

from rolecall.core.errors import ConfigError
from rolecall.fleet.marks import Marks
from rolecall.fleet.parameters import Parameters, overridden

TREE: dict[str, Any] = {
    "rounds": 30, "fraction": 0.5, "fast": True, "sizes": [1, 2], "none": None,
    "data": {"dataset": "digits", "parts": 3}, "lr": {"$random": {"uniform": [0, 1]}},
}  # fmt: skip


def replaced(value: Any, tree: dict[str, Any] = TREE) -> Any:
    return Parameters(tree, Marks("app.yaml")).replaced(value, ("x",))


def test_a_whole_value_keeps_its_type_and_a_part_becomes_text() -> None:
    assert replaced("${rounds}") == 30
    assert replaced("${ data.dataset }") == "digits"
    assert replaced("${data}") == {"dataset": "digits", "parts": 3}
    assert replaced("${sizes}") == [1, 2]
    assert replaced("${lr}") == {"$random": {"uniform": [0, 1]}}
    assert replaced("n=${rounds}, ${data.dataset}-${fast}") == "n=30, digits-true"
    assert replaced(["${rounds}", {"client[1-${rounds}]": 1}]) == [30, {"client[1-30]": 1}]


def test_a_doubled_dollar_refers_to_nothing() -> None:
    assert replaced("$${rounds}") == "$${rounds}"  # `values` makes it one
    assert replaced("$ordinal $5 {rounds}") == "$ordinal $5 {rounds}"


def test_other_objects_stay_what_they_are() -> None:
    value = object()
    assert replaced({"a": value})["a"] is value


def test_parameters_refer_to_each_other() -> None:
    tree = {"a": "${b.c}", "b": {"c": "${d}"}, "d": 7}
    assert Parameters(tree, Marks("f")).resolved() == {"a": 7, "b": {"c": 7}, "d": 7}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("${round}", "app.yaml: x: there is no parameter 'round'. Did you mean 'rounds'.*data.dataset"),
        ("${data.datset}", "Did you mean 'data.dataset'"),
        ("${rounds.x}", "there is no parameter 'rounds.x'"),
        ("${}", "there is no parameter ''"),
        ("${ordinal}", r"Write \$ordinal"),
        ("a${data}", "cannot stand inside a text"),
        ("a${none}", "is nothing and cannot stand inside a text"),
    ],
)
def test_a_wrong_reference_says_what_there_is(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        replaced(text)


def test_a_circle_is_named() -> None:
    with pytest.raises(ConfigError, match="in a circle: a -> b -> a"):
        replaced("${a}", {"a": "${b}", "b": "${a}"})


def test_two_keys_that_become_one_are_refused() -> None:
    with pytest.raises(ConfigError, match="with its parameters the key is 'n30', as another is"):
        replaced({"n30": 1, "n${rounds}": 2})


@pytest.mark.parametrize(
    ("sets", "name", "value"),
    [
        ("rounds=3", "rounds", 3),
        ("rounds = 3", "rounds", 3),
        ("rounds=1e2", "rounds", 100.0),
        ("fraction=1", "fraction", 1),
        ("fast=false", "fast", False),
        ("sizes=[4, 5, 6]", "sizes", [4, 5, 6]),
        ("none={a: 1}", "none", {"a": 1}),
        ("rounds=${fraction}", "rounds", "${fraction}"),
        ("rounds={$cycle: [1, 2]}", "rounds", {"$cycle": [1, 2]}),
        ("data.dataset=12", "data", {"dataset": "12", "parts": 3}),
        ("data.dataset=", "data", {"dataset": "", "parts": 3}),
        ("data={dataset: cifar-10}", "data", {"dataset": "cifar-10", "parts": 3}),
    ],
)
def test_an_override_is_yaml_of_the_kind_of_the_default(sets: str, name: str, value: object) -> None:
    assert overridden(TREE, [sets])[name] == value


def test_overriding_leaves_the_defaults_alone_and_the_last_one_wins() -> None:
    assert overridden(TREE, ["data.parts=4", "data.parts=5"])["data"]["parts"] == 5
    assert TREE["data"] == {"dataset": "digits", "parts": 3}


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        ("rounds", "--set rounds: found 'rounds', expected NAME=VALUE. The parameters are: rounds, fraction"),
        ("=3", "expected NAME=VALUE"),
        ("round=3", "there is no parameter 'round'. Did you mean 'rounds'"),
        ("data.datset=3", "there is no parameter 'data.datset'. Did you mean 'data.dataset'"),
        ("rounds.x=3", "there is no parameter 'rounds.x'"),
        ("rounds=many", "found 'many', expected a number, as the default 30 is"),
        ("rounds=true", "found True, expected a number"),
        ("rounds=", "found nothing, expected a number"),
        ("fast=3", "found 3, expected true or false"),
        ("sizes=3", "found 3, expected a list"),
        ("data=3", "found 3, but this is a group of parameters. The parameters are: dataset, parts"),
        ("data={datset: x}", "no parameter 'datset' in it. Did you mean 'dataset'"),
        ("sizes=[1", r"--set sizes=\[1:1: this is not readable as YAML"),
    ],
)
def test_a_wrong_override_says_what_there_is(sets: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        overridden(TREE, [sets])


def test_without_parameters_that_is_said() -> None:
    with pytest.raises(ConfigError, match="The application has no parameters"):
        overridden({}, ["a=1"])
