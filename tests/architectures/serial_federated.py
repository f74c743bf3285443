"""Serial references: what each federated architecture computes, as one loop. Imports only numpy and torch.

Parameters are dicts of numpy arrays. What is drawn is derived from the application's seed as rolecall documents it, and
written out here once more, so that a mistake there does not hide here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

Params = dict[str, Any]
Shard = tuple[Any, Any]


def seed_for(*key: object) -> int:
    digest = hashlib.blake2b("\x1f".join(map(str, key)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def rng_for(*key: object) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed_for(*key)))


def chosen(seed: int, selector: str, round: int, clients: int, count: int) -> list[int]:
    return sorted(rng_for(seed, selector, "select", round).choice(clients, count, replace=False).tolist())


def of(module: nn.Module) -> Params:
    return {name: value.detach().numpy().copy() for name, value in module.state_dict().items()}


def mean(models: Sequence[Params], weights: Sequence[float]) -> Params:
    total = sum(weights)
    return {
        name: sum(np.float64(w) * model[name].astype(np.float64) for w, model in zip(weights, models, strict=True))
        / total
        for name in models[0]
    }


def epoch_batches(samples: int, size: int, seed: int, epoch: int) -> list[Any]:
    order = np.random.default_rng([seed, epoch]).permutation(samples)
    return [order[at : at + size] for at in range(0, samples, size)]


def loss_gradient(module: nn.Module, params: Params, shard: Shard, batch: Any) -> Params:
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in params.items()})
    module.zero_grad()
    x, y = torch.from_numpy(shard[0][batch]), torch.from_numpy(shard[1][batch])
    nn.functional.cross_entropy(module(x), y).backward()
    return {name: value.grad.numpy().copy() for name, value in module.named_parameters() if value.grad is not None}


def trained(
    module: nn.Module, start: Params, shard: Shard, *, epochs: int, size: int, lr: float, seed: int, mu: float = 0.0
) -> Params:
    """Return the parameters after plain SGD, with `mu / 2 * ||w - start||^2` added to the loss."""
    params = start
    for epoch in range(epochs):
        for batch in epoch_batches(len(shard[1]), size, seed, epoch):
            gradient = loss_gradient(module, params, shard, batch)
            params = {
                name: value - lr * (gradient[name] + mu * (value - start[name])) for name, value in params.items()
            }
    return params


def batch_gradient(
    module: nn.Module, params: Params, shard: Shard, *, size: int, step: int, seed: int
) -> tuple[Params, int]:
    """Return the gradient of batch number `step` of the endless sequence of epochs, and its size."""
    each = len(epoch_batches(len(shard[1]), size, seed, 0))
    batch = epoch_batches(len(shard[1]), size, seed, step // each)[step % each]
    return loss_gradient(module, params, shard, batch), len(batch)


def fedavg(
    module: nn.Module,
    shards: Sequence[Shard],
    *,
    seed: int,
    rounds: int,
    count: int,
    epochs: int,
    size: int,
    lr: float,
    mu: float = 0.0,
) -> Params:
    """Federated averaging; FedProx where `mu` is not 0."""
    params = of(module)
    for round in range(1, rounds + 1):
        at = chosen(seed, "server/selector", round, len(shards), count)
        seeds = [seed_for(seed, f"client{k + 1}/trainer", "fit", round) for k in at]
        models = [
            trained(module, params, shards[k], epochs=epochs, size=size, lr=lr, seed=s, mu=mu)
            for k, s in zip(at, seeds, strict=True)
        ]
        params = mean(models, [len(shards[k][1]) for k in at])
    return params


def fedsgd(
    module: nn.Module, shards: Sequence[Shard], *, seed: int, rounds: int, count: int, size: int | None, lr: float
) -> Params:
    params = of(module)
    for round in range(1, rounds + 1):
        at = chosen(seed, "server/selector", round, len(shards), count)
        found = [
            batch_gradient(
                module,
                params,
                shards[k],
                size=min(size or len(shards[k][1]), len(shards[k][1])),
                step=round - 1,
                seed=seed_for(seed, f"client{k + 1}/trainer", "batches", 0),
            )
            for k in at
        ]
        step = mean([gradient for gradient, _ in found], [samples for _, samples in found])
        params = {name: value - lr * step[name] for name, value in params.items()}
    return params


def hfl(
    module: nn.Module, cells: Sequence[Sequence[Shard]], *, seed: int, rounds: int, steps: int, size: int, lr: float
) -> Params:
    params = of(module)
    for round in range(rounds):
        models = []
        first = 1
        for shards in cells:
            local = params
            for step in range(steps):
                found = [
                    batch_gradient(
                        module,
                        local,
                        shard,
                        size=min(size, len(shard[1])),
                        step=round * steps + step,
                        seed=seed_for(seed, f"device{first + k}/trainer", "batches", 0),
                    )[0]
                    for k, shard in enumerate(shards)
                ]
                gradient = mean(found, [1.0] * len(found))
                local = {name: value - lr * gradient[name] for name, value in local.items()}
            models.append(local)
            first += len(shards)
        params = mean(models, [1.0] * len(models))
    return params
