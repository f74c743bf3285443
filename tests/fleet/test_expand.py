from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rolecall as rc
from rolecall.core.errors import ConfigError

Nodes = dict[str, rc.Node]


def app(**parts: Any) -> rc.App:
    return rc.App(**{"name": "x", "nodes": {"server": rc.Node(), "client[1-3]": rc.Node(device="edge")}, **parts})


def load(tmp_path: Path, text: str) -> rc.App:
    (tmp_path / "app.yaml").write_text(text)
    return rc.App.load(tmp_path / "app.yaml")


ROLE = rc.RoleSpec("m:Trainer", options={"index": "$ordinal", "of": "$count", "name": "$role"})


# ----------------------------------------------------------------------------------------- nodes and roles


def test_ranges_become_nodes_in_their_order() -> None:
    nodes = app(nodes={"b[9-11]": rc.Node(host="h"), "a": rc.Node()}).expanded().nodes
    assert list(nodes) == ["b9", "b10", "b11", "a"]
    assert nodes["b10"] == rc.Node(host="h")


def test_properties_of_nodes_may_differ() -> None:
    nodes = (
        app(nodes={"n[1-3]": rc.Node(device={"$cycle": ["edge", "phone"]}, address="h$ordinal:50")}).expanded().nodes
    )  # type: ignore[arg-type]
    assert [(node.device, node.address) for node in nodes.values()] == [
        ("edge", "h0:50"), ("phone", "h1:50"), ("edge", "h2:50")
    ]  # fmt: skip


def test_each_node_of_a_pattern_gets_the_role_with_values_of_its_own() -> None:
    roles = app(roles={"client*": {"trainer": ROLE}, "server": {"s": rc.RoleSpec("m:S")}}).expanded().roles
    assert list(roles) == ["server", "client1", "client2", "client3"]
    assert [roles[f"client{i}"]["trainer"].options for i in (1, 3)] == [
        {"index": 0, "of": 3, "name": "client1/trainer"}, {"index": 2, "of": 3, "name": "client3/trainer"}
    ]  # fmt: skip


def test_roles_of_one_node_from_several_keys_come_together() -> None:
    roles = app(roles={"*": {"a": ROLE}, "client[2-3]": {"b": ROLE}, "client2": {"c": ROLE}}).expanded().roles
    assert {node: list(names) for node, names in roles.items()} == {
        "server": ["a"], "client1": ["a"], "client2": ["a", "b", "c"], "client3": ["a", "b"]
    }  # fmt: skip
    assert roles["client2"]["b"].options["of"] == 2


def test_parameters_reach_every_part() -> None:
    expanded = app(
        name="run-${n}",
        parameters={"n": 2, "class": "m:T", "to": "client*/t", "degree": 1},
        nodes={"server": rc.Node(), "client[1-${n}]": rc.Node()},
        roles={"client*": {"t": rc.RoleSpec("${class}", options={"n": "${n}"})}},
        relationships={"client*/t": {"peers": rc.Topology("regular(${degree})", of="${to}")}},
        start=rc.Call("client${n}/t.run", {"n": "${n}"}),
        until=rc.After("${n}"),  # type: ignore[arg-type]
    ).expanded(["n=2"], seed=3)
    assert expanded.name == "run-2"
    assert expanded.roles["client2"]["t"] == rc.RoleSpec("m:T", options={"n": 2})
    assert expanded.relationships == {"client*/t": {"peers": rc.Topology("regular(1)", of="client*/t")}}
    assert expanded.start == [rc.Call("client2/t.run", {"n": 2})]
    assert expanded.until == rc.After(2.0)
    assert expanded.parameters == {"n": 2, "class": "m:T", "to": "client*/t", "degree": 1}


@given(st.permutations(["client1", "client2", "client10", "server"]))
def test_the_order_of_nodes_in_the_file_does_not_change_what_they_get(order: list[str]) -> None:
    options = {"lr": {"$random": {"uniform": [0, 1]}}, "index": "$ordinal"}
    roles = {"client*": {"t": rc.RoleSpec("m:T", options=options)}}
    expanded = app(nodes=dict.fromkeys(order, rc.Node()), roles=roles, seed=7).expanded()
    sorted_ = app(nodes=dict.fromkeys(sorted(order), rc.Node()), roles=roles, seed=7).expanded()
    assert expanded.roles == sorted_.roles
    assert [expanded.roles[f"client{i}"]["t"].options["index"] for i in (1, 2, 10)] == [0, 1, 2]


