"""Measure messages between processes of one machine: rolecall beside frameworks and bare transports, in one run.

    nox -s bench -- remote                                 with the peers installed
    python benchmarks/remote_messaging.py --quick          a look, with what is installed

The peers take turns at each workload; a cell shows the median of the rounds, and the best. A ratio says how
many times better than the peer rolecall is over its link (without shared memory); below 1 it is worse.
"""

from __future__ import annotations

from comparison import compare
from harness import REMOTE_WORKLOADS
from peers.remote.grpc_peers import GrpcioPeer, GrpclibPeer
from peers.remote.rolecall_remote import RolecallRemotePeer, RolecallSharedPeer
from peers.remote.roleml_remote import RoleMLRemotePeer
from peers.remote.sockets_peer import SocketsPeer
from peers.remote.xoscar_remote import XoscarRemotePeer

if __name__ == "__main__":
    peers = [
        RolecallRemotePeer(),
        RolecallSharedPeer(),
        XoscarRemotePeer(),  # before gRPC has threads, beside which its processes do not start
        RoleMLRemotePeer(),
        GrpcioPeer(),
        GrpclibPeer(),
        SocketsPeer(),
    ]
    compare("Between processes", REMOTE_WORKLOADS, peers, RolecallRemotePeer.name, __doc__.partition("\n")[0])
