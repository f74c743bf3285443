"""The content of elements in files: what of an element is saved, and how it gets it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rolecall.core.errors import DataError
from rolecall.core.tensors import Tensors
from rolecall.wire import encode, load_value, save_value

__all__ = ("require_savable", "restored", "save")


def save(path: str, value: Any) -> None:
    """Write the content of an element: its `snapshot()`, `parameters()` or `state_dict()`, or else itself.

    Raises:
        NotEncodable: the content cannot travel.
        DataError: the file cannot be written.
    """
    save_value(Path(path), _content(value))


def restored(path: str, value: Any) -> Any:
    """Return the element with the content of a file: by `restore(content)`, `load(content)` or
    `load_state_dict(content)`; or else the content itself in its place.

    Raises:
        DataError: the file is missing or damaged.
        WrongType: it holds something else than the element would save.
    """
    before = _content(value)
    content: Any = load_value(Path(path), Any if before is None else type(before))
    if _is_module(value):
        value.load_state_dict(content.torch())
        return value
    for name in ("restore", "load"):
        if hasattr(value, name):
            getattr(value, name)(content)
            return value
    return content


def require_savable(path: str, value: Any) -> None:
    """Raise what saving would, before the work whose result is to be saved.

    Raises:
        NotEncodable: the content cannot travel.
        DataError: the directory does not exist.
    """
    if not Path(path).parent.is_dir():
        raise DataError(path, f"there is no directory {Path(path).parent} to save it in")
    encode(_content(value), where=type(value).__qualname__)


def _content(value: Any) -> Any:
    if _is_module(value):
        return Tensors(value.state_dict())
    for name in ("snapshot", "parameters"):
        if hasattr(value, name):
            return getattr(value, name)()
    return value


def _is_module(value: Any) -> bool:
    """Whether it is a torch module, whose `parameters()` are not what its `load_state_dict` takes."""
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")
