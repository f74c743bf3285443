"""Measure messages within one node: rolecall beside RoleML and xoscar, in one process and one run.

    nox -s bench                                           with the peers installed
    python benchmarks/local_messaging.py --quick           a look, with what is installed

The peers take turns at each workload; a cell shows the median of the rounds, and the best. A ratio says how
many times better than the peer rolecall is; below 1 it is worse.
"""

from __future__ import annotations

import argparse
import platform
import sys

from harness import WORKLOADS, Measured, Peer, Workload
from peers.rolecall_peer import RolecallPeer
from peers.roleml_peer import RoleMLPeer
from peers.xoscar_peer import DirectXoscarPeer, XoscarPeer
from rich.console import Console
from rich.table import Table

OURS = RolecallPeer.name
Results = dict[str, dict[str, Measured]]  # workload -> peer -> what it came to


def main() -> None:
    """Run what the command line asks for, and print a table."""
    options = parse()
    console = Console(width=None if sys.stdout.isatty() else 160)
    peers = opened([RolecallPeer(), RoleMLPeer(), XoscarPeer(), DirectXoscarPeer()], console)
    workloads = [workload for workload in WORKLOADS if workload.key in (options.only or workload.key)]
    try:
        results = {workload.key: measure(workload, peers, options, console) for workload in workloads}
    finally:
        for peer in peers:
            peer.close()
    show(results, peers, console)


def parse() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each workload")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the operations, two rounds")
    parser.add_argument("--only", nargs="+", choices=[workload.key for workload in WORKLOADS])
    options = parser.parse_args()
    if options.quick:
        options.rounds = 2
    return options


def opened(candidates: list[Peer], console: Console) -> list[Peer]:
    """Return the peers that are installed, started; name the others."""
    peers: list[Peer] = []
    for peer in candidates:
        try:
            peer.open()
        except ImportError as error:
            console.print(f"{peer.name} is left out: {error}", style="yellow")
        else:
            peers.append(peer)
    return peers


def measure(
    workload: Workload, peers: list[Peer], options: argparse.Namespace, console: Console
) -> dict[str, Measured]:
    """Let each peer do the workload."""
    operations = max(workload.operations // (20 if options.quick else 1), 1)
    found: dict[str, Measured] = {}
    for peer in peers:
        with console.status(f"{workload.title}: {peer.name}"):
            took_s = peer.rounds(workload.key, operations, options.rounds)
        found[peer.name] = Measured.of(workload, took_s, operations)
    return found


def show(results: Results, peers: list[Peer], console: Console) -> None:
    """Print the table, and what stands in for what a peer does not have."""
    names = [peer.name for peer in peers]
    others = [name for name in names if name != OURS] if OURS in names else []
    table = Table(title=f"One node, Python {platform.python_version()}: median (best)")
    table.add_column("workload")
    table.add_column("unit")
    for name in [*names, *(f"vs {other}" for other in others)]:
        table.add_column(name, justify="right")
    for workload in WORKLOADS:
        if measured := results.get(workload.key):
            cells = [f"{number(measured[name].median)} ({number(measured[name].best)})" for name in names]
            ratios = [f"{ratio(workload, measured[OURS], measured[other]):.2f}x" for other in others]
            table.add_row(workload.title, workload.unit, *cells, *ratios)
    console.print(table)
    for peer in peers:
        for key, idiom in peer.idioms.items():
            if key in results:
                console.print(f"{peer.name}, {key}: {idiom}", style="dim")


def ratio(workload: Workload, ours: Measured, theirs: Measured) -> float:
    """Return how many times better our median is than theirs."""
    return ours.median / theirs.median if workload.per_second else theirs.median / ours.median


def number(value: float) -> str:
    """Format a figure with three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
