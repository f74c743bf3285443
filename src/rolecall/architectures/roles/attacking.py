"""An attacker that reads along: why gradients are not anonymous."""

from __future__ import annotations

import rolecall as rc
from rolecall.architectures.roles.gradients import GradientTrainer
from rolecall.learn import Gradient, invert
from rolecall.learn.inversion import Inverted

__all__ = ("Attacker",)


class Attacker(rc.Role):
    """Subscribes to the gradients of the trainers and recovers the samples of those who train on one at a time."""

    victims: rc.Group[GradientTrainer] = rc.many()

    def __init__(self, keep: int = 16) -> None:
        """Keep the newest `keep` findings."""
        self.keep = keep
        self.found: list[tuple[rc.RoleId, Inverted]] = []

    @victims.on(GradientTrainer.computed, where={"samples": 1}, overflow="drop_oldest")
    async def seen(self, source: rc.RoleId, gradient: Gradient) -> None:
        """Invert the gradient of a single sample."""
        inverted = await self.compute(invert, gradient.values)
        self.found = [*self.found, (source, inverted)][-self.keep :]
        self.log(victim=source, label=inverted.label)

    @rc.service
    async def findings(self) -> list[tuple[rc.RoleId, Inverted]]:
        """Return what has been recovered, and from whom."""
        return self.found