# ------------------------------------------------------------------------------------------------- presets


def test_a_preset_is_merged_below_the_roles_of_its_class() -> None:
    preset = rc.Preset(
        options={"lr": 0.1, "deep": {"a": 1, "b": 2}, "index": "$ordinal"},
        elements={
            "model": rc.ElementSpec("m:MLP", options={"hidden": 64, "layers": 2}, share="node"),
            "data": rc.ElementSpec("m:Data", options={"x": 1}),
            "rate": rc.ElementSpec(value=3),
        },
        extensions=["m:Tester"],
        on_failure="continue",
    )
    own = rc.RoleSpec(
        "m:Trainer",
        options={"lr": 0.5, "deep": {"b": 3}},
        elements={
            "model": rc.ElementSpec(options={"hidden": 8}),
            "data": rc.ElementSpec(factory="m:shard"),
            "more": rc.ElementSpec("m:More"),
        },
        extensions=["m:Prober", "m:Tester"],
    )
    expanded = app(
        presets={"m:Trainer": preset}, roles={"client*": {"t": own}, "server": {"o": rc.RoleSpec("m:O")}}
    ).expanded()
    role = expanded.roles["client2"]["t"]
    assert role.options == {"lr": 0.5, "deep": {"a": 1, "b": 3}, "index": 1}
    assert role.elements == {
        "model": rc.ElementSpec("m:MLP", options={"hidden": 8, "layers": 2}, share="node"),
        "data": rc.ElementSpec(factory="m:shard"),
        "rate": rc.ElementSpec(value=3),
        "more": rc.ElementSpec("m:More"),
    }
    assert role.extensions == ["m:Tester", "m:Prober"]
    assert role.on_failure == "continue"
    assert expanded.roles["server"]["o"] == rc.RoleSpec("m:O")
    assert expanded.presets == {}


def test_a_preset_that_no_role_has_is_a_slip_unless_it_was_included(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"presets.m:Trainr: no role is of this class. Did you mean 'm:Trainer'"):
        app(presets={"m:Trainr": rc.Preset()}, roles={"client1": {"t": ROLE}}).expanded()
    (tmp_path / "lib.yaml").write_text("presets: {'m:Other': {}}\n")
    load(tmp_path, "include: lib.yaml\nname: x\nnodes: {a: }\n").expanded()


def test_what_a_preset_says_wrongly_is_found_where_it_says_it(tmp_path: Path) -> None:
    text = "name: x\nnodes: {a: }\nroles: {a: {r: {class: m:A}}}\n"
    text += "presets:\n  m:A:\n    options:\n      x: $nod\n"
    with pytest.raises(ConfigError, match=r"app.yaml:7: presets.m:A.options.x: .nod has no meaning"):
        load(tmp_path, text).expanded()


# ------------------------------------------------------------------------------------------ seed and again


def test_the_seed_is_the_one_given_or_the_files_or_a_new_one() -> None:
    assert app(seed=5).expanded(seed=7).seed == 7
    assert app(seed=5).expanded().seed == 5
    drawn = {app().expanded().seed for _ in range(3)}
    assert len(drawn) == 3
    assert all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in drawn)
    with pytest.raises(ConfigError, match="seed: found -1, expected a whole number from 0"):
        app(seed=-1).expanded()


def test_expanding_twice_changes_nothing_but_the_seed() -> None:
    options = {"lr": {"$random": {"uniform": [0, 1]}}, "text": "$$ordinal $${x}"}
    once = app(roles={"client*": {"t": rc.RoleSpec("m:T", options=options)}}).expanded(seed=1)
    assert once.roles["client1"]["t"].options["text"] == "$ordinal ${x}"
    assert once.expanded() is once
    again = once.expanded(seed=9)
    assert (again.seed, again.roles) == (9, once.roles)
    with pytest.raises(ConfigError, match="it is expanded already, so `--set a=1` has no effect"):
        once.expanded(["a=1"])


def test_paths_lead_on_from_the_directory_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "edges.txt").write_text("a b\n")
    expanded = load(
        tmp_path,
        "name: x\nnodes: {a: , b: }\nroles: {'*': {r: {class: m:A}}}\nimport_from: [src]\n"
        "relationships: {'*/r': {peers: {topology: file(edges.txt), of: '*/r'}}}\n",
    ).expanded()
    assert expanded.import_from == [str(tmp_path), str(tmp_path / "src")]
    assert expanded.relationships["*/r"]["peers"] == rc.Topology(f"file({tmp_path}/edges.txt)", of="*/r")
    assert app().expanded().import_from == []


