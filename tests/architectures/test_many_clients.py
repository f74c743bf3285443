"""Federated averaging with many simulated clients: each trains a model for real, on its own few images."""

from __future__ import annotations

import os
import resource
import time

import rolecall as rc
from rolecall.architectures import fedavg
from rolecall.learn.models import MLP

SOAK = bool(os.environ.get("ROLECALL_SOAK"))
CLIENTS, ROUNDS = (1_000, 10) if SOAK else (60, 2)
IMAGES = 60
WALL_S, MEMORY_BYTES = 90, 2_000_000_000


def test_a_thousand_clients_learn_on_one_machine() -> None:
    model = rc.ElementSpec(MLP, options={"hidden": 64, "dataset": "fashion-mnist"})
    sizes = ",".join([str(IMAGES)] * CLIENTS)
    app = fedavg.app(
        model, "fashion-mnist", clients=CLIENTS, partition=f"sizes({sizes})", rounds=ROUNDS, batch_size=20, seed=1
    )
    began_s = time.perf_counter()
    history = rc.run_sync(app, engine="sim")
    took_s = time.perf_counter() - began_s
    assert [values["clients"] for values in (m.values for m in history.metrics) if "clients" in values] == [
        CLIENTS
    ] * ROUNDS
    accuracy = [value for _, value in history.curve("accuracy")]
    assert accuracy[-1] > (0.6 if SOAK else 0.15)
    if SOAK:
        assert took_s < WALL_S
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 < MEMORY_BYTES
