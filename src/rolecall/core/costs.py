"""How much work a computation is, where a model of a device has to say how long it takes."""

from __future__ import annotations

__all__ = ("Flops",)


class Flops(float):
    """A cost in floating-point operations: `compute(fn, cost=Flops(2e9))`; a plain number counts samples."""

    __slots__ = ()
