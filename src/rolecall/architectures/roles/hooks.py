"""What a role with rounds and its extensions share."""

from __future__ import annotations

import rolecall as rc
from rolecall.core.tensors import Tensors

__all__ = ("Rounds",)


class Rounds(rc.Role):
    """A role with rounds: a routine after each, which extensions add to with `super()`."""

    async def after_round(self, round: int, params: Tensors) -> None: ...
