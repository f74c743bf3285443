"""A model and data for tests with nodes, which need no torch."""

from __future__ import annotations

from typing import Any

import numpy as np

from rolecall.core.tensors import Tensors
from rolecall.learn import Score, Update


class Points:
    """Ten numbers."""

    x = y = np.zeros(10, np.float32)

    def __len__(self) -> int:
        return 10


class Line:
    """A model that learns nothing, and whose parameters say so."""

    def parameters(self) -> Tensors:
        return Tensors({"w": np.arange(1000, dtype=np.float32)})

    def load(self, params: Tensors) -> None:
        raise NotImplementedError

    def fit(self, params: Tensors, data: Any, **options: Any) -> Update:
        noise = np.random.default_rng(options["seed"]).normal(size=1000).astype(np.float32)
        return Update(params + Tensors({"w": noise}), len(data), float(noise.sum()))

    def evaluate(self, params: Tensors, data: Any) -> Score:
        return Score(0.0, 0.0, len(data))
