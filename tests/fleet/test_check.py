from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rolecall as rc
from rolecall.core.errors import ConfigError

Write = Callable[..., Path]
MODEL = "model: {class: MODULE:Model, options: {hidden: 4}}"


def test_what_fits_together_passes(write: Write) -> None:
    rc.App.load(write()).check()
    rc.App.load(write("trainer:\n", "trainer:\n      extensions: [MODULE:Prober]\n")).check()
    rc.App.load(write(MODEL, MODEL + "\n        data: {factory: MODULE:make_data, options: {index: 1, of: 2}}")).check()
    rc.App.load(write(MODEL, MODEL + "\n        data: {class: MODULE:Data, options: {index: 1, of: 2}}")).check()
    rc.App.load(write("trainers: client*/trainer", "trainers: [], store: {later: x*/store}")).check()
    rc.App.load(
        write("trainers: client*/trainer", "trainers: {alias: t}, t: client*/trainer, writers: server/main")
    ).check()


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "MODULE:Trainer",
            "MODULE:Tariner",
            r"roles.client\*.trainer.class: the module .* has no 'Tariner' \(role client1/trainer and "
            r"2 like it\). Did you mean 'Trainer'",
        ),
        (
            "MODULE:Trainer",
            "MODULEs:Trainer",
            "there is no module small_roles_.*s .* Did you mean 'small_roles_",
        ),
        (
            "MODULE:Trainer",
            "MODULE.Trainer",
            "expected module:ClassName .* Did you mean small_roles_.*:Trainer",
        ),
        ("MODULE:Trainer", "MODULE:NoRole", "is no role class"),
        ("MODULE:Trainer", "MODULE:Learner", "Learner is abstract: it does not say what train does"),
        (
            "trainer:\n",
            "trainer:\n      extensions: [MODULE:Probe]\n",
            r"extensions\[0\]: .*Did you mean 'Prober'",
        ),
        ("trainer:\n", "trainer:\n      extensions: [MODULE:NoRole]\n", "is no role class"),
        (
            "options: {lr:",
            "options: {rate:",
            r"app.yaml:14: roles.client\*.trainer.options.rate: Trainer takes no option 'rate' .* The "
            r"options are: lr, name",
        ),
        (
            MODEL,
            "modle: {class: MODULE:Model}",
            r"(?s)2 things are wrong:.*has no element 'modle' .*Did you mean 'model'.*the element "
            r"'model' \(Model\) is missing",
        ),
        (
            MODEL,
            "{}",
            r"trainer: the element 'model' \(Model\) is missing \(role client1/trainer and 2 like "
            r"it\). Write `elements: {model: {class: module:ClassName}}`",
        ),
        (
            "hidden: 4",
            "hiden: 4",
            r"model.options.hiden: Model takes no option 'hiden' .* Did you mean 'hidden'",
        ),
        ("MODULE:Model, options: {hidden: 4}", "MODULE:Modle", "has no 'Modle' .* Did you mean 'Model'"),
        ("MODULE:Model, options: {hidden: 4}", "MODULE:rc", "cannot be called"),
        (
            "MODULE:Model, options: {hidden: 4}",
            "MODULE:Data, options: {index: 1, of: 2}",
            "a Data is no Model, as the role declares",
        ),
        (
            "MODULE:Model, options: {hidden: 4}",
            "MODULE:Data, options: {index: 1}",
            "(?s)Data needs the option 'of'",
        ),
        (
            "class: MODULE:Model, options: {hidden: 4}",
            "factory: model",
            "model.factory: found 'model', expected module:name",
        ),
        ("class: MODULE:Model, options: {hidden: 4}", "value: 3", "a int is no Model"),
        (
            "trainers: client*",
            "trainer: client*",
            r"(?s)app.yaml:9: roles.server.main: Server works with 'trainers', which is not configured "
            r".*no role of server has a relationship 'trainer'. Did you mean 'trainers'",
        ),
        (
            "client*/trainer}",
            "server/main}",
            r"relationships.server.trainers: Server \(server/main\) is no Learner, as server/main declares",
        ),
        ("    store: {class: MODULE:Store}\n", "", "Server works with 'store', which is not configured"),
        (
            "client*/trainer}",
            "client*/trainer, store: client*/*}",
            r"(?s)'store' is one role, and here are 3 .*is no Store",
        ),
        (
            "server/main.run",
            "server/main.rnu",
            r"app.yaml:19: start: 'rnu' is not a channel of Server \(server/main\). Did you mean 'run'",
        ),
        (
            "{rounds: 3}",
            "{round: 3}",
            r"start.with: Server.run: .*argument.* Its signature is \(rounds: int\)",
        ),
        ("{rounds: 3}", "{rounds: many}", "argument 'rounds' is str, not int"),
    ],
)
def test_what_does_not_fit_is_named(write: Write, old: str, new: str, says: str) -> None:
    app = rc.App.load(write(old, new))
    with pytest.raises(ConfigError, match=says):
        app.check()


