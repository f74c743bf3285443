"""Applications as data for other processes, and what nodes let others have imported."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import rolecall as rc
from rolecall.core.errors import ConfigError
from rolecall.fleet import preloading
from rolecall.fleet.portable import ImportPolicy, modules, portable, received

Write = Callable[..., Any]


class Here(rc.Role):
    """A role of a module that other processes find by no import."""

    def __init__(self, what: object = None) -> None: ...

    @rc.task
    async def run(self) -> None: ...


def made(spec: rc.RoleSpec, **more: Any) -> rc.App:
    return rc.App(name="made", nodes={"n": rc.Node()}, roles={"n": {"role": spec}}, **more).expanded(seed=1)


def test_there_and_back(write: Write) -> None:
    app = rc.App.load(write()).expanded(seed=7)
    tree = portable(app)
    assert received(tree) == app
    assert portable(received(tree)) == tree


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (rc.RoleSpec("m:C", options={"xs": [1, {"a": object()}]}), r"roles.n.role.options.xs\[1\].a: it is object"),
        (
            rc.RoleSpec("m:C", elements={"data": rc.ElementSpec(value=[np.zeros(3)])}),
            r"roles.n.role.elements.data.value: it is list of ndarray, which other processes cannot get. "
            r"Put it into a module of its own and name it .*engine `local`",
        ),
        (
            rc.RoleSpec("m:C", elements={"model": rc.ElementSpec(factory=lambda: 1)}),
            "elements.model.factory: it is fun",
        ),
    ],
)
def test_what_lives_here_is_named(spec: rc.RoleSpec, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        portable(made(spec))


def test_classes_of_the_main_program_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Here, "__module__", "__main__")
    with pytest.raises(ConfigError, match=r"roles.n.role.class: it is class Here, which other processes cannot get"):
        portable(made(rc.RoleSpec(Here)))


def test_modules_made_here_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("made_here")
    monkeypatch.setitem(sys.modules, "made_here", module)
    monkeypatch.setattr(module, "Here", Here, raising=False)
    with pytest.raises(ConfigError, match=r"class: the module made_here of made_here:Here was made in this process"):
        portable(made(rc.RoleSpec("made_here:Here")))


def test_modules_are_listed_once() -> None:
    spec = rc.RoleSpec(
        "a.b:C",
        options={"act": {"$import": "torch.nn:ReLU"}},
        elements={"x": rc.ElementSpec(factory="c:make", initialize="a.b:init"), "y": rc.ElementSpec(class_="d:D")},
        extensions=["e:E"],
    )
    tree = {
        "roles": {"n": {"role": _tree_of(spec)}},
        "start": [{"call": "n/role.run", "with": {"f": {"$import": "f:F"}}}],
    }
    assert modules(tree) == ["a.b", "torch.nn", "e", "c", "d", "f"]


def _tree_of(spec: rc.RoleSpec) -> Any:
    from rolecall.fleet.app_file import written

    app = rc.App(name="x", nodes={"n": rc.Node()}, roles={"n": {"role": spec}})
    return written(app)["roles"]["n"]["role"]


# ---------------------------------------------------------------------------------------------- policies


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (rc.RoleSpec("os:system"), "roles.n.role.class: node 'n' does not import 'os:system', only rolecall, mine and"),
        (rc.RoleSpec("mineral:C"), "does not import 'mineral:C'"),
        (rc.RoleSpec("mine:C", extensions=["os:E"]), r"extensions\[0\]: node 'n' does not import 'os:E'"),
        (rc.RoleSpec("mine:C", elements={"m": rc.ElementSpec(factory="no_such_factory")}), "'no_such_factory'"),
        (rc.RoleSpec("mine:C", elements={"m": rc.ElementSpec(class_="os:M")}), "elements.m.class"),
        (rc.RoleSpec("mine:C", elements={"m": rc.ElementSpec(class_="mine:M", initialize="os:f")}), "m.initialize"),
        (rc.RoleSpec("mine:C", options={"f": [{"$import": "os:f"}]}), r"options.f\[0\]"),
    ],
)
def test_what_is_not_allowed_is_refused(spec: rc.RoleSpec, says: str) -> None:
    policy = ImportPolicy(("rolecall", "mine"))
    tree = {"name": "app", "roles": {"n": {"role": _tree_of(spec)}, "other": {"role": {"class": "not:here"}}}}
    with pytest.raises(ConfigError, match=says):
        policy.check(tree, "n")


def test_arguments_and_directories_are_checked_too() -> None:
    policy = ImportPolicy(("mine",), ("/apps",))
    allowed = {"name": "app", "roles": {"n": {"role": {"class": "mine.deep:C"}}}, "import_from": ["/apps"]}
    policy.check(allowed, "n")
    with pytest.raises(ConfigError, match="import_from: node 'n' does not import from '/tmp'"):
        policy.check({**allowed, "import_from": ["/tmp"]}, "n")
    start = [{"call": "n/role.run", "with": {"f": {"$import": "os:f"}}}]
    with pytest.raises(ConfigError, match=r"start\[0\].with.f"):
        policy.check({**allowed, "start": start}, "n")
    policy.check({**allowed, "start": start}, "other")


def test_only_expanded_applications_are_taken() -> None:
    with pytest.raises(ConfigError, match="it is not expanded"):
        received({"name": "app"})
    with pytest.raises(ConfigError, match="unknown key 'nods'"):
        received({"name": "app", "nods": {}})


# ---------------------------------------------------------------------------------------------- preloading


def test_what_is_preloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def tree(*names: str, **options: Any) -> dict[str, Any]:
        return {"roles": {"n": {str(i): {"class": name, "options": options} for i, name in enumerate(names)}}}

    plain = preloading.preloaded(tree("mine:C", "rolecall.learn.data:shard"), checked=False)
    assert "rolecall.learn.data" in plain
    assert not {"torch", "mine", "rolecall.runtime.checking"}.intersection(plain)
    assert "rolecall.runtime.checking" in preloading.preloaded(tree("mine:C"), checked=True)
    mlp = preloading.preloaded(tree("rolecall.learn.models:MLP"), checked=False)
    assert "torch" in mlp
    assert "torch._dynamo" not in mlp
    assert "torch._dynamo" in preloading.preloaded(tree("rolecall.learn.models:MLP", optimizer="adam"), checked=False)


def test_large_packages_are_found_through_an_application_s_own_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    own, helper, large, part = (ModuleType(name) for name in ("own", "own_helper", "sklearn", "sklearn.metrics"))
    for module in (own, helper):
        module.__file__ = f"/home/me/{module.__name__}.py"
    for module in (own, helper, large, part):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    own.helper, own.self_again = helper, own  # type: ignore[attr-defined]
    helper.score = type("Score", (), {"__module__": "sklearn.metrics"})  # type: ignore[attr-defined]
    found = preloading.preloaded({"roles": {"n": {"role": {"class": "own:Role"}}}}, checked=False)
    assert {"sklearn", "sklearn.metrics"} <= set(found)
    assert not {"own", "own_helper", "torch"}.intersection(found)
