from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest
from msgspec import structs

from rolecall.core.errors import ConfigError, DataError, MissingDependency
from rolecall.fleet.contender import Workload
from rolecall.observe.compare_plot import save_comparison
from rolecall.observe.comparison import Amount, Entry, Result, Store, rows
from rolecall.observe.measuring import Measured, Point

pytest.importorskip("torch")
pytest.importorskip("sklearn")

ENTRY = Entry(
    label="fedavg",
    architecture="fedavg",
    sets=(),
    seed=1,
    work=Workload(dataset="digits", model="mlp", clients=4, partition="iid"),
    amount=Amount(budget=200, every=100, test_samples=50),
)


def result(seed: int, accuracy: float, label: str = "fedavg") -> Result:
    entry = structs.replace(ENTRY, seed=seed, label=label)
    points = [Point(100, 1.0, 1_000, 10, 0.5), Point(200, 2.0 + seed, 2_000, 20, accuracy)]
    measured = Measured(points=points, models=1, wall_s=3.0)
    return Result(key=entry.key, entry=entry, measured=measured, versions={})


def test_a_result_is_found_again_under_whatever_label(tmp_path: Path) -> None:
    store = Store(tmp_path / "new" / "place")
    assert store.find(ENTRY) is None
    kept = result(1, 0.75)
    store.keep(kept)
    assert store.find(ENTRY) == kept
    other = structs.replace(ENTRY, label="fedavg fraction=0.4", sets=("fraction=0.4",))  # what it is anyway
    assert store.find(other) == structs.replace(kept, entry=other)
    assert [path.name for path in store.directory.iterdir()] == [f"fedavg-seed1-{kept.key}.json"]


@pytest.mark.parametrize(
    "other",
    [
        structs.replace(ENTRY, seed=2),
        structs.replace(ENTRY, sets=("fraction=0.5",)),
        structs.replace(ENTRY, work=structs.replace(ENTRY.work, network="wan")),
        structs.replace(ENTRY, amount=structs.replace(ENTRY.amount, budget=300)),
    ],
)
def test_what_decides_a_result_is_in_its_key(other: Entry) -> None:
    assert other.key != ENTRY.key == structs.replace(ENTRY).key


def test_a_file_that_holds_no_such_result(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = store.path(ENTRY, ENTRY.key)
    path.write_text('{"key": ')
    with pytest.raises(DataError, match=r"this is no result.*Remove it"):
        store.find(ENTRY)
    store.keep(structs.replace(result(1, 0.5), key="another"))
    os.replace(store.path(ENTRY, "another"), path)
    with pytest.raises(DataError, match="the result of other settings"):
        store.find(ENTRY)


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--out .*file.*cannot be created"):
        Store(tmp_path / "file")


def test_rows_are_means_over_the_seeds() -> None:
    one, other = rows([result(1, 0.7), result(1, 0.4, "gossip"), result(2, 0.8)])
    assert (one.name, one.runs, other.name, other.runs, other.spread) == ("fedavg", 2, "gossip", 1, 0.0)
    assert one.accuracy == pytest.approx(0.75) and one.spread == pytest.approx(0.0707107)
    assert (other.accuracy, other.best) == (0.4, 0.5)
    assert (one.samples, one.virtual_s, one.bytes, one.messages, one.wall_s) == (200, 3.5, 2_000, 20, 3.0)


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_figure(tmp_path: Path, ending: str) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / f"comparison.{ending}"
    assert save_comparison(path, [result(1, 0.7), result(2, 0.8), result(1, 0.4, "gossip")], title="digits")
    assert path.stat().st_size > 5_000
    assert not save_comparison(tmp_path / "none.png", [], title="digits")
    assert not (tmp_path / "none.png").exists()


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"pip install 'rolecall\[plots\]'"):
        save_comparison(tmp_path / "comparison.png", [result(1, 0.7)], title="digits")
