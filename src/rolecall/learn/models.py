"""Small models that are ready to use. Importing this module does not import torch; making a model does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rolecall.core.errors import CallerError, ConfigError, nearest
from rolecall.learn.data import about
from rolecall.learn.dataset import Dataset
from rolecall.learn.torch_model import TorchModel

if TYPE_CHECKING:
    from torch import nn

__all__ = ("MLP", "LeNet5")


class MLP(TorchModel):
    """A multi-layer perceptron: hidden layers of the sizes `hidden`, then one output for each class.

    Samples of any shape are flattened to `inputs` values. `dataset`, the name of a data set, sets `inputs`
    and `classes`; without it they are those of `digits` (64 and 10). `activation` is `relu`, `tanh` or
    `gelu`; `dropout` is the share of hidden values dropped in training.
    """

    def __init__(
        self,
        hidden: int | Sequence[int] = 64,
        *,
        dataset: str | None = None,
        inputs: int = 64,
        classes: int = 10,
        activation: str = "relu",
        dropout: float = 0.0,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        if dataset is not None:
            info = about(dataset)
            inputs, classes = math.prod(info.shape), info.classes
        self._inputs = inputs
        sizes = [inputs, *([hidden] if isinstance(hidden, int) else hidden), classes]
        super().__init__(
            lambda: _mlp(sizes, _activation(activation), dropout),
            momentum=momentum,
            weight_decay=weight_decay,
            draws=dropout > 0,
            seed=seed,
        )

    def check(self, data: Dataset) -> None:
        """Raise `CallerError` for an empty data set or samples of another size."""
        super().check(data)
        size = math.prod(data.x.shape[1:])
        if size != self._inputs:
            raise CallerError(
                f"{self!r} takes {self._inputs} values a sample, {data!r} has {size}. Make it with "
                f"inputs={size}, or "
                "with dataset= and the name of the data set."
            )


class LeNet5(TorchModel):
    """LeNet-5 (LeCun et al. 1998) with ReLU and max pooling: 61,706 values for one channel, 62,006 for three.

    Takes images of 28x28 (padded to 32x32 by the first layer) or of 32x32 pixels: `size` is 28 for one
    channel and 32 otherwise, unless it is given. `dataset`, the name of a data set, sets `channels`, `size`
    and `classes`.
    """

    def __init__(
        self,
        channels: int = 1,
        *,
        dataset: str | None = None,
        size: int | None = None,
        classes: int = 10,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        if dataset is not None:
            info = about(dataset)
            (channels, size), classes = _image(info.shape, f"data set {dataset!r}"), info.classes
        side = _supported(size or (28 if channels == 1 else 32))
        self._shape = (channels, side, side)
        super().__init__(
            lambda: _lenet5(channels, side, classes),
            momentum=momentum,
            weight_decay=weight_decay,
            draws=False,
            seed=seed,
        )

    def check(self, data: Dataset) -> None:
        """Raise `CallerError` for an empty data set or images of another shape."""
        super().check(data)
        if tuple(data.x.shape[1:]) != self._shape:
            expected, found = ("x".join(map(str, shape)) for shape in (self._shape, data.x.shape[1:]))
            raise CallerError(f"{self!r} takes images of {expected}, {data!r} has {found}. {_MLP_INSTEAD}.")


_MLP_INSTEAD = "LeNet5 is for 28x28 and 32x32 pixels; MLP takes samples of any shape"


def _supported(size: int) -> int:
    if size not in (28, 32):
        raise ConfigError("LeNet5", f"it cannot take images of {size}x{size} pixels", hint=_MLP_INSTEAD)
    return size


def _image(shape: tuple[int, ...], where: str) -> tuple[int, int]:
    """Return the channels and the size of square images."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ConfigError(
            "LeNet5", f"{where} holds no square images: its samples are {list(shape)}", hint=_MLP_INSTEAD
        )
    return shape[0], shape[1]


def _activation(name: str) -> Callable[[], nn.Module]:
    from torch import nn

    known = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}
    if name not in known:
        hint = f"Known are {', '.join(known)}.{nearest(name, known)}"
        raise ConfigError("MLP", f"there is no activation {name!r}", hint=hint)
    return known[name]


def _mlp(sizes: Sequence[int], activation: Callable[[], nn.Module], dropout: float) -> nn.Module:
    from torch import nn

    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise(sizes[:-1]):
        layers += [nn.Linear(before, after), activation(), *([nn.Dropout(dropout)] if dropout else [])]
    return nn.Sequential(*layers, nn.Linear(sizes[-2], sizes[-1]))


def _lenet5(channels: int, size: int, classes: int) -> nn.Module:
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(channels, 6, 5, padding=(32 - size) // 2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )
