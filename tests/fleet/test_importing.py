from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from rolecall.core import patterns
from rolecall.core.errors import ConfigError
from rolecall.core.factories import factory
from rolecall.fleet.importing import load, reference


class Outer:
    class Inner: ...


def test_names_and_objects_lead_to_each_other() -> None:
    assert load("rolecall.core.patterns:matches", "w") is patterns.matches
    assert reference(patterns.matches) == "rolecall.core.patterns:matches"
    assert load(f"{__name__}:Outer.Inner", "w") is Outer.Inner
    assert reference(Outer.Inner) == f"{__name__}:Outer.Inner"
    assert load(Outer, "w") is Outer


def test_what_cannot_be_found_again_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Local: ...

    assert reference(Local) is None
    assert reference(lambda: 1) is None
    assert reference(3) is None
    assert reference(Outer().__init__) is None
    monkeypatch.setattr(Outer, "__module__", "__main__")
    assert reference(Outer) is None


SCRIPT = """
import rolecall as rc

class Adder(rc.Role):
    @rc.service
    async def add(self, number: int) -> int:
        return number + 1

class Caller(rc.Role):
    adder: Adder = rc.one()

    @rc.task
    async def go(self) -> int:
        return await self.adder.add(1)

app = rc.App(
    name="script",
    nodes={"a": rc.Node(), "b": rc.Node()},
    roles={"a": {"caller": rc.RoleSpec(Caller)}, "b": {"adder": rc.RoleSpec(Adder)}},
    relationships={"a": {"adder": "b/adder"}},
    start="a/caller.go",
)
"""


@pytest.mark.parametrize(
    ("guard", "says"),
    [
        ("if __name__ == '__main__':", "{'a/caller.go': 2}"),
        (
            "if True:",
            "module fresh: it starts a run when it is imported, as nodes do. Put what a script does under `if",
        ),
    ],
)
def test_other_processes_import_the_roles_of_a_script(tmp_path: Path, guard: str, says: str) -> None:
    (tmp_path / "fresh.py").write_text(f"{SCRIPT}\n{guard}\n    print(rc.run_sync(app, engine='processes').returned)\n")
    ran = subprocess.run([sys.executable, "fresh.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert says in ran.stdout + ran.stderr


def test_a_script_that_simulates_when_it_is_imported_says_so(tmp_path: Path) -> None:
    simulated = "async def main():\n    async with rc.simulation(app) as sim:\n        await sim.finished()\n"
    (tmp_path / "fresh.py").write_text(f"{SCRIPT}\n{simulated}\nrc.simulate(main, threads='inline')\n")
    ran = subprocess.run([sys.executable, "fresh.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "module fresh: it starts a run when it is imported" in ran.stderr


def test_a_registered_factory_is_found_by_its_name() -> None:
    @factory("test-importing")
    def make() -> int:
        return 1

    assert load("test-importing", "w") is make
    with pytest.raises(
        ConfigError, match=r"found 'test-imprting', expected module:name. Did you mean 'test-importing'"
    ):
        load("test-imprting", "w")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rolecall.core.patterns.matches", "a.yaml:3: found .* Did you mean rolecall.core.patterns:matches"),
        ("matches", "a.yaml:3: found 'matches', expected module:name"),
        (":matches", "expected module:name"),
        ("rolecall.core.patterns:", "expected module:name"),
        (
            "rolecall.core.patterns:match",
            "the module rolecall.core.patterns has no 'match'. Did you mean 'matches'",
        ),
        ("rolecall.core.patterns:Xyz", "It has expand_range, .*natural_key"),
        (
            "rolecall.core.pattern:x",
            "there is no module rolecall.core.pattern. Did you mean 'rolecall.core.patterns'",
        ),
        ("rolecall.zzz.x:y", "there is no module rolecall.zzz. In rolecall there are: .*core"),
        ("rolecal.core:y", "there is no module rolecal. Did you mean 'rolecall'"),
        ("qqqqqq:y", "Is it installed, or beside the application's file"),
    ],
)
def test_what_is_not_there_names_the_nearest(name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load(name, "a.yaml:3")


def test_directories_are_searched_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "small_search.py").write_text("import colorsys as used\nclass Here: ...\n")
    assert load("small_search:Here", "w", [str(tmp_path)]).__name__ == "Here"
    with pytest.raises(ConfigError, match=r"has no 'There'. Did you mean 'Here'"):
        load("small_search:There", "w", [str(tmp_path)])
    with pytest.raises(ConfigError, match=r"there is no module small_serch. Did you mean 'small_search'"):
        load("small_serch:Here", "w", [str(tmp_path)])
    del sys.modules["small_search"]
