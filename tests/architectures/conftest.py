"""Small data and a small model in float64, in which sums of a few numbers come out the same everywhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

SIZES = (17, 9, 24, 12)


def small_net() -> Any:
    """Return the same small network each time."""
    from torch import nn

    net = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    random = np.random.default_rng(11)
    with torch.no_grad():
        for value in net.parameters():
            value.copy_(torch.from_numpy(random.normal(size=tuple(value.shape))))
    return net


def small_shards(sizes: tuple[int, ...] = SIZES) -> list[tuple[Any, Any]]:
    """Return x and y of a few clients with unlike data."""
    random = np.random.default_rng(12)
    return [(random.normal(size=(n, 5)) + at, random.integers(0, 3, n)) for at, n in enumerate(sizes)]


@pytest.fixture
def net() -> Any:
    return small_net()


@pytest.fixture
def shards() -> list[tuple[Any, Any]]:
    return small_shards()
