"""Rules that make one model of several: weighted means, and those that bear a share of wrong updates."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, Protocol, TypeAlias, runtime_checkable

import numpy as np

from rolecall.core.errors import ConfigError, nearest
from rolecall.core.tensors import Tensors
from rolecall.learn.averaging import weighted_mean
from rolecall.learn.model import Update

__all__ = (
    "Krum",
    "Median",
    "Rule",
    "TrimmedMean",
    "WeightedMean",
    "Weighting",
    "krum_scores",
    "median",
    "trimmed_mean",
)

Weighting: TypeAlias = Literal["samples", "equal", "loss"]
_WEIGHTINGS = ("samples", "equal", "loss")


@runtime_checkable
class Rule(Protocol):
    """What makes one model of several updates of one spec; sums in the order in which they are given."""

    def __call__(self, updates: Sequence[Update]) -> Tensors: ...


class WeightedMean:
    """The mean, each update weighted by its samples (FedAvg), equally, or by the inverse of its training loss."""

    def __init__(self, weighting: Weighting = "samples") -> None:
        if weighting not in _WEIGHTINGS:
            hint = f"Known are {', '.join(_WEIGHTINGS)}.{nearest(weighting, _WEIGHTINGS)}"
            raise ConfigError("WeightedMean", f"there is no weighting {weighting!r}", hint=hint)
        self.weighting = weighting

    def __call__(self, updates: Sequence[Update]) -> Tensors:
        if self.weighting == "samples":
            return weighted_mean(updates)
        weights = None if self.weighting == "equal" else [_inverse(update.loss) for update in updates]
        return Tensors.mean([update.params for update in updates], weights)


class Median:
    """The median of every value (Yin et al. 2018): bears any wrong updates that are fewer than half."""

    def __call__(self, updates: Sequence[Update]) -> Tensors:
        return median([update.params for update in updates])


class TrimmedMean:
    """The mean of every value without the largest and the smallest share of them (Yin et al. 2018)."""

    def __init__(self, share: float = 0.1) -> None:
        if not 0 <= share < 0.5:
            raise ConfigError("TrimmedMean", f"share is {share}", hint="It is at least 0 and below 0.5, at either end")
        self.share = share

    def __call__(self, updates: Sequence[Update]) -> Tensors:
        return trimmed_mean([update.params for update in updates], self.share)


class Krum:
    """The update nearest to its neighbours (Blanchard et al. 2017), or the mean of the `chosen` nearest (Multi-Krum).

    Bears `faulty` wrong updates of n where n >= 2 * faulty + 3; raises `ConfigError` for fewer.
    """

    def __init__(self, faulty: int = 1, chosen: int = 1) -> None:
        if faulty < 0 or chosen < 1:
            raise ConfigError("Krum", f"faulty={faulty}, chosen={chosen}", hint="At least 0 and at least 1")
        self.faulty, self.chosen = faulty, chosen

    def __call__(self, updates: Sequence[Update]) -> Tensors:
        models = [update.params for update in updates]
        scores = krum_scores(models, self.faulty)
        best = sorted(np.argsort(scores, kind="stable")[: self.chosen])
        return Tensors.mean([models[at] for at in best])


def median(models: Sequence[Tensors]) -> Tensors:
    """Return the median of every value; of an even number of models, the mean of the middle two."""
    return Tensors.reduce(models, lambda rows: np.median(rows, axis=0))


def trimmed_mean(models: Sequence[Tensors], share: float) -> Tensors:
    """Return the mean of every value without the `floor(share * n)` smallest and as many largest of them."""
    cut = math.floor(share * len(models))
    return Tensors.reduce(models, lambda rows: np.sort(rows, axis=0)[cut : len(rows) - cut].mean(axis=0))


def krum_scores(models: Sequence[Tensors], faulty: int) -> list[float]:
    """Return for each model the sum of its squared distances to the n - faulty - 2 nearest others.

    Raises `ConfigError` for fewer than 2 * faulty + 3 models: they prove nothing.
    """
    count = len(models)
    if count < 2 * faulty + 3:
        raise ConfigError("Krum", f"{count} updates cannot bear {faulty} wrong ones", hint=f"Give {2 * faulty + 3}")
    squares = np.zeros((count, count))
    for i in range(count):
        for j in range(i):
            squares[i, j] = squares[j, i] = models[i].distance(models[j]) ** 2
    nearest_first = np.sort(squares, axis=1)[:, 1:]  # the first is the model itself
    return [float(total) for total in nearest_first[:, : count - faulty - 2].sum(axis=1)]


def _inverse(loss: float) -> float:
    return 1.0 / max(loss, 1e-8)
