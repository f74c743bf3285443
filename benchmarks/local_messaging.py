"""Measure messages within one node: rolecall beside RoleML and xoscar, in one process and one run.

    nox -s bench                                           with the peers installed
    python benchmarks/local_messaging.py --quick           a look, with what is installed

The peers take turns at each workload; a cell shows the median of the rounds, and the best. A ratio says how
many times better than the peer rolecall is; below 1 it is worse.
"""

from __future__ import annotations

from comparison import compare
from harness import WORKLOADS
from peers.rolecall_peer import RolecallPeer
from peers.roleml_peer import RoleMLPeer
from peers.xoscar_peer import DirectXoscarPeer, XoscarPeer

if __name__ == "__main__":
    peers = [RolecallPeer(), RoleMLPeer(), XoscarPeer(), DirectXoscarPeer()]
    compare("One node", WORKLOADS, peers, RolecallPeer.name, __doc__.partition("\n")[0])
