"""How much an update counts that started from an older model than the one it is merged into (Xie et al. 2019)."""

from __future__ import annotations

from typing import Literal, TypeAlias

from rolecall.core.errors import CallerError, ConfigError, nearest

__all__ = ("Discount", "discount")

Discount: TypeAlias = Literal["constant", "polynomial", "hinge"]


def discount(staleness: int, how: Discount | str = "polynomial", *, a: float = 0.5, b: int = 4) -> float:
    """Return the factor, 1 for a fresh update, for one that is `staleness` versions old.

    `constant` is 1; `polynomial` is (1 + staleness)^-a; `hinge` is 1 up to `b` and 1 / (a (staleness - b) + 1)
    beyond (FedAsync, section 5.2).
    """
    if staleness < 0:
        raise CallerError(f"staleness is {staleness}: an update cannot start from a model that is still to come.")
    match how:
        case "constant":
            return 1.0
        case "polynomial":
            return float((1 + staleness) ** -a)
        case "hinge":
            return 1.0 if staleness <= b else 1.0 / (a * (staleness - b) + 1)
        case other:
            hint = f"Known are constant, polynomial, hinge.{nearest(other, ('constant', 'polynomial', 'hinge'))}"
            raise ConfigError("staleness", f"there is no discount {other!r}", hint=hint)
