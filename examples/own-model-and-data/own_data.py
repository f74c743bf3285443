"""A data set of one's own: measurements of a few people, each of whom has a bias."""

from __future__ import annotations

import numpy as np

from rolecall.learn import ArrayDataset, shard

PEOPLE, EACH, CLASSES, INPUTS = 6, 60, 3, 4
SEED = 5  # no parameter: elements get a seed of their own for each slot, and training and test data belong together


def habits(part: str = "train") -> ArrayDataset:
    """Return points of three classes, and whose each of them is: every person has a bias."""
    random = np.random.default_rng([SEED, part == "test"])
    centres = np.random.default_rng(SEED).normal(size=(CLASSES, INPUTS), scale=2)
    users = np.repeat(np.arange(PEOPLE), EACH)
    y = random.integers(0, CLASSES, len(users))
    bias = np.random.default_rng(SEED + 1).normal(size=(PEOPLE, INPUTS), scale=0.5)
    x = centres[y] + bias[users] + random.normal(size=(len(users), INPUTS))
    return ArrayDataset(x, y, CLASSES, users=users, name="habits")


def share(index: int, of: int, seed: int = 0) -> ArrayDataset:
    """Return what client number `index` of `of` holds: whole people."""
    return shard(habits(), "users", index=index, of=of, seed=seed)
