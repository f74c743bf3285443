"""What a fork server imports before it forks nodes: what these would import anyway, and what is safe to share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any, Final

from rolecall.fleet.portable import modules

__all__ = ("preloaded",)

_RUNTIME: Final = (
    "numpy",
    "uvloop",
    "anyio._backends._asyncio",
    "rolecall.fleet.node_process",
    "rolecall.fleet.check",
)
_CHECKED: Final = ("rolecall.runtime.checking",)
_TORCH: Final = (
    "torch",
    "rolecall.learn.torch_model",
    "rolecall.learn.torch_random",
    "rolecall.learn.torch_sgd",
    "rolecall.learn.torch_training",
)
_USES_TORCH: Final = frozenset(("rolecall.learn.models", "rolecall.learn.torch_model"))
# The first step of an optimizer of torch's own imports its compiler; in each node that would take two seconds.
_OPTIMIZERS: Final = ("torch._dynamo",)
_HEAVY: Final = frozenset(("torch", "torchvision", "torchaudio", "sklearn", "scipy", "pandas", "transformers"))


def preloaded(application: dict[str, Any], *, checked: bool) -> list[str]:
    """Return the modules to import for the nodes of an application, which has been imported in this process.

    Modules of the application's own are not among them: they may do more than define something when they are
    imported. Of the large packages they have imported, all is that they have loaded here.
    """
    named = modules(application)
    found = [*_RUNTIME, *(_CHECKED if checked else ())]
    found += [name for name in named if name.partition(".")[0] == "rolecall"]
    if "torch" in sys.modules or not _USES_TORCH.isdisjoint(named):
        found += _TORCH
    if "torch" in sys.modules or any("adam" in text for text in _texts(application)):
        found += _OPTIMIZERS
    found += [name for name in sys.modules if name.partition(".")[0] in _HEAVY]
    return list(dict.fromkeys(found))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
