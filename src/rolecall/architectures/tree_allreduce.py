"""Tree all-reduce: sums go up a binary tree, and the sum of all comes down.

It takes 2 log2(n) hops of the whole vector: good for few values, where the time of a hop counts more than its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import rolecall as rc
from rolecall.architectures.allreduce import AllReduceAggregator, Vector, allreduce_app
from rolecall.architectures.peer import Common
from rolecall.architectures.workloads import AnyModel
from rolecall.learn import Dataset

__all__ = ("TreeAllReduce", "app")


_UP, _DOWN = 0, 1


class TreeAllReduce(AllReduceAggregator):
    """Adds what the members below give, passes that up, and passes down what comes back."""

    async def total(self, vector: Vector, step: int) -> Vector:
        rank, result = self.rank, vector
        below = [child for child in (2 * rank + 1, 2 * rank + 2) if child < len(self.ring)]
        for child in below:
            result = result + await self.receive(child, step, _UP, vector)
        if rank > 0:
            await self.send((rank - 1) // 2, step, _UP, result, vector)
            result = await self.receive((rank - 1) // 2, step, _DOWN, vector)
        for child in below:
            await self.send(child, step, _DOWN, result, vector)
        return result


def app(model: AnyModel, data: str | Dataset | Sequence[Dataset], **common: Unpack[Common]) -> rc.App:
    """Build an application for `rc.run` from a model and data.

    Args:
        model: as for `fedavg.app`; it must give gradients (`rolecall.learn.Differentiable`).
        data: a data set for each node; or one, or the name of one.
        common: see `rolecall.architectures.peer.Common`. A round is one step; `local_steps` is not used.
    """
    return allreduce_app("tree-allreduce", TreeAllReduce, model, data, common)
