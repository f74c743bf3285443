from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from rolecall.core.errors import MissingDependency
from rolecall.core.ids import RoleId
from rolecall.core.records import Metric
from rolecall.observe.plot import save_curves
from rolecall.observe.series import Series


def learning() -> Series:
    values = [{"round": r, "accuracy": r / 10, "loss": 1 / r} for r in range(1, 6)]
    return Series(Metric(float(r), RoleId("server/coordinator"), v) for r, v in enumerate(values))


def test_a_png_with_two_panels(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "curve.png"
    assert save_curves(path, learning(), title="digits")
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert path.stat().st_size > 10_000


def test_nothing_to_draw(tmp_path: Path) -> None:
    assert not save_curves(tmp_path / "curve.png", Series(), title="digits")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"needs matplotlib.*pip install 'rolecall\[plots\]'"):
        save_curves(tmp_path / "curve.png", learning(), title="digits")
