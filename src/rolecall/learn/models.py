"""Small models that are ready to use. Importing this module does not import torch; making a model does."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from rolecall.core.errors import CallerError, ConfigError, nearest
from rolecall.learn.data import about
from rolecall.learn.dataset import Dataset
from rolecall.learn.torch_model import TorchModel

if TYPE_CHECKING:
    from torch import nn

__all__ = ("CNN", "MLP", "LeNet5", "LogisticRegression", "ResNet8")


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


class LogisticRegression(MLP):
    """Softmax regression: one linear layer from the flattened sample to the classes; see `MLP` for the arguments."""

    def __init__(
        self,
        *,
        dataset: str | None = None,
        inputs: int = 64,
        classes: int = 10,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__(
            (),
            dataset=dataset,
            inputs=inputs,
            classes=classes,
            momentum=momentum,
            weight_decay=weight_decay,
            seed=seed,
        )


class _ImageModel(TorchModel, ABC):
    """A model of square images of one shape, which `dataset`, the name of a data set, sets with the classes."""

    sizes: tuple[int, ...] = ()  # the sides it can take; none: any
    advice = "MLP takes samples of any shape"

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
        name = type(self).__name__
        if dataset is not None:
            info = about(dataset)
            (channels, size), classes = _image(info.shape, name, f"data set {dataset!r}", self.advice), info.classes
        side = size or (28 if channels == 1 else 32)
        if self.sizes and side not in self.sizes:
            raise ConfigError(name, f"it cannot take images of {side}x{side} pixels", hint=self.advice)
        self._shape = (channels, side, side)
        super().__init__(
            lambda: _channels_last(self._layers(channels, side, classes)),
            momentum=momentum,
            weight_decay=weight_decay,
            draws=False,
            seed=seed,
        )

    @staticmethod
    @abstractmethod
    def _layers(channels: int, size: int, classes: int) -> nn.Module: ...

    def check(self, data: Dataset) -> None:
        """Raise `CallerError` for an empty data set or images of another shape."""
        super().check(data)
        if tuple(data.x.shape[1:]) != self._shape:
            expected, found = ("x".join(map(str, shape)) for shape in (self._shape, data.x.shape[1:]))
            raise CallerError(f"{self!r} takes images of {expected}, {data!r} has {found}. {self.advice}.")


class LeNet5(_ImageModel):
    """LeNet-5 (LeCun et al. 1998) with max pooling and ReLU: 61,706 values for one channel, 62,006 for three.

    Takes images of 28x28 (padded to 32x32 by the first layer) or of 32x32 pixels: `size` is 28 for one
    channel and 32 otherwise, unless it is given. `dataset`, the name of a data set, sets `channels`, `size`
    and `classes`.
    """

    sizes = (28, 32)
    advice = "LeNet5 is for 28x28 and 32x32 pixels; MLP takes samples of any shape"

    @staticmethod
    def _layers(channels: int, size: int, classes: int) -> nn.Module:
        return _lenet5(channels, size, classes)


class CNN(_ImageModel):
    """Two convolutions (32 and 64 channels of 3x3) and two dense layers, of about 550,000 values.

    545,098 for images of 3x32x32 (128 hidden values) and 547,522 for 1x28x28 (168): the size of the model that
    the paper of RoleML compares architectures with. Takes 28x28 and 32x32 pixels.
    """

    sizes = (28, 32)
    advice = "CNN is for 28x28 and 32x32 pixels; MLP takes samples of any shape"

    @staticmethod
    def _layers(channels: int, size: int, classes: int) -> nn.Module:
        return _cnn(channels, size, classes)


class ResNet8(_ImageModel):
    """A residual network of eight layers (He et al. 2016) with group norm, for images of 8x8 pixels and more.

    Group norm keeps no running statistics (Hsieh et al. 2020 show what those do to clients with unlike labels),
    so that averaging models averages all there is. 77,850 values for three
    channels and ten classes, 77,562 for one channel.
    """

    @staticmethod
    def _layers(channels: int, size: int, classes: int) -> nn.Module:
        from rolecall.learn.torch_resnet import resnet8

        return resnet8(channels, classes)


def _channels_last(module: nn.Module) -> nn.Module:
    """Let the module compute in the memory layout in which torch's CPU kernels pool and convolve fastest."""
    import torch

    return module.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def _image(shape: tuple[int, ...], model: str, where: str, advice: str) -> tuple[int, int]:
    """Return the channels and the size of square images."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise ConfigError(model, f"{where} holds no square images: its samples are {list(shape)}", hint=advice)
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
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(6, 16, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 5 * 5, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, classes),
    )


def _cnn(channels: int, size: int, classes: int) -> nn.Module:
    from torch import nn

    hidden = 128 if size == 32 else 168
    return nn.Sequential(
        nn.Conv2d(channels, 32, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (size // 4) ** 2, hidden),
        nn.ReLU(),
        nn.Linear(hidden, classes),
    )
