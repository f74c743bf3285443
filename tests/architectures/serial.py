"""Serial references: every architecture as plain loops over flat float64 vectors, with numpy and torch alone."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

Vector = npt.NDArray[np.float64]
INPUTS, CLASSES = 4, 3
SIZE = CLASSES * INPUTS + CLASSES


def seed_for(seed: int, *key: object) -> int:
    text = "\x1f".join(str(part) for part in (seed, *key))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True)
class Node:
    """What one node has: its samples, and the seed of its batches."""

    x: npt.NDArray[np.float64]
    y: npt.NDArray[np.int64]
    seed: int
    batch_size: int
    lr: float

    def batch(self, step: int) -> npt.NDArray[np.int64]:
        """Return the indices of the step-th batch in an endless sequence of shuffled epochs."""
        epoch, at = divmod(step, -(-len(self.y) // self.batch_size))
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.y))
        return order[at * self.batch_size : (at + 1) * self.batch_size]

    def gradient(self, params: Vector, step: int) -> Vector:
        """Return the gradient of softmax regression: weights (classes, inputs), then one bias a class."""
        chosen = self.batch(step)
        flat = torch.tensor(params, requires_grad=True)
        weights, biases = flat[: CLASSES * INPUTS].view(CLASSES, INPUTS), flat[CLASSES * INPUTS :]
        logits = torch.from_numpy(self.x[chosen]) @ weights.T + biases
        F.cross_entropy(logits, torch.from_numpy(self.y[chosen])).backward()  # type: ignore[no-untyped-call]
        assert flat.grad is not None
        return flat.grad.numpy().copy()

    def descend(self, params: Vector, steps: range) -> Vector:
        for step in steps:
            params = params - self.lr * self.gradient(params, step)
        return params

    def fit(self, params: Vector, epochs: int, seed: int) -> Vector:
        """Train for whole epochs, in an order of this training alone."""
        fresh = Node(self.x, self.y, seed, self.batch_size, self.lr)
        return fresh.descend(params, range(epochs * -(-len(self.y) // self.batch_size)))


# ------------------------------------------------------------------------------------------- in lock-step


def allreduce(start: Vector, nodes: Sequence[Node], rounds: int, lr: float) -> Vector:
    for step in range(rounds):
        start = start - lr * sum(node.gradient(start, step) for node in nodes) / len(nodes)
    return start


def mixing(neighbours: Sequence[Sequence[int]]) -> npt.NDArray[np.float64]:
    """Return the matrix of Metropolis and Hastings of a graph."""
    weights = np.zeros((len(neighbours), len(neighbours)))
    for i, others in enumerate(neighbours):
        for j in others:
            weights[i, j] = 1 / (1 + max(len(others), len(neighbours[j])))
        weights[i, i] = 1 - weights[i].sum()
    return weights


def dpsgd(
    start: Vector, nodes: Sequence[Node], weights: npt.NDArray[np.float64], rounds: int, steps: int, *, adapt: bool
) -> npt.NDArray[np.float64]:
    models = np.tile(start, (len(nodes), 1))
    for round in range(rounds):
        batches = range(round * steps, (round + 1) * steps)
        trained = np.array([node.descend(x, batches) for node, x in zip(nodes, models, strict=True)])
        models = weights @ trained if adapt else weights @ models + (trained - models)
    return models


def cluster(
    params: Vector, round: int, steps: int, children: Sequence[Callable[[Vector, int], tuple[Vector, int]]]
) -> tuple[Vector, int]:
    """Return what a node of a tree makes of a model, and the samples behind it."""
    samples = 0
    for step in range((round - 1) * steps + 1, round * steps + 1):
        found = [child(params, step) for child in children]
        samples = sum(count for _, count in found)
        params = sum((model * count for model, count in found), start=np.zeros_like(params)) / samples
    return params, samples


# ------------------------------------------------------------------------------- replayed from what happened


def gossip(
    start: Vector, nodes: Mapping[str, Node], merges: Mapping[str, list[dict[str, int]]], steps: int
) -> dict[str, Vector]:
    """Replay who merged whose model in each round; a model is known by its node and its age."""
    models, ages, done = dict.fromkeys(nodes, start), dict.fromkeys(nodes, 0), dict.fromkeys(nodes, 0)
    sent: dict[tuple[str, int], Vector] = {}
    trained: set[tuple[str, int]] = set()
    while any(done[name] < len(merges[name]) for name in nodes):
        before = len(sent) + sum(done.values())
        for name, node in nodes.items():
            round = done[name]
            if round < len(merges[name]) and (name, round) not in trained:
                models[name] = node.descend(models[name], range(round * steps, (round + 1) * steps))
                ages[name] += steps
                sent[name, ages[name]] = models[name]
                trained.add((name, round))
            if round < len(merges[name]) and all(pair in sent for pair in merges[name][round].items()):
                heard = [(sent[pair], pair[1]) for pair in merges[name][round].items()]
                weighed = [(models[name], ages[name]), *heard]
                models[name] = sum(age * model for model, age in weighed) / sum(age for _, age in weighed)
                ages[name], done[name] = max(age for _, age in weighed), round + 1
        assert len(sent) + sum(done.values()) > before, "a model was merged before it was there"
    return models


def adpsgd(start: Vector, nodes: Mapping[str, Node], diaries: Mapping[str, list[str]], lr: float) -> dict[str, Vector]:
    """Replay the diary of every node: `value` (a gradient begins), the name of who it averaged with, `add`."""
    models, snapshots, steps = dict.fromkeys(nodes, start), dict[str, Vector](), dict.fromkeys(nodes, 0)
    at = dict.fromkeys(nodes, 0)

    def head(name: str) -> str | None:
        return diaries[name][at[name]] if at[name] < len(diaries[name]) else None

    while any(head(name) for name in nodes):
        before = sum(at.values())
        for name, node in nodes.items():
            what = head(name)
            if what == "value":
                snapshots[name], at[name] = models[name], at[name] + 1
            elif what == "add":
                models[name] = models[name] - lr * node.gradient(snapshots[name], steps[name])
                steps[name], at[name] = steps[name] + 1, at[name] + 1
            elif what is not None and head(what) == name:
                models[name] = models[what] = (models[name] + models[what]) / 2
                at[name], at[what] = at[name] + 1, at[what] + 1
        assert sum(at.values()) > before, "two nodes tell different stories"
    return models


def wagma(
    start: Vector, nodes: Mapping[str, Node], sums: Mapping[str, list[dict[str, int] | None]]
) -> dict[str, Vector]:
    """Replay which models were summed in each step, by the step each was after; None is the mean of all."""
    trained = {(name, -1): start for name in nodes}
    models, done = dict.fromkeys(nodes, start), dict.fromkeys(nodes, 0)
    while any(done[name] < len(sums[name]) for name in nodes):
        before = len(trained) + sum(done.values())
        for name, node in nodes.items():
            step = done[name]
            if step == len(sums[name]):
                continue
            if (name, step) not in trained:
                trained[name, step] = node.descend(models[name], range(step, step + 1))
            group = sums[name][step]
            needed = [(other, step) for other in nodes] if group is None else list(group.items())
            if all(pair in trained for pair in needed):
                total = sum((trained[pair] for pair in needed), start=np.zeros_like(start))
                late = (name, step) not in needed
                models[name] = (total + late * trained[name, step]) / (len(needed) + late)
                done[name] += 1
        assert len(trained) + sum(done.values()) > before, "a model was summed before it was there"
    return models
