from __future__ import annotations

from typing import Any

import pytest

import rolecall as rc
from rolecall.core.errors import ConfigError
from rolecall.fleet.relations import relationships_of
from rolecall.fleet.structure import calls, role_ids


def app(relationships: Any, **parts: Any) -> rc.App:
    return rc.App(
        name="x",
        nodes={"server": rc.Node(), "client[1-5]": rc.Node()},
        roles={
            "server": {"main": rc.RoleSpec("m:S")},
            "client*": {"g": rc.RoleSpec("m:G"), "t": rc.RoleSpec("m:T")},
        },
        relationships=relationships,
        **parts,
    )


@pytest.mark.parametrize(
    "relationships",
    [
        {"server": {"a": "client*/t"}},
        {"server": {"a": ["client1/t", "client[2-3]/g"], "b": []}},
        {"server": {"a": rc.Later("joiner*/t")}},
        {"server": {"a": "client*/node"}},
        {"client*": {"a": rc.Alias("b"), "b": "server/main"}},
        {"client*": {"a": rc.Alias("g")}},  # the role of that name on the same node
        {"client*/g": {"a": rc.Topology("ring", of="client*/g")}},
        {"client*": {"a": rc.Topology("ring", of="client*/g")}},
        {"client*": {"a": "server/main"}, "client2": {"a": "client1/t"}, "client*/t": {"a": "client3/t"}},
    ],
)
def test_relationships_that_lead_somewhere(relationships: Any) -> None:
    assert app(relationships).expanded().relationships == relationships


@pytest.mark.parametrize(
    ("relationships", "says"),
    [
        (
            {"servr": {"a": "client*/t"}},
            "relationships.servr: there is no node 'servr'. Did you mean 'server'",
        ),
        ({"clint*": {"a": "client*/t"}}, r"no node matches 'clint\*'. Did you mean 'client\*'"),
        ({"client*/tt": {"a": "client*/t"}}, r"no role matches 'client\*/tt'. Did you mean 'client\*/t'"),
        ({"client[1-": {"a": "client*/t"}}, "bracket without its partner"),
        (
            {"server": {"a": "client*"}},
            r"server.a: found 'client\*', expected node/role.* Write client\*/NAME",
        ),
        ({"server": {"a": "a/b/c"}}, "found 'a/b/c', expected node/role"),
        (
            {"server": {"a": "client9/t"}},
            "there is no role 'client9/t'. Did you mean 'client.*/t'.*write {later: client9/t}",
        ),
        ({"server": {"a": ["client1/t", "clientt*/t"]}}, r"server.a\[1\]: no role matches 'clientt\*/t'"),
        ({"server": {"a": "*/node*"}}, "no role matches"),
        ({"server": {"a": rc.Later("x")}}, "a.later: found 'x', expected node/role"),
        (
            {"server": {"a": rc.Alias("b"), "bb": "client1/t"}},
            r"a.alias: server/main has no relationship 'b'. .*a, bb",
        ),
        (
            {"client*": {"a": rc.Alias("b"), "b": rc.Alias("a")}},
            "the aliases of client1/g lead in a circle: a -> b -> a",
        ),
        (
            {"client*/g": {"a": rc.Topology("rng", of="client*/g")}},
            "a.topology: .*no such topology. Did you mean 'ring'",
        ),
        (
            {"client*/g": {"a": rc.Topology("regular(3)", of="client*/g")}},
            "one of the two numbers must be even",
        ),
        ({"client*/g": {"a": rc.Topology("ring", of="client*/x")}}, r"a.of: no role matches 'client\*/x'"),
        ({"client*/t": {"a": rc.Topology("ring", of="client*/g")}}, r"client1/t is not among client\*/g"),
        ({"server": {"a": rc.Topology("ring", of="client*/g")}}, r"server/main is not among client\*/g"),
        (
            {"client*": {"a": "client1/t"}, "*": {"a": "client2/t"}},
            r"client1/g has the relationship 'a' from '\*' as well",
        ),
    ],
)
def test_relationships_that_lead_nowhere(relationships: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        app(relationships).expanded()


def test_a_role_is_stronger_than_its_node_and_a_name_than_a_pattern() -> None:
    expanded = app(
        {
            "client2/t": {"a": "client4/t"},
            "client*/t": {"a": "client3/t"},
            "client2": {"a": "client2/t", "b": "server/main"},
            "client*": {"a": "client1/t"},
        }
    ).expanded()

    def target(role: str) -> Any:
        return relationships_of(expanded, role)["a"]

    assert target("client1/g") == ("client*", "client1/t")
    assert target("client2/g") == ("client2", "client2/t")
    assert target("client1/t") == ("client*/t", "client3/t")
    assert target("client2/t") == ("client2/t", "client4/t")
    assert set(relationships_of(expanded, "client2/t")) == {"a", "b"}
    assert relationships_of(expanded, "server/main") == {}


def test_what_an_engine_asks_for() -> None:
    expanded = app({}, start=["server/main.run", rc.Call("client*/t.go", {"n": 1})]).expanded()
    assert role_ids(expanded)[:3] == ["server/main", "client1/g", "client1/t"]
    assert [call.call for call in calls(expanded)] == [
        "server/main.run",
        *(f"client{i}/t.go" for i in range(1, 6)),
    ]


def test_an_expanded_file_that_was_changed_by_hand_is_checked_again() -> None:
    broken = rc.App(name="x", nodes={"a": rc.Node()}, roles={"b": {"r": rc.RoleSpec("m:R")}}, is_expanded=True, seed=1)
    with pytest.raises(ConfigError, match=r"roles.b: there is no node 'b'"):
        broken.check()
