from __future__ import annotations

import numpy as np
import pytest

from rolecall.core.errors import CallerError
from rolecall.learn.dataset import ArrayDataset, Dataset, as_float


def test_holds_read_only_views() -> None:
    x, y = np.zeros((4, 2), np.float32), np.array([0, 1, 2, 1])
    data = ArrayDataset(x, y, name="mine")
    assert isinstance(data, Dataset)
    assert len(data) == 4
    assert data.classes == 3
    assert np.shares_memory(data.x, x)
    assert x.flags.writeable and not data.x.flags.writeable
    assert repr(data) == "ArrayDataset(mine: 4 samples of 2, 3 classes)"


def test_subset_keeps_the_order_asked_for() -> None:
    part = ArrayDataset([[1.0], [2.0], [3.0]], [0, 1, 2]).subset([2, 0])
    assert part.x.tolist() == [[3.0], [1.0]]
    assert part.y.tolist() == [2, 0]
    assert part.classes == 3


def test_targets_without_classes() -> None:
    assert ArrayDataset([[1.0]], [0.5]).classes == 0


def test_lengths_must_agree() -> None:
    with pytest.raises(CallerError, match=r"data set 'mine': x \[3, 1\] and y \[2\] are not of one length"):
        ArrayDataset(np.zeros((3, 1)), [0, 1], name="mine")


def test_images_are_scaled() -> None:
    assert as_float(np.array([0, 255, 51], np.uint8)).tolist() == pytest.approx([0, 1, 0.2])
    assert as_float(np.array([0, 255, 51], np.uint8)).dtype == np.float32
    values = np.array([3.0])
    assert as_float(values) is values
