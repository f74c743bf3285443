"""ResNet-8 with group norm (He et al. 2016; Wu and He 2018), in torch."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ("resnet8",)

_WIDTHS = (16, 32, 64)
_GROUP = 8  # channels a group


def resnet8(channels: int, classes: int) -> nn.Module:
    """Return a network of a convolution, three residual blocks and a dense layer."""
    blocks: list[nn.Module] = []
    before = _WIDTHS[0]
    for width in _WIDTHS:
        blocks.append(_Block(before, width, stride=1 if width == before else 2))
        before = width
    return nn.Sequential(
        _convolution(channels, _WIDTHS[0]),
        _norm(_WIDTHS[0]),
        nn.ReLU(),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(before, classes),
    )


class _Block(nn.Module):
    """Two convolutions, and what came in added to what comes out."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.first, self.first_norm = _convolution(before, width, stride), _norm(width)
        self.second, self.second_norm = _convolution(width, width), _norm(width)
        same = before == width and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(before, width, 1, stride=stride, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        inner = F.relu(self.first_norm(self.first(x)))
        inner = self.second_norm(self.second(inner))
        return F.relu(inner + self.shortcut(x))


def _convolution(before: int, width: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)


def _norm(width: int) -> nn.GroupNorm:
    return nn.GroupNorm(width // _GROUP, width)
