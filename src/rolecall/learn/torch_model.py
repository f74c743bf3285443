"""`TorchModel`: any `torch.nn.Module` as a `Model`. torch is imported when it is used, not before."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from rolecall.core.errors import CallerError, ConfigError, MissingDependency, WrongType
from rolecall.core.tensors import Array, Tensors
from rolecall.learn.batches import epochs_of_batches, nth_batch
from rolecall.learn.dataset import ArrayDataset, Dataset
from rolecall.learn.model import Gradient, Score, Update

if TYPE_CHECKING:
    from torch import nn

    from rolecall.learn.torch_random import Stream
    from rolecall.learn.torch_sgd import Optimizer, OptimizerFactory
    from rolecall.learn.torch_training import Loss

__all__ = ("TorchModel",)

_INITIAL, _TRAINING = 0, 1  # purposes of a seed


class TorchModel:
    """Make a `Model` of a `torch.nn.Module`.

    `module` is a module (copied: the one given is left alone) or a function without arguments that makes one,
    whose initial weights `seed` then decides. `loss` is `cross_entropy`, `nll`, `bce` (of logits), `mse`,
    `l1` or a function of (outputs, targets); `optimizer` is `sgd`, `adam`, `adamw` or a function of
    (parameters, lr), made anew for each `fit`, so that its state does not outlive the call.

    `parameters()` has every entry of `state_dict()`, the running statistics of batch normalisation too.

    Training gives the same bits for the same arguments: torch is set to one intra-op thread for the whole
    process, each `fit` works on a copy of the module, and what draws random numbers (dropout) does so from a
    stream of its own, one thread at a time. Whether the module draws is found out with its first batch; say
    `draws=True` for one that draws only now and then. Modules that draw nothing train in parallel in several
    threads.
    """

    def __init__(
        self,
        module: nn.Module | Callable[[], nn.Module],
        *,
        loss: str | Loss = "cross_entropy",
        optimizer: str | OptimizerFactory = "sgd",
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        draws: bool | None = None,
        seed: int = 0,
    ) -> None:
        _require_torch(type(self).__name__)
        from rolecall.learn import torch_training as training

        training.one_thread()
        self._loss = training.loss_by_name(loss)
        self._optimizer, self._momentum, self._weight_decay = optimizer, momentum, weight_decay
        self._draws = draws
        self._module = _made(module, seed)
        self._initial = training.state(self._module)
        self._make_optimizer(self._module, lr=0.1)  # an unknown name is found here, not in the first training

    @property
    def module(self) -> nn.Module:
        """The module with the current parameters; it is the model's own, so read it only."""
        return self._module

    def parameters(self) -> Tensors:
        """Return a copy of the module's current state."""
        from rolecall.learn import torch_training as training

        return training.state(self._module)

    def load(self, params: Tensors) -> None:
        """Make `params` the module's current state; raises `WrongType` where they are of another model."""
        self._load_into(self._module, params)

    def fit(
        self,
        params: Tensors,
        data: Dataset,
        *,
        epochs: int = 1,
        batch_size: int = 32,
        lr: float = 0.1,
        seed: int = 0,
        steps: int | None = None,
    ) -> Update:
        """Train from `params`, for `epochs` or for exactly `steps` batches; the module itself stays as it is.

        The loss returned is the mean over the last epoch. In a worker thread of anyio's, training stops
        between batches when the role that waits for it is cancelled.
        """
        return self._fitted(params, data, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, steps=steps)

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
        """Train as `fit` does, with `mu / 2 * ||w - params||^2` added to the loss (FedProx; Li et al. 2020).

        The loss returned is that of the data alone. Raises `CallerError` for a negative `mu`.
        """
        if not mu >= 0:
            raise CallerError(f"{self!r}: mu is {mu}. It must not be negative.")
        return self._fitted(params, data, epochs=epochs, batch_size=batch_size, lr=lr, seed=seed, mu=mu)

    def _fitted(
        self,
        params: Tensors,
        data: Dataset,
        *,
        epochs: int,
        batch_size: int,
        lr: float,
        seed: int,
        steps: int | None = None,
        mu: float = 0.0,
    ) -> Update:
        from rolecall.learn import torch_training as training

        module = self._private(params, data)
        batches = epochs_of_batches(
            len(data),
            epochs=epochs,
            steps=steps,
            batch_size=batch_size,
            seed=seed,
            join_lone=training.needs_pairs(module),
        )
        optimizer, stream = self._make_optimizer(module, lr), self._stream(data, seed)
        anchor = training.Anchor(module, mu) if mu else None
        loss = training.train(module, data, batches, loss=self._loss, optimizer=optimizer, stream=stream, anchor=anchor)
        return Update(params=training.state(module), samples=len(data), loss=loss)

    def gradient(
        self, params: Tensors, data: Dataset, *, batch_size: int = 32, step: int = 0, seed: int = 0
    ) -> Gradient:
        """Return the mean gradient at `params` of batch number `step` of those that `seed` decides."""
        from rolecall.learn import torch_training as training

        module = self._private(params, data)
        pairs = training.needs_pairs(module)
        batch = nth_batch(len(data), step=step, batch_size=batch_size, seed=seed, join_lone=pairs)
        stream = self._stream(data, seed, step)
        values, loss = training.gradients(module, data, batch, loss=self._loss, stream=stream)
        return Gradient(values=values, samples=len(batch), loss=loss)

    def evaluate(self, params: Tensors, data: Dataset) -> Score:
        """Test `params` on all of `data`, in evaluation mode."""
        from rolecall.learn import torch_training as training

        module = self._private(params, data)
        return training.score(module, data, loss=self._loss, stream=self._stream(data, seed=0))

    def predict(self, params: Tensors, x: Array) -> Array:
        """Return the module's outputs for the samples `x`, in evaluation mode."""
        from rolecall.learn import torch_training as training

        data = ArrayDataset(x, np.zeros(len(x), np.int64))
        module = self._private(params, data)
        return training.outputs(module, data, stream=self._stream(data, seed=0))

    def check(self, data: Dataset) -> None:
        """Raise `CallerError` for data this model cannot take; models of a fixed input shape check more."""
        if len(data) == 0:
            raise CallerError(f"{self!r}: the data set is empty. Give it at least one sample.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({type(self._module).__name__}, {self._initial.size:,} values)"

    def _private(self, params: Tensors, data: Dataset) -> nn.Module:
        """Return a copy of the module in the state `params`, the calling thread's own."""
        from rolecall.learn import torch_training as training

        self.check(data)
        training.one_thread()
        module = copy.deepcopy(self._module)
        self._load_into(module, params)
        return module

    def _load_into(self, module: nn.Module, params: Tensors) -> None:
        if not isinstance(params, Tensors):
            raise WrongType(f"{self!r}: params", "Tensors", type(params).__name__)
        params.require_spec(self._initial.spec, f"{self!r}: params")
        module.load_state_dict(params.torch())

    def _make_optimizer(self, module: nn.Module, lr: float) -> Optimizer:
        from rolecall.learn.torch_sgd import make_optimizer

        return make_optimizer(
            self._optimizer,
            module.parameters(),
            lr,
            momentum=self._momentum,
            weight_decay=self._weight_decay,
        )

    def _stream(self, data: Dataset, seed: int, step: int = 0) -> Stream:
        from rolecall.learn.torch_random import NoDraws, PrivateDraws, draws
        from rolecall.learn.torch_training import sample_inputs

        if self._draws is None:
            module = copy.deepcopy(self._module)
            self._draws = draws(module, sample_inputs(data, module, count=8))
        return PrivateDraws(seed, _TRAINING + step) if self._draws else NoDraws()


def _require_torch(needed_for: str) -> None:
    try:
        import torch  # noqa: F401
    except ImportError:
        raise MissingDependency("torch", needed_for=needed_for, extra="torch") from None


def _made(module: nn.Module | Callable[[], nn.Module], seed: int) -> nn.Module:
    """Return a module of our own: a copy of `module`, or what it makes with weights that `seed` decides."""
    from torch import nn

    from rolecall.learn.torch_random import PrivateDraws

    if isinstance(module, nn.Module):
        return _sized(copy.deepcopy(module))
    _require_callable(module)
    with PrivateDraws(seed, _INITIAL).drawing():
        made: object = module()
    if not isinstance(made, nn.Module):
        raise ConfigError("TorchModel", f"{module!r} made a {type(made).__name__}, expected a torch.nn.Module")
    return _sized(made)


def _require_callable(factory: object) -> None:
    if not callable(factory):
        hint = "Give an nn.Module or a function that makes one"
        raise ConfigError("TorchModel", f"a {type(factory).__name__} is no module", hint=hint)


def _sized(module: nn.Module) -> nn.Module:
    from torch.nn.parameter import is_lazy

    values: list[tuple[str, Any]] = list(module.named_parameters())
    unsized = next((name for name, value in values if is_lazy(value)), None)
    if unsized is not None:
        hint = "Run the module once on a sample before you hand it over, or use layers of known size"
        raise ConfigError("TorchModel", f"the size of parameter {unsized!r} is not known yet", hint=hint)
    return module
