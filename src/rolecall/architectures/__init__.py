"""Architectures of distributed machine learning, one module each, written as roles."""

from __future__ import annotations

__all__ = ("CATALOGUE",)

CATALOGUE: dict[str, str] = {
    "fedavg": "federated averaging: ten clients with unlike shares of the digits learn one model",
    "fedprox": "FedProx: federated averaging whose clients stay near to the global model",
    "fedsgd": "FedSGD: clients send gradients, the server makes the steps",
    "hfl": "hierarchical federated learning: devices in cells, cells below a macro cell",
}
"""What each architecture shows in a line. Its module has the same name (`-` as `_`), and beside it lies a file with an
application that learns the digits."""
