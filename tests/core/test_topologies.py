from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.core.errors import ConfigError
from rolecall.core.topologies import check, neighbours, topologies

MEMBERS = [f"client{index}/gossip" for index in range(1, 11)]
ALL = [
    "complete",
    "ring",
    "line",
    "star",
    "star(client4)",
    "grid",
    "regular(4)",
    "small-world(4, 0.2)",
    "random(0.5)",
]


def reachable(graph: dict[str, list[str]], start: str) -> set[str]:
    found, to_visit = {start}, [start]
    while to_visit:
        new = [other for other in graph[to_visit.pop()] if other not in found]
        found.update(new)
        to_visit.extend(new)
    return found


@pytest.mark.parametrize("spec", ALL)
def test_a_graph_is_undirected_connected_and_in_natural_order(spec: str) -> None:
    graph = neighbours(spec, MEMBERS, seed=3)
    assert list(graph) == MEMBERS
    assert reachable(graph, MEMBERS[0]) == set(MEMBERS)
    for member, others in graph.items():
        assert member not in others
        assert others == [name for name in MEMBERS if name in others]
        assert all(member in graph[other] for other in others)


@pytest.mark.parametrize("spec", ALL)
def test_the_order_of_the_members_does_not_matter(spec: str) -> None:
    assert neighbours(spec, MEMBERS[::-1], seed=3) == neighbours(spec, MEMBERS, seed=3)


@pytest.mark.parametrize("spec", [spec for spec in ALL if "client4" not in spec])
def test_a_member_alone_has_no_neighbours(spec: str) -> None:
    assert neighbours(spec, ["a/b"], seed=1) == {"a/b": []}
    assert neighbours(spec, [], seed=1) == {}


def test_shapes() -> None:
    assert neighbours("ring", ["a", "b", "c", "d"])["a"] == ["b", "d"]
    assert neighbours("ring", ["a", "b"]) == {"a": ["b"], "b": ["a"]}
    assert neighbours("line", ["a", "b", "c"]) == {"a": ["b"], "b": ["a", "c"], "c": ["b"]}
    assert neighbours("star", ["b", "a", "c"]) == {"a": ["b", "c"], "b": ["a"], "c": ["a"]}
    assert neighbours("star(c)", ["a/x", "b/x", "c/x"])["c/x"] == ["a/x", "b/x"]
    assert neighbours("complete", ["a", "b", "c"])["b"] == ["a", "c"]
    assert neighbours("grid", list("abcdef")) == {
        "a": ["b", "d"],
        "b": ["a", "c", "e"],
        "c": ["b", "f"],
        "d": ["a", "e"],
        "e": ["b", "d", "f"],
        "f": ["c", "e"],
    }


@given(st.integers(2, 40))
def test_a_grid_holds_any_number(size: int) -> None:
    graph = neighbours("grid", [f"n{index}" for index in range(size)])
    assert reachable(graph, "n0") == set(graph)
    assert max(len(others) for others in graph.values()) <= 4


@given(st.integers(1, 12), st.integers(0, 9))
def test_a_regular_graph_gives_everybody_as_many(half: int, seed: int) -> None:
    members = [f"n{index}" for index in range(2 * half + 3)]
    graph = neighbours("regular(2)", members, seed)
    assert {len(others) for others in graph.values()} == {2}


def test_seeds_give_different_graphs_and_each_seed_the_same() -> None:
    graphs = [neighbours("regular(4)", MEMBERS, seed) for seed in range(8)]
    assert len({str(graph) for graph in graphs}) > 4
    assert graphs[3] == neighbours("regular(4)", MEMBERS, 3)


def test_another_process_with_other_hashes_draws_the_same_graph() -> None:
    specs = ["regular(4)", "small-world(4, 0.3)", "random(0.4)"]
    code = f"from rolecall.core.topologies import neighbours\nprint([neighbours(s, {MEMBERS}, 5) for s in {specs}])"
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PYTHONHASHSEED": hashes},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str([neighbours(spec, MEMBERS, 5) for spec in specs])


def test_the_lists_are_the_callers_own() -> None:
    neighbours("ring", MEMBERS)[MEMBERS[0]].clear()
    assert len(neighbours("ring", MEMBERS)[MEMBERS[0]]) == 2


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("rng", "Did you mean 'ring'"),
        ("ring(3)", "written ring"),
        ("regular", r"written regular\(K\)"),
        ("regular(4", "closing parenthesis"),
        ("regular(four)", "'four', expected a whole number"),
        ("regular(0)", "at least one neighbour"),
        ("regular(10)", "10 members cannot have 10 neighbours each. Use at most 9"),
        ("random(2)", "expected a number from 0 to 1"),
        ("random(nan)", "expected a number from 0 to 1"),
        ("random(0.01)", "no graph connected all 10"),
        ("small-world(3, 0.1)", "Use an even number"),
        ("small-world(4)", r"written small-world\(K, P\)"),
        ("star(client11)", "its centre is not among the members. Did you mean"),
        ("file(/nowhere/edges.txt)", "cannot be read"),
    ],
)
def test_a_topology_that_cannot_be_made_says_why(spec: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        neighbours(spec, MEMBERS)


def test_an_odd_product_names_a_way_out() -> None:
    with pytest.raises(ConfigError, match=r"one of the two numbers must be even. Use regular\(4\)"):
        neighbours("regular(3)", MEMBERS[:5])


def test_a_specification_is_checked_without_members() -> None:
    check("regular(400)")
    with pytest.raises(ConfigError, match="no such topology"):
        check("torus")
    assert "regular(K)" in topologies()


def test_edges_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "edges.txt"
    file.write_text("# the plant\nclient1 client2\nclient2/gossip client3  # a slow one\nclient1 client99\n\n")
    graph = neighbours(f"file({file})", MEMBERS[:4])
    assert graph == {
        MEMBERS[0]: [MEMBERS[1]],
        MEMBERS[1]: [MEMBERS[0], MEMBERS[2]],
        MEMBERS[2]: [MEMBERS[1]],
        MEMBERS[3]: [],
    }


def test_a_wrong_line_in_a_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "edges.txt"
    file.write_text("client1 client2\nclient1\n")
    with pytest.raises(ConfigError, match=r"edges.txt:2: found 1 names, expected two"):
        neighbours(f"file({file})", MEMBERS)


def test_a_node_with_two_members_must_be_told_apart(tmp_path: Path) -> None:
    file = tmp_path / "edges.txt"
    file.write_text("a b\n")
    with pytest.raises(ConfigError, match="'a' could be a/x or a/y"):
        neighbours(f"file({file})", ["a/x", "a/y", "b/x"])
