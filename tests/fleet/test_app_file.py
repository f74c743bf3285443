from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rolecall as rc
from rolecall.core.errors import ConfigError
from rolecall.core.patterns import matches
from rolecall.fleet.app_file import merged


class Trainer(rc.Role):
    """A role that can be named, since this module stays imported."""


FULL = """
name: fedavg-digits
parameters: {rounds: 30, data: {dataset: digits}}
nodes:
  server:
  client[1-10]: {device: edge, network: lan, address: "127.0.0.1:5000", host: h}
roles:
  server:
    coordinator:
      {class: m:Coordinator, options: {rounds: "${rounds}"}, on_failure: continue, extensions: m:Tester}
  client*:
    trainer:
      class: m:Trainer
      elements:
        model:
          {class: m:MLP, options: {hidden: 64}, initialize: m:init, share: node, save: a.st, restore: b.st}
        data: {factory: m:shard, options: {index: $ordinal, of: $count}}
        rate: {value: 0.5}
relationships:
  server: {trainers: client*/trainer, both: [a/b, c/d], other: {alias: trainers}, new: {later: x*/y}}
  client*/gossip: {peers: {topology: "regular(4)", of: client*/gossip}}
presets:
  m:Trainer: {options: {lr: 0.1}, elements: {model: {options: {hidden: 3}}}}
start: [server/coordinator.run, {call: a/b.c, with: {n: 3}}]
until: {seconds: 30}
on_failure: continue
seed: 7
limits: {mailbox_messages: 10, mailbox_bytes: 1000, compute_threads: 2}
import_from: [src]
"""


def in_python() -> rc.App:
    return rc.App(
        name="fedavg-digits",
        parameters={"rounds": 30, "data": {"dataset": "digits"}},
        nodes={
            "server": rc.Node(),
            "client[1-10]": rc.Node(device="edge", network="lan", address="127.0.0.1:5000", host="h"),
        },
        roles={
            "server": {
                "coordinator": rc.RoleSpec(
                    "m:Coordinator",
                    options={"rounds": "${rounds}"},
                    on_failure="continue",
                    extensions=["m:Tester"],
                )
            },
            "client*": {
                "trainer": rc.RoleSpec(
                    "m:Trainer",
                    elements={
                        "model": rc.ElementSpec(
                            "m:MLP",
                            options={"hidden": 64},
                            initialize="m:init",
                            share="node",
                            save="a.st",
                            restore="b.st",
                        ),
                        "data": rc.ElementSpec(factory="m:shard", options={"index": "$ordinal", "of": "$count"}),
                        "rate": rc.ElementSpec(value=0.5),
                    },
                )
            },
        },
        relationships={
            "server": {
                "trainers": "client*/trainer",
                "both": ["a/b", "c/d"],
                "other": rc.Alias("trainers"),
                "new": rc.Later("x*/y"),
            },
            "client*/gossip": {"peers": rc.Topology("regular(4)", of="client*/gossip")},
        },
        presets={"m:Trainer": rc.Preset({"lr": 0.1}, {"model": rc.ElementSpec(options={"hidden": 3})})},
        start=["server/coordinator.run", rc.Call("a/b.c", {"n": 3})],
        until=rc.After(30.0),
        on_failure="continue",
        seed=7,
        limits=rc.Limits(10, 1000, 2),
        import_from=["src"],
    )


def load(tmp_path: Path, text: str, name: str = "app.yaml") -> rc.App:
    (tmp_path / name).write_text(text)
    return rc.App.load(tmp_path / name)


def test_a_file_and_python_say_the_same(tmp_path: Path) -> None:
    app = load(tmp_path, FULL)
    assert app == in_python()
    app.save(tmp_path / "saved.yaml")
    assert rc.App.load(tmp_path / "saved.yaml") == app
    in_python().save(tmp_path / "python.yaml")
    assert (tmp_path / "python.yaml").read_text() == (tmp_path / "saved.yaml").read_text()


def test_a_call_and_its_parts() -> None:
    call = rc.Call("server/v1.coordinator.run")
    assert (call.role, call.channel) == ("server/v1.coordinator", "run")


