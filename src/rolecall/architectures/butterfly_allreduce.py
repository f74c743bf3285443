"""Butterfly all-reduce: recursive halving, then recursive doubling (Thakur, Rabenseifner and Gropp 2005).

In log2(n) hops two members at a time swap halves of what they are responsible for and add; in as many they swap back
the sums. Each member sends `2 (n - 1) / n` times the vector. Where n is no power of two, the members that are too many
give their vectors to others before, and get the sum after.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import rolecall as rc
from rolecall.architectures.allreduce import AllReduceAggregator, Vector, allreduce_app
from rolecall.architectures.peer import Common
from rolecall.architectures.workloads import AnyModel
from rolecall.learn import Dataset

__all__ = ("ButterflyAllReduce", "app")


_FOLD, _UNFOLD = -1, -2  # hops before and after those of the butterfly


class ButterflyAllReduce(AllReduceAggregator):
    """Sums with one member after the other, at half the distance each time."""

    async def total(self, vector: Vector, step: int) -> Vector:
        full, rank = 1 << (len(self.ring).bit_length() - 1), self.rank
        if rank >= full:
            await self.send(rank - full, step, _FOLD, vector, vector)
            return await self.receive(rank - full, step, _UNFOLD, vector)
        folded = rank + full < len(self.ring)
        if folded:
            vector = vector + await self.receive(rank + full, step, _FOLD, vector)
        result = await self.butterfly(vector, step, full)
        if folded:
            await self.send(rank + full, step, _UNFOLD, result, vector)
        return result

    async def butterfly(self, vector: Vector, step: int, full: int) -> Vector:
        """Return the sum over the first `full` members, a power of two."""
        result, mine, trail = vector.copy(), slice(0, vector.size), list[tuple[int, slice, slice]]()
        for hop in range(full.bit_length() - 1):
            partner, middle = self.rank ^ (full >> (hop + 1)), (mine.start + mine.stop) // 2
            mine, other = slice(mine.start, middle), slice(middle, mine.stop)
            if partner < self.rank:
                mine, other = other, mine
            await self.send(partner, step, hop, result[other].copy(), vector)
            result[mine] += await self.receive(partner, step, hop, vector)
            trail.append((partner, mine, other))
        for hop, (partner, mine, other) in enumerate(reversed(trail), len(trail)):
            await self.send(partner, step, hop, result[mine].copy(), vector)
            result[other] = await self.receive(partner, step, hop, vector)
        return result


def app(model: AnyModel, data: str | Dataset | Sequence[Dataset], **common: Unpack[Common]) -> rc.App:
    """Build an application for `rc.run` from a model and data.

    Args:
        model: as for `fedavg.app`; it must give gradients (`rolecall.learn.Differentiable`).
        data: a data set for each node; or one, or the name of one.
        common: see `rolecall.architectures.peer.Common`. A round is one step; `local_steps` is not used.
    """
    return allreduce_app("butterfly-allreduce", ButterflyAllReduce, model, data, common)
