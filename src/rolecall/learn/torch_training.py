"""Training and testing a torch module: loops over batches that any thread may run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from rolecall.core.errors import ConfigError, nearest
from rolecall.core.tensors import Array, Tensors
from rolecall.learn.batches import Indices
from rolecall.learn.dataset import Dataset
from rolecall.learn.model import Score, stop_if_cancelled
from rolecall.learn.torch_random import Stream
from rolecall.learn.torch_sgd import Optimizer

__all__ = (
    "Anchor",
    "Loss",
    "Reader",
    "gradients",
    "loss_by_name",
    "needs_pairs",
    "one_thread",
    "outputs",
    "sample_inputs",
    "score",
    "state",
    "train",
)

Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

_LOSSES: dict[str, Loss] = {
    "cross_entropy": F.cross_entropy,
    "nll": F.nll_loss,
    "bce": F.binary_cross_entropy_with_logits,
    "mse": F.mse_loss,
    "l1": F.l1_loss,
}
_TEST_BATCH = 500


def loss_by_name(choice: str | Loss) -> Loss:
    """Return the loss of this name, or `choice` itself where it is a function of (outputs, targets)."""
    if not isinstance(choice, str):
        return choice
    if choice not in _LOSSES:
        hint = f"Known are {', '.join(_LOSSES)}.{nearest(choice, _LOSSES)}"
        raise ConfigError(f"loss {choice!r}", "there is no such loss", hint=hint)
    return _LOSSES[choice]


def one_thread() -> None:
    """Let torch compute with one thread: two sum in another order, and so give other bits."""
    if torch.get_num_threads() != 1:  # the setting is per thread once a thread has used it
        torch.set_num_threads(1)


def state(module: nn.Module) -> Tensors:
    """Return a copy of all that training changes in the module: parameters and persistent buffers."""
    return Tensors(module.state_dict())


def needs_pairs(module: nn.Module) -> bool:
    """Return whether the module fails on a batch of one sample in training."""
    return any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in module.modules())


class Reader:
    """Give batches of a data set as tensors that fit a module: images scaled, its own dtype."""

    def __init__(self, data: Dataset, module: nn.Module) -> None:
        self._x, self._y = np.asarray(data.x), np.asarray(data.y)
        floats = (parameter.dtype for parameter in module.parameters() if parameter.is_floating_point())
        self._dtype = next(floats, torch.float32)

    def inputs(self, batch: Indices) -> torch.Tensor:
        inputs = _gathered(self._x, batch)
        if inputs.dtype == torch.uint8:
            return inputs.to(self._dtype).div_(255)
        return inputs.to(self._dtype) if inputs.is_floating_point() else inputs

    def targets(self, batch: Indices) -> torch.Tensor:
        targets = _gathered(self._y, batch)
        return targets.to(self._dtype if targets.is_floating_point() else torch.int64)


def train(
    module: nn.Module,
    data: Dataset,
    batches: Iterable[tuple[int, Indices]],
    *,
    loss: Loss,
    optimizer: Optimizer,
    stream: Stream,
    anchor: Anchor | None = None,
) -> float:
    """Train the module in place on (epoch, batch) after batch; return the mean loss of the last epoch."""
    module.train()
    reader = Reader(data, module)
    mean, current = _Mean(), 0
    for epoch, batch in batches:
        stop_if_cancelled()
        if epoch != current:
            mean, current = _Mean(), epoch
        optimizer.zero_grad()
        mean.add(_backward(module, reader, batch, loss, stream), len(batch))
        if anchor is not None:
            anchor.pull()
        optimizer.step()
    return mean.value


class Anchor:
    """Hold a module near to where it is now: add the gradient of `mu / 2 * ||w - w_now||^2` to that of the loss."""

    def __init__(self, module: nn.Module, mu: float) -> None:
        self._mu = mu
        trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
        self._pairs = [(parameter, parameter.detach().clone()) for parameter in trained]

    @torch.no_grad()
    def pull(self) -> None:
        """Add to the gradients that are there."""
        for parameter, start in self._pairs:
            if parameter.grad is not None:
                parameter.grad.add_(parameter - start, alpha=self._mu)


def gradients(module: nn.Module, data: Dataset, batch: Indices, *, loss: Loss, stream: Stream) -> tuple[Tensors, float]:
    """Return the batch's mean gradient, by the names of `state` (zeros for what has none), and loss."""
    module.train()
    value = _backward(module, Reader(data, module), batch, loss, stream)
    found = {name: parameter.grad for name, parameter in module.named_parameters(remove_duplicate=False)}
    values = {name: _or_zeros(found.get(name), like) for name, like in module.state_dict().items()}
    return Tensors(values), value


def _backward(module: nn.Module, reader: Reader, batch: Indices, loss: Loss, stream: Stream) -> float:
    inputs, targets = reader.inputs(batch), reader.targets(batch)
    with stream.drawing():
        value = loss(module(inputs), targets)
        value.backward()  # type: ignore[no-untyped-call]
    return value.item()


@torch.no_grad()
def score(module: nn.Module, data: Dataset, *, loss: Loss, stream: Stream) -> Score:
    """Test the module on all samples, in order."""
    module.eval()
    reader = Reader(data, module)
    losses, hits = _Mean(), _Mean()
    for batch in _in_order(len(data)):
        stop_if_cancelled()
        inputs, targets = reader.inputs(batch), reader.targets(batch)
        with stream.drawing():
            outputs = module(inputs)
            losses.add(loss(outputs, targets).item(), len(batch))
        hits.add(_accuracy(outputs, targets), len(batch))
    return Score(accuracy=hits.value, loss=losses.value, samples=len(data))


@torch.no_grad()
def outputs(module: nn.Module, data: Dataset, *, stream: Stream) -> Array:
    """Return what the module makes of all samples, in order."""
    module.eval()
    reader = Reader(data, module)
    parts: list[torch.Tensor] = []
    for batch in _in_order(len(data)):
        stop_if_cancelled()
        with stream.drawing():
            parts.append(module(reader.inputs(batch)))
    return torch.cat(parts).numpy()


def sample_inputs(data: Dataset, module: nn.Module, count: int) -> torch.Tensor:
    """Return the inputs of the first samples, to try a module with."""
    return Reader(data, module).inputs(np.arange(min(count, len(data))))


class _Mean:
    """A mean of batch means, weighted by the sizes of the batches."""

    def __init__(self) -> None:
        self._sum, self._count = 0.0, 0

    def add(self, value: float, count: int) -> None:
        self._sum += value * count
        self._count += count

    @property
    def value(self) -> float:
        return self._sum / self._count if self._count else float("nan")


def _in_order(samples: int) -> Iterator[Indices]:
    return (np.arange(at, min(at + _TEST_BATCH, samples)) for at in range(0, samples, _TEST_BATCH))


def _gathered(array: Array, batch: Indices) -> torch.Tensor:
    """Copy a batch into memory of torch's own, whose alignment (and so the bits) never varies."""
    kind = getattr(torch, array.dtype.name)
    out = torch.empty((len(batch), *array.shape[1:]), dtype=kind)
    np.take(array, batch, axis=0, out=out.numpy(), mode="clip")
    return out


def _accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> float:
    if targets.is_floating_point() or outputs.ndim != targets.ndim + 1:
        return float("nan")
    return (outputs.argmax(1) == targets).to(torch.float64).mean().item()


def _or_zeros(gradient: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(like) if gradient is None else gradient