# -------------------------------------------------------------------------------------------------- shapes


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("name: fedavg-digits", "name: [1]", "app.yaml:2: name: found a list of 1, expected text"),
        (
            "name: fedavg-digits",
            "nmae: x",
            "app.yaml:2: nmae: unknown key 'nmae' in an application. Did you mean 'name'",
        ),
        ("name: fedavg-digits\n", "", "app.yaml: the key 'name' is missing in an application"),
        ("name: fedavg-digits", "name: x\ninclud: a.yaml", "Did you mean 'include'"),
        (
            "device: edge",
            "devise: edge",
            r"app.yaml:6: nodes.client\[1-10\].devise: unknown key .*Did you mean 'device'",
        ),
        ("  server:\n  client", "  - server\n  - client", "app.yaml"),
        (
            "class: m:Coordinator,",
            "",
            "app.yaml:9: roles.server.coordinator: the key 'class' is missing in a role",
        ),
        ("class: m:Coordinator", "class: 3", "found 3, expected a class. It is written module:ClassName"),
        ("factory: m:shard", "factory: ''", "found '', expected a callable"),
        ("on_failure: continue,", "on_failure: retry,", "found 'retry', expected 'fail' or 'continue'"),
        ("share: node", "share: all", "expected 'role' or 'node'"),
        ("save: a.st", "save: 3", "model.save: found 3, expected text"),
        (
            "{hidden: 64}",
            "[64]",
            "app.yaml:16: .*model.options: found a list of 1, expected a mapping from names",
        ),
        ("{hidden: 64}", "{3: 64}", 'the key 3 is not text. Write "3"'),
        ("[a/b, c/d]", "[a/b, 3]", r"app.yaml:20: relationships.server.both\[1\]: found 3, expected a role"),
        (
            "{alias: trainers}",
            "{alais: trainers}",
            r"found a mapping \(alais\), expected .*Did you mean 'alias'",
        ),
        ("{alias: trainers}", "{alias: 3}", "other.alias: found 3, expected text"),
        ("of: client*/gossip", "off: x", "unknown key 'off' in a topology. Did you mean 'of'"),
        (
            "with: {n: 3}",
            "wiht: {n: 3}",
            r"start\[1\].wiht: unknown key 'wiht' in a call. Did you mean 'with'",
        ),
        ("[server/coordinator.run, ", "[3, ", r"app.yaml:24: start\[0\]: found 3, expected a call"),
        ("{seconds: 30}", "{minutes: 30}", "expected 'all-returned', 'stopped' or {seconds: 30}"),
        ("{seconds: 30}", "{seconds: soon}", "until.seconds: found 'soon', expected a number"),
        ("{seconds: 30}", "all-retruned", "found 'all-retruned', .* Did you mean 'all-returned'"),
        ("seed: 7", "seed: 1.5", "seed: found 1.5, expected a whole number"),
        (
            "compute_threads: 2",
            "compute_threads: two",
            "limits.compute_threads: found 'two', expected a whole number",
        ),
        ("import_from: [src]", "import_from: [3]", r"import_from\[0\]: found 3, expected text"),
        ("expanded: true", "expanded: perhaps", "expanded: found 'perhaps', expected true or false"),
    ],
)
def test_a_wrong_shape_is_named_with_its_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = FULL if old in FULL else FULL + "expanded: true\n"
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, text.replace(old, new, 1))


def test_what_refers_to_parameters_passes_until_they_are_known(tmp_path: Path) -> None:
    app = load(tmp_path, "name: x\nparameters: {t: 3, s: 9}\nnodes: {a: }\nuntil: {seconds: '${t}'}\nseed: ${s}\n")
    expanded = app.expanded()
    assert (expanded.until, expanded.seed) == (rc.After(3), 9)
    with pytest.raises(ConfigError, match=r"app.yaml:4: until.seconds: found 'x', expected a number"):
        load(tmp_path, "name: x\nparameters: {t: x}\nnodes: {a: }\nuntil: {seconds: '${t}'}\n").expanded()


def test_python_is_told_in_the_same_way() -> None:
    app = rc.App(name="x", nodes={"a": rc.Node()}, roles={"a": {"r": Trainer}})  # type: ignore[dict-item]
    with pytest.raises(ConfigError, match=r"app 'x': roles.a.r: found the class Trainer, expected a role"):
        app.expanded()


# ------------------------------------------------------------------------------------------------ includes


def test_includes_are_merged_below(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "base.yaml").write_text(
        "include: ../deep.yaml\nname: base\nparameters: {a: 1, b: {c: 2, d: 3}, sizes: [1, 2, 3]}\n"
        "roles: {n*: {r: {class: m:A, options: {x: 1, y: 2}, elements: {e: {class: m:E, options: {z: "
        "1}}}}}}\n"
    )
    (tmp_path / "deep.yaml").write_text("seed: 5\nparameters: {a: 0, e: 9}\n")
    app = load(
        tmp_path,
        "include: [lib/base.yaml]\nname: top\nparameters: {b: {c: 7}, sizes: [4]}\nnodes: {n1: }\n"
        "roles: {n*: {r: {options: {y: 3}, elements: {e: {factory: m:f, options: {k: 1}}}}}}\n",
    )
    assert app.name == "top"
    assert app.seed == 5
    assert app.parameters == {"a": 1, "b": {"c": 7, "d": 3}, "e": 9, "sizes": [4]}
    role = app.roles["n*"]["r"]
    assert role.options == {"x": 1, "y": 3}
    assert role.elements["e"] == rc.ElementSpec(factory="m:f", options={"k": 1})


