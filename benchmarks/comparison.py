"""Compare peers: they take turns at each workload, and a table shows the median of the rounds, the best, and ratios."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence

from harness import Measured, Peer, Workload
from rich.console import Console
from rich.table import Table

Results = dict[str, dict[str, Measured]]  # workload -> peer -> what it came to


def compare(title: str, workloads: Sequence[Workload], peers: list[Peer], ours: str, summary: str) -> None:
    """Run what the command line asks for, and print a table."""
    options = parse(workloads, summary)
    console = Console(width=None if sys.stdout.isatty() else 200)
    chosen = [workload for workload in workloads if workload.key in (options.only or workload.key)]
    results: Results = {}
    present = opened(peers, console)
    try:
        for workload in chosen:
            results[workload.key] = measure(workload, present, options, console)
    finally:
        for peer in present:
            peer.close()
    show(title, chosen, results, present, ours, console)


def parse(workloads: Sequence[Workload], summary: str) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=summary)
    parser.add_argument("--rounds", type=int, default=5, help="timed rounds of each workload")
    parser.add_argument("--quick", action="store_true", help="a twentieth of the operations, two rounds")
    parser.add_argument("--only", nargs="+", choices=[workload.key for workload in workloads])
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
    """Let each peer that can do it do the workload."""
    found: dict[str, Measured] = {}
    for peer in peers:
        operations = max(workload.operations // (peer.spared * (20 if options.quick else 1)), 1)
        if workload.key not in peer.lacks:
            with console.status(f"{workload.title}: {peer.name}"):
                took_s = peer.rounds(workload.key, operations, options.rounds)
            found[peer.name] = Measured.of(workload, took_s, operations)
    return found


def show(
    title: str, workloads: Sequence[Workload], results: Results, peers: list[Peer], ours: str, console: Console
) -> None:
    """Print the table, and what stands in for what a peer does not have."""
    names = [peer.name for peer in peers]
    others = [name for name in names if name != ours] if ours in names else []
    table = Table(title=f"{title}, Python {platform.python_version()}: median (best)")
    table.add_column("workload")
    table.add_column("unit")
    for name in [*names, *(f"vs {other}" for other in others)]:
        table.add_column(name, justify="right")
    for workload in workloads:
        measured = results[workload.key]
        cells = [cell(measured.get(name)) for name in names]
        table.add_row(workload.title, workload.unit, *cells, *ratios(workload, measured, ours, others))
    console.print(table)
    for peer in peers:
        for key, idiom in peer.idioms.items():
            if key in results:
                console.print(f"{peer.name}, {key}: {idiom}", style="dim")


def cell(measured: Measured | None) -> str:
    """Format what a peer came to."""
    return "-" if measured is None else f"{number(measured.median)} ({number(measured.best)})"


def ratios(workload: Workload, measured: dict[str, Measured], ours: str, others: list[str]) -> list[str]:
    """Return how many times better our median is than that of each other."""
    found = []
    for other in others:
        both = ours in measured and other in measured
        found.append(f"{ratio(workload, measured[ours], measured[other]):.2f}x" if both else "-")
    return found


def ratio(workload: Workload, ours: Measured, theirs: Measured) -> float:
    """Return how many times better our median is than theirs."""
    return ours.median / theirs.median if workload.per_second else theirs.median / ours.median


def number(value: float) -> str:
    """Format a figure with three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
