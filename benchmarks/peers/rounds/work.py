"""The work of a round of federated averaging, the same for everyone: ten clients train LeNet-5 on their share."""

from __future__ import annotations

from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from rolecall.learn import ArrayDataset, TorchModel, Update, weighted_mean
from rolecall.learn.models import LeNet5

CLIENTS = 10
SAMPLES = 1_000  # of each client
TEST_SAMPLES = 1_000
BATCH_SIZE = 32
LR = 0.05


def share(index: int, samples: int = SAMPLES) -> ArrayDataset:
    """Return images of noise, each client's its own; what is learned does not matter here."""
    random = np.random.default_rng(index)
    x = random.random((samples, 1, 28, 28), dtype=np.float32)
    return ArrayDataset(x, random.integers(0, 10, samples), 10)


def test_share() -> ArrayDataset:
    """Return what the global model is tested on."""
    return share(CLIENTS, TEST_SAMPLES)


def lenet(seed: int = 0) -> TorchModel:
    """Return the model."""
    return LeNet5(channels=1, classes=10, seed=seed)


def fit(model: TorchModel, params: Any, data: ArrayDataset, seed: int) -> Update:
    """Train one epoch, as a client does in a round."""
    return model.fit(params, data, epochs=1, batch_size=BATCH_SIZE, lr=LR, seed=seed)


def serve_half(connection: Connection, clients: list[int], tests: bool) -> None:
    """Do the work of some clients whenever told to, with nothing around it; one of two also averages and tests."""
    models = {index: lenet() for index in clients}
    shares = {index: share(index) for index in clients}
    tested, params = test_share(), lenet().parameters()
    connection.send("ready")
    while True:
        round_number = connection.recv()
        updates = [fit(models[index], params, shares[index], round_number) for index in clients]
        if tests:
            weighted_mean(updates * 2)
            models[clients[0]].evaluate(params, tested)
        connection.send("done")
