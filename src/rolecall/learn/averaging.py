"""Averages of what many roles report, weighted by the number of samples behind each."""

from __future__ import annotations

from collections.abc import Iterable

from rolecall.core.errors import CallerError
from rolecall.core.tensors import Tensors
from rolecall.learn.model import Gradient, Score, Update

__all__ = ("mean_gradient", "weighted_mean", "weighted_metrics")


def weighted_mean(updates: Iterable[Update]) -> Tensors:
    """Return the mean of the updates' parameters, each weighted by its samples (FedAvg; McMahan et al. 2017).

    Sums in the order of `updates`, so that the same updates in the same order give the same bits. Raises
    `CallerError` when there are none, `WrongType` when they are of different models.
    """
    items = list(updates)
    return Tensors.mean((item.params for item in items), [item.samples for item in items])


def mean_gradient(gradients: Iterable[Gradient]) -> Tensors:
    """Return the mean gradient, each weighted by the samples behind it; sums in the order of `gradients`."""
    items = list(gradients)
    return Tensors.mean((item.values for item in items), [item.samples for item in items])


def weighted_metrics(scores: Iterable[Score]) -> Score:
    """Return the score over all samples together: accuracy and loss weighted by samples, samples summed."""
    items = list(scores)
    samples = sum(item.samples for item in items)
    if samples <= 0:
        raise CallerError(f"weighted_metrics: {len(items)} scores over {samples} samples. There is nothing to weigh.")
    accuracy = sum(item.accuracy * item.samples for item in items) / samples
    loss = sum(item.loss * item.samples for item in items) / samples
    return Score(accuracy=accuracy, loss=loss, samples=samples)
