"""D-PSGD, decentralised parallel SGD (Lian et al. 2017, algorithm 1).

Every node averages with its neighbours in a graph in each round, all in lock-step. The weights are those of Metropolis
and Hastings, `w_ij = 1 / (1 + max(m_i, m_j))` with m the number of neighbours, which each node finds from what its
neighbours send; they are symmetric, so that mixing keeps the mean of all models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

import msgspec

import rolecall as rc
from rolecall.architectures.peer import Common, Peer, alike, peers_app
from rolecall.architectures.workloads import AnyModel
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset

__all__ = ("AdaptThenCombine", "DPSGDNode", "Shared", "app", "metropolis_hastings", "mixed")


class Shared(msgspec.Struct, frozen=True):
    """A node's model before the mixing of a round, and the number of neighbours it goes to."""

    round: int
    params: Tensors
    degree: int


class DPSGDNode(Peer):
    """Mixes its model with its neighbours' and makes its own step: `x_i <- sum_j w_ij x_j - lr * g_i(x_i)`.

    The gradient is that of the model before mixing, so that computing and sending overlap. When a neighbour is lost,
    the others go on without it, and the weights of those left still keep their mean.
    """

    neighbours: rc.Group[DPSGDNode] = rc.many()
    models = rc.Inbox(Shared, key=lambda shared: shared.round)

    async def one_round(self, params: Tensors, round: int) -> Tensors:
        mine = await self.share(params, round)
        trained = await self.descend(params, round)
        return mixed(mine, await self.received(round)) + (trained - params)

    async def share(self, params: Tensors, round: int) -> Shared:
        """Send a model to the neighbours there are now, and return what was sent."""
        mine = Shared(round, params, len(self.neighbours.others))
        try:
            await self.neighbours.others.put(DPSGDNode.models, mine)
        except rc.RoleLost as lost:  # the others have it
            self.logger.warning("goes on without a neighbour: %s", lost)
        return mine

    async def received(self, round: int) -> Mapping[rc.RoleId, Shared]:
        """Wait for the models of a round of all neighbours that are still there."""
        while True:
            try:
                return await self.models.collect(self.neighbours.others, key=round)
            except rc.RoleLost as lost:
                self.logger.warning("goes on without a neighbour: %s", lost)


class AdaptThenCombine(DPSGDNode):
    """Mixes what the steps of a round made of the models: `x_i <- sum_j w_ij (x_j - lr * g_j(x_j))`."""

    async def one_round(self, params: Tensors, round: int) -> Tensors:
        mine = await self.share(await self.descend(params, round), round)
        return mixed(mine, await self.received(round))


def mixed(mine: Shared, received: Mapping[rc.RoleId, Shared]) -> Tensors:
    """Return the mean of a node's model and those it received, with the weights of Metropolis and Hastings."""
    for who, other in received.items():
        alike(other.params, mine.params, who)
    others = received.values()
    weights = metropolis_hastings(mine.degree, [other.degree for other in others])
    return Tensors.mean([mine.params, *(other.params for other in others)], weights)


def metropolis_hastings(degree: int, degrees: Sequence[int]) -> list[float]:
    """Return a node's own weight and that of each neighbour, from the numbers of neighbours of all of them."""
    weights = [1 / (1 + max(degree, other)) for other in degrees]
    return [max(0.0, 1 - sum(weights)), *weights]


def app(
    model: AnyModel,
    data: str | Dataset | Sequence[Dataset],
    *,
    topology: str = "regular(4)",
    adapt_first: bool = False,
    **common: Unpack[Common],
) -> rc.App:
    """Build an application for `rc.run` from a model and data.

    Args:
        model: as for `fedavg.app`; it must give gradients (`rolecall.learn.Differentiable`).
        data: a data set for each node; or one, or the name of one.
        topology: the graph of the nodes; see `rolecall.core.topologies`.
        adapt_first: mix what the steps of a round made of the models, not the models before them.
        common: see `rolecall.architectures.peer.Common`.
    """
    return peers_app(
        "dpsgd",
        AdaptThenCombine if adapt_first else DPSGDNode,
        model,
        data,
        {"rounds": 100, "lr": 0.3, **common},
        related={"worker": {"neighbours": rc.Topology(topology, of="node*/worker")}},
    )