def test_a_module_that_fails_is_told_from_one_that_is_missing(write: Write, tmp_path: Path) -> None:
    (tmp_path / "small_broken.py").write_text("x = 1\nraise KeyError('oh')\n")
    (tmp_path / "small_needy.py").write_text("import not_there_at_all\n")
    with pytest.raises(
        ConfigError, match=r"importing the module small_broken failed: KeyError: 'oh' .*small_broken.py:2"
    ):
        rc.App.load(write("MODULE:Trainer", "small_broken:Trainer")).check()
    with pytest.raises(ConfigError, match="the module small_needy needs not_there_at_all, which is not installed"):
        rc.App.load(write("MODULE:Trainer", "small_needy:Trainer")).check()


def test_a_module_of_another_application_is_not_taken_for_this_ones(write: Write, tmp_path: Path, module: str) -> None:
    rc.App.load(write()).check()
    other = tmp_path / "other"
    other.mkdir()
    (other / "app.yaml").write_text((tmp_path / "app.yaml").read_text())
    (other / f"{module}.py").write_text("class Trainer: ...\n")
    with pytest.raises(ConfigError, match=f"the module {module} was imported from .* and not from .*other"):
        rc.App.load(other).check()


def test_an_annotation_that_cannot_be_resolved_is_named(write: Write, tmp_path: Path) -> None:
    source = "from __future__ import annotations\nimport rolecall as rc\n"
    source += "class R(rc.Role):\n    m: Modle = rc.element()\n"
    (tmp_path / "small_hints.py").write_text(source)
    with pytest.raises(ConfigError, match=r"R.m: its annotation cannot be resolved: name 'Modle' is not defined"):
        rc.App.load(write("MODULE:Trainer", "small_hints:R")).check()
    sys.modules.pop("small_hints")


def test_more_than_ten_problems_are_counted(write: Write) -> None:
    path = write("clients: 3", "clients: 1")
    options = ", ".join(f"x{index}: 1" for index in range(14))
    path.write_text(path.read_text().replace('{lr: "${lr}"}', f"{{{options}}}"))
    with pytest.raises(ConfigError, match=r"(?s)14 things are wrong:.*and 4 more"):
        rc.App.load(path).check()


def test_a_thousand_roles_of_one_kind_are_one_problem(write: Write) -> None:
    app = rc.App.load(write("options: {lr:", "options: {rate:"))
    with pytest.raises(ConfigError, match="and 299 like it") as raised:
        app.expanded(["clients=300"]).check()
    assert "\n" not in str(raised.value)


class Local(rc.Role):
    """A role of this test module, whose classes are given as they are."""

    peers: rc.Group[Local] = rc.many()

    @rc.task
    async def run(self) -> None: ...


def test_live_classes_and_values_are_checked_alike() -> None:
    class Inside(rc.Role):
        size: int = rc.element()

    def app(value: object) -> rc.App:
        role = rc.RoleSpec(Inside, elements={"size": rc.ElementSpec(value=value)})
        return rc.App(name="live", nodes={"a": rc.Node()}, roles={"a": {"x": role}})

    app(3).check()
    with pytest.raises(
        ConfigError, match=r"app 'live': roles.a.x.elements.size: a list is no int, as the role declares"
    ):
        app([3]).check()


def test_a_topology_must_have_a_place_for_its_holder() -> None:
    roles = {"n*": {"p": rc.RoleSpec(Local)}}
    nodes = {"n[1-5]": rc.Node()}
    graph = {"peers": rc.Topology("ring", of="n*/p")}
    rc.App(name="g", nodes=nodes, roles=roles, relationships={"n*/p": graph}, start="n1/p.run").check()
    rc.App(name="g", nodes=nodes, roles=roles, relationships={"n*": graph}, start="n*/p.run").check()
