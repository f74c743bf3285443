"""The content of elements in files: what of an element is saved, and how it gets it back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rolecall.core.errors import DataError
from rolecall.core.tensors import Tensors
from rolecall.wire import encode, load_value, save_value

__all__ = ("require_savable", "restored", "save")


def save(path: str, value: Any) -> None:
    """Write the content of an element.

    That is its `snapshot()`, where it has `restore(snapshot)` too; its `parameters()`, where it has
    `load(parameters)`; the `state_dict()` of a torch module; or else the element itself.

    Raises:
        NotEncodable: the content cannot travel.
        DataError: the file cannot be written.
    """
    save_value(Path(path), _content(value))


def restored(path: str, value: Any) -> Any:
    """Return the element with the content of a file, or the content in its place where it is its own content.

    Raises:
        DataError: the file is missing or damaged.
        WrongType: it holds something else than the element would save.
    """
    before = _content(value)
    content: Any = load_value(Path(path), Any if before is None else type(before))
    if _is_module(value):
        value.load_state_dict(content.torch())
        return value
    pair = _pair(value)
    if pair is None:
        return content
    getattr(value, pair[1])(content)
    return value


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
    pair = _pair(value)
    return value if pair is None else getattr(value, pair[0])()


def _pair(value: Any) -> tuple[str, str] | None:
    """Return the methods that give and take the content of an element that has them."""
    for give, take in (("snapshot", "restore"), ("parameters", "load")):
        if hasattr(value, give) and hasattr(value, take):
            return give, take
    return None


def _is_module(value: Any) -> bool:
    """Whether it is a torch module, whose `parameters()` are not what its `load_state_dict` takes."""
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")
