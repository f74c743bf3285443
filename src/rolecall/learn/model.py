"""What a role needs of a model: to read and load its parameters, to train it and to test it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec
from anyio import from_thread

from rolecall.core.tensors import Tensors
from rolecall.learn.dataset import Dataset

__all__ = ("Differentiable", "Gradient", "Model", "Score", "Update", "stop_if_cancelled")


class Update(msgspec.Struct, frozen=True):
    """The result of training: new parameters, the number of samples, the mean training loss."""

    params: Tensors
    samples: int
    loss: float


class Gradient(msgspec.Struct, frozen=True):
    """The mean gradient of a batch, of the parameters' spec (zero for what is not trained).

    `params - gradient.values * lr` is a step of SGD; `samples` is the size of the batch, `loss` its mean
    loss.
    """

    values: Tensors
    samples: int
    loss: float


class Score(msgspec.Struct, frozen=True):
    """The result of testing: the share of samples classified rightly (0 to 1), mean loss, number of samples.

    `accuracy` is NaN for a model that predicts numbers, not classes.
    """

    accuracy: float
    loss: float
    samples: int


@runtime_checkable
class Model(Protocol):
    """A model of any library, as the roles see it.

    `fit` and `evaluate` are pure functions of their arguments: they leave the model itself alone, and give
    the same bits for the same arguments whatever other threads do. Roles call them in worker threads.
    """

    def parameters(self) -> Tensors:
        """Return a copy of the model's current parameters."""
        ...

    def load(self, params: Tensors) -> None:
        """Make `params`, of the spec of `parameters()`, the model's current parameters."""
        ...

    def fit(
        self,
        params: Tensors,
        data: Dataset,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        lr: float = 0.1,
        seed: int = 0,
    ) -> Update:
        """Train from `params` on `data`, in an order that `seed` decides, and return what came of it.

        Long training calls `stop_if_cancelled()` between batches.
        """
        ...

    def evaluate(self, params: Tensors, data: Dataset) -> Score:
        """Test `params` on `data`."""
        ...


@runtime_checkable
class Differentiable(Model, Protocol):
    """A model that gives out its gradients, for architectures that exchange those."""

    def gradient(
        self, params: Tensors, data: Dataset, *, batch_size: int = 32, step: int = 0, seed: int = 0
    ) -> Gradient:
        """Return the mean gradient at `params` of batch number `step` of those that `seed` decides."""
        ...


def stop_if_cancelled() -> None:
    """Raise the cancellation of the role that waits for this worker thread; elsewhere do nothing.

    Call it between batches: a thread cannot be stopped from outside.
    """
    try:
        from_thread.check_cancelled()
    except RuntimeError:  # not a worker thread of anyio's: nobody to be cancelled by
        pass
