"""Architectures of distributed machine learning, one module each, written as roles."""

from __future__ import annotations

__all__ = ("CATALOGUE",)

CATALOGUE: dict[str, str] = {
    "fedavg": "federated averaging: ten clients with unlike shares of the digits learn one model",
    "fedprox": "FedProx: federated averaging whose clients stay near to the global model",
    "fedsgd": "FedSGD: clients send gradients, the server makes the steps",
    "hfl": "hierarchical federated learning: devices in cells, cells below a macro cell",
    "gossip": "gossip learning: nodes push models to neighbours and merge by age; nobody waits for anybody",
    "etree": "E-Tree learning: clusters of devices below a root on one of them, rebuilt while they learn",
    "dpsgd": "D-PSGD: every node averages with its neighbours in a graph in each round",
    "adpsgd": "AD-PSGD: nodes average in pairs while they compute; who is busy refuses",
    "ring-allreduce": "synchronous SGD without a server: chunks of the gradients travel round a ring",
    "butterfly-allreduce": "synchronous SGD without a server: members swap halves of the gradients, pair after pair",
    "tree-allreduce": "synchronous SGD without a server: gradients are summed up a tree, and the sum comes down",
    "wagma": "WAGMA-SGD: nodes average in changing groups, without waiting for the slow among them",
}
"""What each architecture shows in a line. Its module has the same name (`-` as `_`), and beside it lies a file with an
application that learns the digits."""
