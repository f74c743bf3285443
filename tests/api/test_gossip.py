"""Gossip learning: every role sends its model to a neighbour, merges what it hears by age, and learns."""

from __future__ import annotations

from collections import defaultdict

import anyio
import msgspec
import numpy as np

import rolecall as rc

# --------------------------------------------------------------------------------------------- the algorithm


class Quadratic:
    """Learns a point by gradient descent on the distance to it: the smallest model there is."""

    def __init__(self, center: float) -> None:
        self.center = center

    def fit(self, params: rc.Tensors) -> rc.Tensors:
        return rc.Tensors({"x": params["x"] - 0.1 * (params["x"] - self.center)})

    def loss(self, params: rc.Tensors) -> float:
        return float(((params["x"] - self.center) ** 2).mean())


class Aged(msgspec.Struct, frozen=True):
    """A model and how many updates it has seen."""

    params: rc.Tensors
    age: int


class GossipState(msgspec.Struct):
    mine: Aged = Aged(rc.Tensors({"x": np.zeros(3)}), 1)


class Gossip(rc.Role):
    """Gossip learning (Hegedus et al. 2019): no server, no rounds in common, no replies."""

    model: Quadratic = rc.element()
    peers: rc.Group[Gossip] = rc.many()
    received = rc.Inbox(Aged)
    state = rc.State(GossipState)

    def __init__(self, rounds: int, period_s: float = 0.0) -> None:
        self.rounds, self.period_s = rounds, period_s

    async def main(self) -> None:
        for round in range(self.rounds):
            await self.peers.choice().received.put(self.state.mine)
            await anyio.sleep(self.period_s)
            for source, other in self.received.drain():
                self.hear(source, other)
            params = await self.compute(self.model.fit, self.state.mine.params)
            self.state.mine = Aged(params, self.state.mine.age + 1)
            self.log(round=round, age=self.state.mine.age, loss=self.model.loss(params))

    def hear(self, source: rc.RoleId, other: Aged) -> None:
        self.state.mine = merge(self.state.mine, other)


def merge(one: Aged, other: Aged) -> Aged:
    """Return the mean of two models, weighted by age."""
    params = (one.params * one.age + other.params * other.age) / (one.age + other.age)
    return Aged(params, max(one.age, other.age))


# ------------------------------------------------------------------------------------------- what must hold

NODES, ROUNDS = 8, 40


class Witness(Gossip):
    """Notes whose model it merges, so that the run can be done again, one step after the other."""

    def hear(self, source: rc.RoleId, other: Aged) -> None:
        self.log(heard=source, age=other.age)
        super().hear(source, other)


def application() -> rc.App:
    center = {"$range": {"from": 1, "step": 1}}
    return rc.App(
        name="gossip",
        nodes={f"device[1-{NODES}]": rc.Node()},
        roles={
            "device*": {
                "gossip": rc.RoleSpec(
                    Witness,
                    options={"rounds": ROUNDS},
                    elements={"model": rc.ElementSpec(Quadratic, options={"center": center})},
                )
            }
        },
        relationships={"device*/gossip": {"peers": rc.Topology("regular(3)", of="device*/gossip")}},
        seed=7,
    )


async def test_every_merge_is_the_one_a_serial_run_makes() -> None:
    history = await rc.run(application(), checked=True)
    assert {role: state.mine for role, state in history.states.items()} == serial(history)
    heard = [(m.values["heard"], m.values["age"]) for m in history.metrics if "heard" in m.values]
    assert len(heard) == len(set(heard)), "a model was delivered twice"
    assert NODES * ROUNDS * 0.8 < len(heard) <= NODES * ROUNDS


async def test_models_stay_between_the_centers_and_come_together() -> None:
    history = await rc.run(application(), checked=True)
    models = np.array([state.mine.params["x"] for state in history.states.values()])
    assert models.min() >= 0 and models.max() <= NODES
    assert np.ptp(models, axis=0).max() < 0.5 * (NODES - 1), "the models are hardly nearer than the centers"
    assert abs(models.mean() - (1 + NODES) / 2) < 1.5


def serial(history: rc.History) -> dict[str, Aged]:
    """Return each role's model, computed from who heard whom alone."""
    diaries: dict[str, list[dict[str, float | int | str]]] = defaultdict(list)
    for metric in history.metrics:
        diaries[metric.role].append(metric.values)
    mine = {role: GossipState().mine for role in diaries}
    sent = {(role, 1): model for role, model in mine.items()}
    left = sum(map(len, diaries.values()))
    while left:
        for role, diary in diaries.items():
            while diary and ("heard" not in diary[0] or (diary[0]["heard"], diary[0]["age"]) in sent):
                entry = diary.pop(0)
                left -= 1
                if "heard" in entry:
                    mine[role] = merge(mine[role], sent[str(entry["heard"]), int(entry["age"])])
                else:
                    model = Quadratic(float(role.removeprefix("device").removesuffix("/gossip")))
                    mine[role] = Aged(model.fit(mine[role].params), mine[role].age + 1)
                    sent[role, mine[role].age] = mine[role]
    return mine
