"""A problem small enough to be done again serially: softmax regression in float64 on unequal shares of few samples."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from msgspec.structs import replace
from torch import nn

import rolecall as rc
from rolecall.architectures.workloads import AnyModel
from rolecall.core.patterns import natural_key
from rolecall.learn import ArrayDataset, TorchModel

from . import serial

SEED = 11


def regression(seed: int = 0) -> TorchModel:
    def module() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(serial.INPUTS, serial.CLASSES)).double()

    return TorchModel(module, seed=seed)


MODEL: AnyModel = rc.ElementSpec(factory=regression)


def wider(seed: int = 0) -> TorchModel:
    """Return a model of another shape."""

    def module() -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(serial.INPUTS, serial.CLASSES + 1)).double()

    return TorchModel(module, seed=seed)


def with_model(app: rc.App, node: str, model: object) -> rc.App:
    """Return the application with another model for the worker of a node."""
    roles = {name: dict(there) for name, there in app.roles.items()}
    worker = roles[node]["worker"]
    elements = {**worker.elements, "model": rc.ElementSpec(factory=model)}  # type: ignore[arg-type]
    roles[node]["worker"] = replace(worker, elements=elements)
    return replace(app, roles=roles)


def shares(count: int) -> list[ArrayDataset]:
    """Return a data set for each node: of 3 to 20 samples, some labels more often than others."""
    draws = np.random.default_rng(count)
    found = []
    for index in range(count):
        samples = 3 + (7 * index) % 18
        x = draws.normal(size=(samples, serial.INPUTS)) + index % serial.CLASSES
        found.append(ArrayDataset(x, draws.integers(0, 1 + index % serial.CLASSES, samples), serial.CLASSES))
    return found


def start() -> serial.Vector:
    return regression(serial.seed_for(SEED, "element", "model")).parameters().flat.copy()


def nodes(count: int, *, lr: float, batch_size: int = 4, role: str = "worker") -> dict[str, serial.Node]:
    """Return the nodes of the reference, by name."""
    return {
        f"node{number}": serial.Node(
            data.x, data.y, serial.seed_for(SEED, f"node{number}/{role}", "batches", 0), batch_size, lr
        )
        for number, data in enumerate(shares(count), 1)
    }


def models(history: rc.History, role: str = "worker") -> dict[str, serial.Vector]:
    """Return the model of each node at the end."""
    found = {who: state.params for who, state in history.states.items() if who.endswith(f"/{role}")}
    return {who.partition("/")[0]: found[who].flat for who in sorted(found, key=natural_key)}


def assert_same(found: Mapping[str, serial.Vector], expected: Mapping[str, serial.Vector]) -> None:
    assert list(found) == list(expected)
    for name, vector in expected.items():
        np.testing.assert_allclose(found[name], vector, rtol=1e-11, atol=1e-13, err_msg=name)


def with_class(app: rc.App, role_class: type[rc.Role], *names: str, role: str = "worker") -> rc.App:
    """Return the application with another class for a role of these nodes, or of all."""
    roles = {node: dict(there) for node, there in app.roles.items()}
    for node in names or [node for node in roles if role in roles[node]]:
        roles[node][role] = replace(roles[node][role], class_=role_class)
    return replace(app, roles=roles)
