"""Look at what others sent before it is averaged: no model of another shape, nothing infinite or NaN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, TypeAlias, TypeVar

import numpy as np

from rolecall.core.errors import CallerError, ConfigError, WrongType
from rolecall.core.tensors import Tensors
from rolecall.learn.model import Gradient, Update

__all__ = ("BadUpdate", "OnBad", "fault", "screened")

OnBad: TypeAlias = Literal["fail", "drop"]
K = TypeVar("K", bound=str)
U = TypeVar("U", Update, Gradient)


class BadUpdate(CallerError):
    """Raised when an update cannot be averaged; names the role it came from."""

    def __init__(self, role: str, problem: str) -> None:
        super().__init__(f"{role}: its update cannot be averaged: {problem}")
        self.role = role


def screened(updates: Mapping[K, U], like: Tensors, bad: OnBad = "fail") -> dict[K, U]:
    """Return the updates that can be averaged with models such as `like`, in their order.

    The first that cannot (another spec, a value that is infinite or NaN, no samples) raises `BadUpdate`, or
    is left out where `bad` is "drop". Raises `BadUpdate` for the first where none is left.
    """
    if bad not in ("fail", "drop"):
        raise ConfigError("bad updates", f"found {bad!r}", hint="Write 'fail' or 'drop'")
    faults = {role: problem for role, update in updates.items() if (problem := fault(update, like)) is not None}
    if faults and (bad == "fail" or len(faults) == len(updates)):
        raise BadUpdate(*next(iter(faults.items())))
    return {role: update for role, update in updates.items() if role not in faults}


def fault(update: Update | Gradient, like: Tensors) -> str | None:
    """Return why an update cannot be averaged, or None."""
    values = update.params if isinstance(update, Update) else update.values
    try:
        values.require_spec(like.spec, "its tensors")
    except WrongType as error:
        return str(error)
    if update.samples < 1:
        return f"it rests on {update.samples} samples"
    if not values.isfinite():
        return f"tensor {_not_finite(values)!r} holds values that are infinite or not a number"
    return None


def _not_finite(values: Tensors) -> str:
    return next((name for name, array in values.items() if not np.isfinite(array).all()), "?")