def test_an_error_names_the_included_file(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("\n\nsede: 5\n")
    with pytest.raises(ConfigError, match=r"base.yaml:3: sede: unknown key"):
        load(tmp_path, "include: base.yaml\nname: x\n")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "include: bas.yaml\nname: x",
            r"app.yaml:1: include: there is no file .*bas.yaml. Did you mean 'base.yaml'",
        ),
        ("name: x\ninclude: [base.yaml, no.yaml]", r"app.yaml:2: include\[1\]: there is no file"),
        ("include: app.yaml", "in a circle: app.yaml -> app.yaml"),
        ("include: loop.yaml", "in a circle: app.yaml -> loop.yaml -> app.yaml"),
        ("include: {a: 1}", "found a mapping .a., expected a list of files"),
        ("[1]", "found a list of 1, expected a mapping"),
        ("", "found nothing, expected a mapping"),
    ],
)
def test_a_wrong_include_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "base.yaml").write_text("seed: 1\n")
    (tmp_path / "loop.yaml").write_text("include: app.yaml\n")
    with pytest.raises(ConfigError, match=says):
        load(tmp_path, text)


def test_the_depth_of_includes_is_bounded(tmp_path: Path) -> None:
    for index in range(20):
        (tmp_path / f"f{index}.yaml").write_text(f"include: f{index + 1}.yaml\n")
    with pytest.raises(ConfigError, match="more than 10 deep"):
        rc.App.load(tmp_path / "f0.yaml")


def test_merging_keeps_options_only_for_what_they_were_meant() -> None:
    below = {"class": "m:A", "options": {"x": 1}, "share": "node"}
    assert merged(below, {"options": {"y": 2}})["options"] == {"x": 1, "y": 2}
    assert merged(below, {"class": "m:A", "options": {"y": 2}})["options"] == {"x": 1, "y": 2}
    assert merged(below, {"class": "m:B"}) == {"class": "m:B", "share": "node"}
    assert merged(below, {"factory": "m:f"}) == {"factory": "m:f", "share": "node"}
    assert merged({"a": {"b": 1}}, {"a": {"$random": {}}}) == {"a": {"$random": {}}}
    assert merged({"a": {"$random": {}}}, {"a": {"b": 1}}) == {"a": {"b": 1}}


# --------------------------------------------------------------------------------------------------- files


def test_a_directory_stands_for_the_application_in_it(tmp_path: Path) -> None:
    load(tmp_path, "name: x\n")
    assert rc.App.load(tmp_path).name == "x"
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="this directory has no application in it"):
        rc.App.load(tmp_path / "empty")


def test_a_file_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    load(tmp_path, "name: x\n", "fedavg.yaml")
    with pytest.raises(ConfigError, match=r"there is no such file. Did you mean '.*fedavg.yaml'"):
        rc.App.load(tmp_path / "fedvag.yaml")
    (tmp_path / "app.toml").write_text("")
    with pytest.raises(ConfigError, match=r"found a .toml file, expected .yaml or .py"):
        rc.App.load(tmp_path / "app.toml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"binary.yaml: the file cannot be read"):
        rc.App.load(tmp_path / "binary.yaml")


def test_a_module_with_an_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    source = (
        "import rolecall as rc\nclass R(rc.Role):\n    async def main(self): ...\n"
        "app = rc.App(name='py', nodes={'a': rc.Node()}, roles={'a': {'r': rc.RoleSpec(R)}})\n"
    )
    (tmp_path / "small_py_app.py").write_text(source)
    app = rc.App.load(tmp_path / "small_py_app.py")
    app.expanded().save(tmp_path / "run" / "app.yaml")
    again = rc.App.load(tmp_path / "run" / "app.yaml")
    assert again.roles["a"]["r"].class_ == "small_py_app:R"
    again.check()
    assert rc.App.load(tmp_path / "small_py_app.py") is app
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "small_py_app.py").write_text(source.replace("'py'", "'second'"))
    assert rc.App.load(tmp_path / "second" / "small_py_app.py").name == "second"
    for name in [name for name in sys.modules if name.startswith("small_py_app")]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("x = 1\n", "it has no variable 'app'. Write `app = rc.App"),
        ("import rolecall as rc\nmine = rc.App(name='x')\n", "It has 'mine': write `app = mine`"),
        ("app = 3\n", "`app` is 3, expected an rc.App"),
        ("1 / 0\n", r"importing it failed: ZeroDivisionError: .*small_bad.py:1"),
        ("def f(:\n", "importing it failed: SyntaxError"),
    ],
)
def test_a_module_without_an_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, says: str) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "small_bad.py").write_text(source)
    with pytest.raises(ConfigError, match=says):
        rc.App.load(tmp_path / "small_bad.py")
    sys.modules.pop("small_bad", None)


