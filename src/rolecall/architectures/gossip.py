"""Gossip learning (Hegedus, Danner, Jelasity 2019): no server, no rounds in common, and nobody waits for anybody.

Every node has a model and its age, the number of updates it has seen. Again and again it trains its model, pushes it to
a neighbour, and merges what neighbours have pushed to it, each weighted by its age:
`w <- (t w + sum_r t_r w_r) / (t + sum_r t_r)`, `t <- max(t, t_r)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Unpack

import anyio
import msgspec

import rolecall as rc
from rolecall.architectures.peer import Common, Peer, PeerState, alike, neighbours, peers_app
from rolecall.architectures.settings import at_least_one
from rolecall.architectures.workloads import AnyModel
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset

__all__ = ("Aged", "GossipNode", "GossipState", "PushAggregator", "app", "merged")


class Aged(msgspec.Struct, frozen=True):
    """A model, and how many updates it has seen."""

    params: Tensors
    age: int


class PushAggregator(rc.Role):
    """Pushes a node's models to `fanout` neighbours at a time, and keeps what they push until it is fetched.

    Kept is the newest model of each, so that a slow node holds at most one for every neighbour.

    A neighbour that is gone, or that does not answer within `patience_s`, is done without.
    """

    neighbours: rc.Group[PushAggregator] = rc.many()

    def __init__(self, fanout: int = 1, patience_s: float = 5.0) -> None:
        at_least_one("PushAggregator", fanout=fanout)
        self.fanout, self.patience_s = fanout, patience_s
        self.kept = dict[rc.RoleId, Aged]()

    @rc.service
    async def push(self, model: Aged, step: int) -> None:
        group = self.neighbours.others
        order = self.rng("push", step).permutation(len(group))[: self.fanout]
        chosen = group.only(group.ids[int(at)] for at in order).within(deadline_s=self.patience_s, late="ignore")
        try:
            await chosen.call(PushAggregator.accept, model)
        except rc.QuorumMissed as missed:
            self.logger.warning("goes on without neighbours: %s", missed)

    @rc.service(allow="neighbours")
    async def accept(self, model: Aged) -> None:
        self.kept[rc.caller()] = model

    @rc.service
    async def fetch(self) -> dict[rc.RoleId, Aged]:
        kept, self.kept = self.kept, {}
        return kept


class GossipState(PeerState):
    """The rounds done, the node's model, and its age."""

    age: int = 0


class GossipNode(Peer):
    """Trains, pushes, merges; `period_s` is the least time between two of its pushes."""

    aggregator: PushAggregator = rc.one()
    state = rc.State(GossipState)

    def __init__(
        self,
        rounds: int = 100,
        local_steps: int = 1,
        batch_size: int = 32,
        lr: float = 0.1,
        test_every: int = 10,
        period_s: float = 0.0,
    ) -> None:
        super().__init__(rounds, local_steps, batch_size, lr, test_every)
        self.period_s = period_s

    async def one_round(self, params: Tensors, round: int) -> Tensors:
        due_s = anyio.current_time() + self.period_s
        params = await self.descend(params, round)
        self.state.age += self.local_steps
        await self.aggregator.push(Aged(params, self.state.age), round)
        await anyio.sleep_until(due_s)
        return self.merge(params, await self.aggregator.fetch())

    def merge(self, params: Tensors, received: Mapping[rc.RoleId, Aged]) -> Tensors:
        """Return the node's model merged with those it received, and take over the greatest of their ages."""
        for who, other in received.items():
            alike(other.params, params, who)
        result = merged(Aged(params, self.state.age), list(received.values()))
        self.state.age = result.age
        return result.params


def merged(mine: Aged, received: Sequence[Aged]) -> Aged:
    """Return the mean of models, each weighted by its age, so that one that has seen nothing counts for nothing."""
    models = [mine, *(other for other in received if other.age > 0)]
    params = Tensors.mean([m.params for m in models], [m.age for m in models]) if len(models) > 1 else mine.params
    return Aged(params, max(m.age for m in models))


def app(
    model: AnyModel,
    data: str | Dataset | Sequence[Dataset],
    *,
    topology: str = "regular(4)",
    fanout: int = 1,
    period_s: float = 0.0,
    **common: Unpack[Common],
) -> rc.App:
    """Build an application for `rc.run` from a model and data.

    Args:
        model: as for `fedavg.app`; it must give gradients (`rolecall.learn.Differentiable`).
        data: a data set for each node; or one, or the name of one.
        topology: the graph of the nodes; see `rolecall.core.topologies`. In a `complete` one, who joins later is in.
        fanout: to how many neighbours a model is pushed.
        period_s: the least time between two pushes of a node.
        common: see `rolecall.architectures.peer.Common`.
    """
    return peers_app(
        "gossip",
        GossipNode,
        model,
        data,
        {"rounds": 150, "lr": 0.3, **common},
        options={"period_s": period_s},
        beside={"aggregator": rc.RoleSpec(PushAggregator, {"fanout": fanout})},
        related={"aggregator": {"neighbours": neighbours(topology, "node*/aggregator")}},
    )
