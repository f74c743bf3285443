"""What the architectures without a server share: a node that descends on its own data, and holds a model of its own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import anyio
import msgspec

import rolecall as rc
from rolecall.architectures.roles import Rounds, Tester, Worker
from rolecall.architectures.settings import at_least_one
from rolecall.architectures.workloads import AnyModel, client_data, model_element, test_element
from rolecall.core.errors import CallerError
from rolecall.core.tensors import Tensors
from rolecall.learn import Dataset, Differentiable, Gradient, Update
from rolecall.learn.screening import BadUpdate, fault

__all__ = ("Common", "Peer", "PeerState", "Replica", "alike", "neighbours", "peers_app", "require_finite")


class PeerState(msgspec.Struct):
    """The rounds done and the node's own model after them."""

    round: int = 0
    params: Tensors | None = None


class Replica(Rounds, Worker):
    """Holds a model, and makes steps of plain SGD on the local data.

    The batches of a node are one endless sequence, decided by its seed; `local_steps` of them are a round's. All
    `test_every` rounds, and after the last, it reports, and `after_round` is called, for testers to extend.
    """

    model: Differentiable = rc.element()
    data: Dataset = rc.element()
    state = rc.State(PeerState)

    def __init__(
        self, rounds: int = 100, local_steps: int = 1, batch_size: int = 32, lr: float = 0.1, test_every: int = 10
    ) -> None:
        at_least_one(type(self).__name__, local_steps=local_steps, batch_size=batch_size, test_every=test_every)
        self.rounds, self.local_steps, self.test_every = rounds, local_steps, test_every
        self.batch_size, self.lr = batch_size, lr
        self.unreported: list[tuple[int, float]] = []  # samples and loss of each step since the last report
        self.since_s: float | None = None

    @property
    def params(self) -> Tensors:
        """The node's model as it is now; at the start, the one common to all."""
        if self.state.params is None:
            self.state.params = self.model.parameters()
        return self.state.params

    async def gradient(self, params: Tensors, step: int) -> Tensors:
        """Return the mean gradient at `params` of the node's batch number `step`, from 0."""
        with self.at_work():
            size = min(self.batch_size, len(self.data))
            found = await self.compute(self.batch, params, step, cost=size)
        self.unreported.append((found.samples, found.loss))
        return require_finite(found.values, f"{self.id}: the gradient of step {step}")

    async def descend(self, params: Tensors, round: int) -> Tensors:
        """Return `params` after the steps of a round, from 0."""
        steps = range(round * self.local_steps, (round + 1) * self.local_steps)
        with self.at_work():
            size = min(self.batch_size, len(self.data))
            params, done = await self.compute(self.steps, params, steps, cost=size * len(steps))
        self.unreported += done
        return require_finite(params, f"{self.id}: the model after the steps of round {round}")

    def steps(self, params: Tensors, steps: range) -> tuple[Tensors, list[tuple[int, float]]]:
        """Return `params` after these steps, and of each its samples and loss; runs in a worker thread."""
        done: list[tuple[int, float]] = []
        for step in steps:
            found = self.batch(params, step)
            params = params - self.lr * found.values
            done.append((found.samples, found.loss))
        return params, done

    def batch(self, params: Tensors, step: int) -> Gradient:
        """Return the gradient of batch number `step`; runs in a worker thread."""
        return self.model.gradient(params, self.data, batch_size=self.batch_size, step=step, seed=self.seed("batches"))

    async def finish_round(self, params: Tensors) -> None:
        """Make `params` the node's model after one more round."""
        self.state.params = params
        self.state.round += 1
        await self.tell(self.state.round, params)

    async def tell(self, round: int, params: Tensors) -> None:
        """Report what was done up to a round, from 1, and have the model tested, where it is time to."""
        if round % self.test_every == 0 or round == self.rounds:
            samples = sum(samples for samples, _ in self.unreported)
            loss = sum(samples * loss for samples, loss in self.unreported) / max(1, samples)
            self.unreported = []
            now_s = anyio.current_time()
            await self.report(round, samples, loss, self.since_s or now_s)
            self.since_s = now_s
            await self.after_round(round, params)


class Peer(Replica):
    """Makes round after round at its own pace: derive, and say what a round is."""

    async def main(self) -> None:
        while self.state.round < self.rounds:
            await self.safe_point()
            await self.finish_round(await self.one_round(self.params, self.state.round))

    @abstractmethod
    async def one_round(self, params: Tensors, round: int) -> Tensors:
        """Return the node's next model, given the one it holds; rounds count from 0."""


def require_finite(params: Tensors, what: str) -> Tensors:
    """Return `params`; raise `CallerError`, which names `what`, where they hold NaN or an infinite value."""
    if params.isfinite():
        return params
    raise CallerError(f"{what} is not finite. The step size may be too large, or the data hold NaN.")


def alike(params: Tensors, like: Tensors, source: str) -> Tensors:
    """Return a model that came from `source`; raise `BadUpdate`, which names it, where it cannot be averaged."""
    problem = fault(Update(params, 1, 0.0), like)
    if problem is not None:
        raise BadUpdate(source, problem)
    return params


def neighbours(topology: str, of: str) -> rc.Topology | str:
    """Return the relationship of a role to its neighbours; everybody is a pattern, so that who joins is in it."""
    return of if topology == "complete" else rc.Topology(topology, of=of)


class Common(TypedDict, total=False):
    """What the builders of these architectures take beside their own options.

    `rounds`, `local_steps`, `batch_size`, `lr` and `test_every` are options of `Replica`. `data` is split among `nodes`
    (10) by `partition` (`iid`), unless there is a data set for each. `test` is what every model is tested on: by
    default the test part of a named data set.
    """

    rounds: int
    local_steps: int
    batch_size: int
    lr: float
    test_every: int
    test: str | Dataset | None
    nodes: int | None
    partition: str
    seed: int | None


def peers_app(
    name: str,
    worker: type[Replica],
    model: AnyModel,
    data: str | Dataset | Sequence[Dataset],
    common: Common,
    *,
    options: Mapping[str, Any] | None = None,
    beside: Mapping[str, rc.RoleSpec] | None = None,
    related: Mapping[str, Mapping[str, rc.Topology | str]],
) -> rc.App:
    """Build an application of equal nodes, `node1` and so on, each with a role `worker`; for the builders.

    Args:
        options: further options of the workers.
        beside: further roles that every node has.
        related: the relationships of these roles of every node, by role.
    """
    shares = client_data(data, common.get("partition", "iid"), common.get("nodes"))
    tested = test_element(data, common.get("test"))
    workers_own = {key: value for key, value in common.items() if key not in ("test", "nodes", "partition", "seed")}
    given = {"model": model_element(model)} | ({"test_data": tested} if tested else {})
    workers = {
        f"node{number}": {
            "worker": rc.RoleSpec(
                worker, {**workers_own, **(options or {})}, {**given, "data": share}, [Tester] if tested else []
            )
        }
        for number, share in enumerate(shares, 1)
    }
    return rc.App(
        name=name,
        parameters={"rounds": workers_own["rounds"]},
        nodes={f"node[1-{len(shares)}]": rc.Node()},
        roles={**workers, "node*": dict(beside or {})},
        relationships={f"node*/{role}": dict(targets) for role, targets in related.items()},
        seed=common.get("seed"),
    )