# ------------------------------------------------------------------------------------------------- writing


def with_element(spec: rc.ElementSpec, **options: Any) -> rc.App:
    role = rc.RoleSpec(Trainer, options=options, elements={"e": spec})
    return rc.App(name="x", nodes={"a": rc.Node()}, roles={"a": {"r": role}})


def test_classes_and_callables_are_written_by_name(tmp_path: Path) -> None:
    app = with_element(rc.ElementSpec(factory=matches, initialize=matches), fn=matches, sizes=(1, 2))
    app.expanded(seed=1).save(tmp_path / "a.yaml")
    again = rc.App.load(tmp_path / "a.yaml")
    assert again == app.expanded(seed=1)
    role = again.roles["a"]["r"]
    assert role.class_ == f"{__name__}:Trainer"
    assert role.options == {"fn": {"$import": "rolecall.core.patterns:matches"}, "sizes": [1, 2]}
    assert role.elements["e"].factory == "rolecall.core.patterns:matches"


@pytest.mark.parametrize(
    ("spec", "options", "says"),
    [
        (rc.ElementSpec(value=[Path(), Path()]), {}, r"roles.a.r.elements.e.value: .*\(list of PosixPath\)"),
        (rc.ElementSpec(value=object()), {}, r"\(object\). Pass the object from Python"),
        (rc.ElementSpec(factory=lambda: 1), {}, r"elements.e.factory: .*\(function .*<lambda>\)"),
        (rc.ElementSpec(type("Local", (), {})), {}, r"elements.e.class: .*\(class Local\)"),
        (rc.ElementSpec("m:E"), {"model": object()}, r"options.model: .*\(object\)"),
        (rc.ElementSpec("m:E"), {"model": {"a": [object()]}}, r"options.model.a\[0\]: .*\(object\)"),
    ],
)
def test_live_objects_leave_a_marker_that_says_what_to_do(
    tmp_path: Path, spec: rc.ElementSpec, options: dict[str, Any], says: str
) -> None:
    app = with_element(spec, **options)
    for written in (app, app.expanded(seed=1)):
        written.save(tmp_path / "a.yaml")
        with pytest.raises(ConfigError, match=says):
            rc.App.load(tmp_path / "a.yaml")


def test_live_objects_stay_the_same_object_when_expanded() -> None:
    live = [object()]
    app = with_element(rc.ElementSpec(value=live), other=live[0]).expanded(seed=1)
    assert app.roles["a"]["r"].elements["e"].value is live
    assert app.roles["a"]["r"].options["other"] is live[0]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("before")
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        rc.App(name="x").save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.yaml"]
    assert path.read_text() == "before"


KEYS = st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=6)
TEXTS = st.text(max_size=12).map(lambda text: text.replace("$", "$$"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
)


@given(
    options=st.dictionaries(KEYS, VALUES, max_size=4),
    clients=st.integers(1, 12),
    seed=st.integers(0, 2**63 - 1),
)
def test_an_expanded_application_is_the_same_when_it_is_written_and_read(
    tmp_path_factory: pytest.TempPathFactory, options: dict[str, Any], clients: int, seed: int
) -> None:
    spec = rc.RoleSpec("m:T", options={**options, "i": "$ordinal", "r": {"$random": {"uniform": [0, 1]}}})
    app = rc.App(
        name="x",
        parameters={"p": options, "n": clients},
        nodes={"c[1-${n}]": rc.Node()},
        roles={"c*": {"t": spec}},
        relationships={"c*": {"all": "c*/t"}},
        start="c*/t.run",
        seed=seed,
    )
    expanded = app.expanded()
    path = tmp_path_factory.getbasetemp() / "hypothesis.yaml"
    expanded.save(path)
    again = rc.App.load(path)
    assert again == expanded
    assert again.expanded() == expanded.expanded() == expanded
    assert app.expanded() == expanded
