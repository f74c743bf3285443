from __future__ import annotations

import importlib.util
import subprocess
import sys

import numpy as np
import pytest

from rolecall.core.errors import MissingDependency
from rolecall.learn.digits import digits, where_digits

pytest.importorskip("sklearn")


def test_split_is_fixed_and_stratified() -> None:
    train, test = digits("train"), digits("test")
    assert (len(train), len(test)) == (1442, 355)
    assert train.x.shape == (1442, 1, 8, 8)
    assert train.x.dtype == np.float32
    assert (train.x.min(), train.x.max()) == (0, 1)
    assert set(np.bincount(test.y)) <= {34, 35, 36, 37}
    assert test.y[:10].tolist() == digits("test").y[:10].tolist()


def test_is_what_scikit_learn_loads() -> None:
    from sklearn.datasets import load_digits

    ours = np.concatenate([digits(part).x.reshape(-1, 64) * 16 for part in ("train", "test")])
    assert sorted(map(tuple, ours.tolist())) == sorted(map(tuple, load_digits().data.tolist()))


def test_does_not_import_scikit_learn() -> None:
    code = "import sys; from rolecall.learn.digits import digits; digits('test'); sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert where_digits() is None
    with pytest.raises(MissingDependency, match=r"'digits' needs scikit-learn.*pip install 'rolecall\[data\]'"):
        digits("train")
