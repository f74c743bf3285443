"""A model of one's own, without torch: softmax regression in numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

import rolecall as rc
from rolecall.learn import Dataset, Gradient, Score, Update, batches, stop_if_cancelled

Array = npt.NDArray[Any]


class Softmax:
    """One linear layer and a softmax: a `Model`, and `Differentiable` too."""

    def __init__(self, inputs: int, classes: int, seed: int = 0) -> None:
        start = np.random.default_rng(seed).normal(size=(inputs, classes), scale=0.1)
        self._params = rc.Tensors({"w": start, "b": np.zeros(classes)})

    def parameters(self) -> rc.Tensors:
        return self._params

    def load(self, params: rc.Tensors) -> None:
        params.require_spec(self._params.spec, "Softmax.load")
        self._params = params

    def fit(
        self,
        params: rc.Tensors,
        data: Dataset,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        lr: float = 0.1,
        seed: int = 0,
    ) -> Update:
        losses: list[float] = []
        for batch in batches(data, batch_size, epochs=epochs, seed=seed):
            stop_if_cancelled()
            slope, loss = _slope(params, batch)
            params = params - slope * lr
            losses.append(loss)
        return Update(params, samples=len(data), loss=float(np.mean(losses)))

    def gradient(
        self, params: rc.Tensors, data: Dataset, *, batch_size: int = 32, step: int = 0, seed: int = 0
    ) -> Gradient:
        each = -(-len(data) // batch_size)  # batches an epoch
        epoch = list(batches(data, batch_size, seed=seed + step // each))
        slope, loss = _slope(params, epoch[step % each])
        return Gradient(slope, samples=len(epoch[step % each]), loss=loss)

    def evaluate(self, params: rc.Tensors, data: Dataset) -> Score:
        likelihoods = _likelihoods(params, data.x)
        hits = likelihoods.argmax(axis=1) == data.y
        return Score(accuracy=float(hits.mean()), loss=_loss(likelihoods, data.y), samples=len(data))


def _slope(params: rc.Tensors, data: Dataset) -> tuple[rc.Tensors, float]:
    likelihoods = _likelihoods(params, data.x)
    error = likelihoods.copy()
    error[np.arange(len(data)), data.y] -= 1
    return rc.Tensors({"w": data.x.T @ error / len(data), "b": error.mean(axis=0)}), _loss(likelihoods, data.y)


def _likelihoods(params: rc.Tensors, x: Array) -> Array:
    scores = x @ params["w"] + params["b"]
    raised = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def _loss(likelihoods: Array, y: Array) -> float:
    return float(-np.log(np.maximum(likelihoods[np.arange(len(y)), y], 1e-12)).mean())