# --------------------------------------------------------------------------------------------------- calls


def test_a_pattern_in_start_becomes_a_call_for_each_role() -> None:
    start = [rc.Call("client*/t.run", {"index": "$ordinal", "who": "$node"}), "server/s.go"]
    roles = {"client*": {"t": ROLE}, "server": {"s": ROLE}}
    assert app(roles=roles, start=start).expanded().start == [
        rc.Call("client1/t.run", {"index": 0, "who": "client1"}),
        rc.Call("client2/t.run", {"index": 1, "who": "client2"}),
        rc.Call("client3/t.run", {"index": 2, "who": "client3"}),
        "server/s.go",
    ]
    assert app(roles=roles, start="client*/t.run").expanded().start == [f"client{i}/t.run" for i in (1, 2, 3)]
    assert app(roles=roles).expanded().start is None


# -------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"nodes": {"c[3-1]": rc.Node()}}, r"app 'x': nodes.c\[3-1\]: .*runs backwards"),
        ({"nodes": {"c*": rc.Node()}}, "nodes are named one by one or by a range"),
        ({"nodes": {"a b": rc.Node()}}, "'a b' cannot name a node"),
        ({"nodes": {"a/b": rc.Node()}}, "'a/b' cannot name a node"),
        (
            {"nodes": {"c[1-2]": rc.Node(), "c2": rc.Node()}},
            r"nodes.c2: the node 'c2' is also made by 'c\[1-2\]'",
        ),
        ({"nodes": {"c": rc.Node(device=["x"])}}, "nodes.c.device: found a list of 1, expected text"),
        (
            {"roles": {"clint*": {"t": ROLE}}},
            r"roles.clint\*: no node matches 'clint\*'. Did you mean 'client\*'",
        ),
        (
            {"roles": {"clinet1": {"t": ROLE}}},
            "there is no node 'clinet1'. Did you mean 'client1'.*The nodes are: server",
        ),
        ({"roles": {"client[1-9]": {"t": ROLE}}}, r"roles.client\[1-9\]: there is no node 'client4'"),
        ({"roles": {"client[1-": {"t": ROLE}}}, "bracket without its partner"),
        ({"roles": {"client1": {"a b": ROLE}}}, "'a b' cannot name a node or a role"),
        ({"roles": {"client1": {"node": ROLE}}}, "every node has a role 'node' of its own"),
        (
            {"roles": {"client*": {"t": ROLE}, "client2": {"t": ROLE}}},
            r"roles.client2.t: the role 't' on the node 'client2' is there already, from app 'x': "
            r"roles.client\*.t",
        ),
        (
            {"roles": {"client1": {"t": rc.RoleSpec("m:T", elements={"e": rc.ElementSpec()})}}},
            "nothing says what this element",
        ),
        (
            {"roles": {"client1": {"t": rc.RoleSpec("m:T", elements={"e": rc.ElementSpec("m:E", factory="m:f")})}}},
            "client1.t.elements.e: found class and factory, expected exactly one",
        ),
        (
            {
                "roles": {
                    "client1": {"t": rc.RoleSpec("m:T", elements={"e": rc.ElementSpec(value=1, options={"a": 1})})}
                }
            },
            "elements.e.options: a value takes no options",
        ),
        ({"start": "run"}, "start: found 'run', expected node/role.channel"),
        ({"start": ["server.run"]}, r"start\[0\]: found 'server.run', expected node/role.channel"),
        ({"start": "clint*/t.run"}, r"no role matches 'clint\*/t'"),
        ({"start": "client[1-/t.run"}, "bracket without its partner"),
        ({"start": "server/c.run"}, "start: there is no role 'server/c'"),
        ({"name": "../x"}, "name: found '../x', expected up to 100"),
        ({"name": ""}, "name: found '', expected"),
        ({"until": rc.After(0)}, "until.seconds: found 0.0, expected a time above 0"),
        ({"limits": rc.Limits(mailbox_bytes=0)}, "limits.mailbox_bytes: found 0, expected at least 1"),
        (
            {"parameters": {"a": 1}, "name": "${b}"},
            r"app '\$.b.': name: there is no parameter 'b'.*The parameters are: a",
        ),
    ],
)
def test_what_cannot_be_expanded_says_why(parts: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        app(**parts).expanded()
