"""What a role needs of a model: one small protocol for each thing one may do with it."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import msgspec
from anyio import from_thread

from rolecall.core.tensors import Array, Tensors
from rolecall.learn.dataset import Dataset

__all__ = (
    "Differentiable",
    "Gradient",
    "Model",
    "Parametric",
    "Predictable",
    "Proximal",
    "ProximalModel",
    "Scorable",
    "Score",
    "Trainable",
    "Update",
    "stop_if_cancelled",
)


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
class Parametric(Protocol):
    """What has parameters that can be read and replaced."""

    def parameters(self) -> Tensors:
        """Return a copy of the model's current parameters."""
        ...

    def load(self, params: Tensors) -> None:
        """Make `params`, of the spec of `parameters()`, the model's current parameters."""
        ...


@runtime_checkable
class Trainable(Parametric, Protocol):
    """A model that trains by itself."""

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


@runtime_checkable
class Scorable(Protocol):
    """A model that can be tested."""

    def evaluate(self, params: Tensors, data: Dataset) -> Score:
        """Test `params` on `data`."""
        ...


@runtime_checkable
class Predictable(Protocol):
    """A model that says what it makes of samples."""

    def predict(self, params: Tensors, x: Array) -> Array:
        """Return the outputs (for classes: one score each, higher is likelier) for the samples `x`."""
        ...


@runtime_checkable
class Model(Trainable, Scorable, Protocol):
    """A model of any library, as most roles see it: to read and load its parameters, to train and to test it.

    `fit` and `evaluate` are pure functions of their arguments: they leave the model itself alone, and give
    the same bits for the same arguments whatever other threads do. Roles call them in worker threads.
    """


@runtime_checkable
class Differentiable(Parametric, Protocol):
    """A model that gives out its gradients, for architectures that exchange those."""

    def gradient(
        self, params: Tensors, data: Dataset, *, batch_size: int = 32, step: int = 0, seed: int = 0
    ) -> Gradient:
        """Return the mean gradient at `params` of batch number `step` of those that `seed` decides."""
        ...


@runtime_checkable
class Proximal(Parametric, Protocol):
    """A model that can train while it is held near to where it began (FedProx; Li et al. 2020)."""

    def fit_proximal(
        self,
        params: Tensors,
        data: Dataset,
        *,
        mu: float,
        epochs: int = 1,
        batch_size: int = 32,
        lr: float = 0.1,
        seed: int = 0,
    ) -> Update:
        """Train as `fit` does, with `mu / 2 * ||w - params||^2` added to the loss; `mu=0` is `fit`."""
        ...


@runtime_checkable
class ProximalModel(Model, Proximal, Protocol):
    """A model that can be trained near to where it began, and tested."""


def stop_if_cancelled() -> None:
    """Raise the cancellation of the role that waits for this worker thread; elsewhere do nothing.

    Call it between batches: a thread cannot be stopped from outside.
    """
    try:
        from_thread.check_cancelled()
    except RuntimeError:  # not a worker thread of anyio's: nobody to be cancelled by
        pass
