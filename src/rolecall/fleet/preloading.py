"""What a fork server imports before it forks nodes: what these would import anyway, and what is safe to share."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Final

from rolecall.fleet.portable import modules

__all__ = ("preloaded",)

_RUNTIME: Final = (
    "numpy",
    "numpy.ma",  # numpy itself imports it when it reads text
    "encodings.idna",  # asyncio does when it looks up a host
    "uvloop",
    "anyio._backends._asyncio",
    "rolecall.fleet.node_process",
)
_CHECKED: Final = ("rolecall.runtime.checking",)
_TORCH: Final = (
    "torch",
    "rolecall.learn.torch_model",
    "rolecall.learn.torch_random",
    "rolecall.learn.torch_sgd",
    "rolecall.learn.torch_training",
)
_USE_TORCH: Final = frozenset(("rolecall.learn.models", "rolecall.learn.torch_model"))
"""What imports torch when it is used."""
# The first step of an optimizer of torch's own imports its compiler; in each node that would take two seconds.
_OPTIMIZERS: Final = ("torch._dynamo",)
_LARGE: Final = ("torch", "torchvision", "torchaudio", "sklearn", "scipy", "pandas", "transformers")


def preloaded(application: dict[str, Any], *, checked: bool) -> list[str]:
    """Return the modules to import for the nodes of an application, which has been imported in this process.

    Modules of the application's own are not among them: they may do more than define something when they are
    imported. Of the large packages that they use, all is that is loaded here.
    """
    named = modules(application)
    found = [*_RUNTIME, *(_CHECKED if checked else ())]
    found += [name for name in named if _package(name) == "rolecall"]
    used = _used(named)
    if "torch" in used or not _USE_TORCH.isdisjoint(named):
        found += _TORCH
    if "torch" in used or any("adam" in text for text in _texts(application)):
        found += _OPTIMIZERS
    found += [name for name in sys.modules if _package(name) in used]
    return list(dict.fromkeys(found))


def _used(named: list[str]) -> set[str]:
    """Return which of the large packages an application's own modules have at hand, and those that they import."""
    found: set[str] = set()
    seen: set[str] = set()
    waiting = list(named)
    while waiting:
        name = waiting.pop()
        module = sys.modules.get(name)
        if name in seen or module is None or _package(name) == "rolecall":
            continue
        seen.add(name)
        if _package(name) in _LARGE:
            found.add(_package(name))
        elif not _is_installed(module):
            waiting += _homes(module)
    return found


def _homes(module: ModuleType) -> Iterator[str]:
    """Yield the modules that the global names of a module stand for, or come from."""
    for value in vars(module).values():
        home = value.__name__ if isinstance(value, ModuleType) else getattr(value, "__module__", None)
        if isinstance(home, str):
            yield home


def _is_installed(module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return file is None or file.startswith(tuple(sysconfig.get_paths().values()))


def _package(module: str) -> str:
    return module.partition(".")[0]


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)
