"""Ring all-reduce (Patarasuk and Yuan 2009; Horovod, Sergeev and Del Balso 2018).

The vector is cut into as many chunks as there are members. In n - 1 hops every chunk travels round the ring and is
added to, in n - 1 more its sum travels round. Each member sends `2 (n - 1) / n` times the vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack

import numpy as np

import rolecall as rc
from rolecall.architectures.allreduce import AllReduceAggregator, Vector, allreduce_app
from rolecall.architectures.peer import Common
from rolecall.architectures.workloads import AnyModel
from rolecall.learn import Dataset

__all__ = ("RingAllReduce", "app")


class RingAllReduce(AllReduceAggregator):
    """Passes chunks to the right: first sums under way, then what has come of them."""

    async def total(self, vector: Vector, step: int) -> Vector:
        n, rank = len(self.ring), self.rank
        chunks = np.array_split(vector, n)
        for hop in range(2 * (n - 1)):
            await self.send(rank + 1, step, hop, chunks[(rank - hop) % n], vector)
            got = await self.receive(rank - 1, step, hop, vector)
            at = (rank - hop - 1) % n
            chunks[at] = chunks[at] + got if hop < n - 1 else got
        return np.concatenate(chunks)


def app(model: AnyModel, data: str | Dataset | Sequence[Dataset], **common: Unpack[Common]) -> rc.App:
    """Build an application for `rc.run` from a model and data.

    Args:
        model: as for `fedavg.app`; it must give gradients (`rolecall.learn.Differentiable`).
        data: a data set for each node; or one, or the name of one.
        common: see `rolecall.architectures.peer.Common`. A round is one step; `local_steps` is not used.
    """
    return allreduce_app("ring-allreduce", RingAllReduce, model, data, common)
