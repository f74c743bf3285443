"""Measure what federated averaging costs beside the training in it: ten clients, LeNet-5, processes of this machine.

    nox -s bench -- rounds

The same training, averaging and testing is first done by two processes that do nothing else: that is the computation
of a round on two cores. A ratio is the time of a round by it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

from peers.remote.children import Children
from peers.rounds import rolecall_rounds, work
from rich.console import Console


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    say = Console(highlight=False, soft_wrap=True).print
    bare_s = statistics.median(bare(options.rounds))
    say(f"computation of a round on two cores: {bare_s:.3f} s")
    for name, rounds in peers().items():
        took_s = statistics.median(rounds(options.rounds))
        say(f"{name}: {took_s:.3f} s a round, {took_s / bare_s:.2f} times the computation")
    again_s = statistics.median(bare(options.rounds))
    say(f"computation again, for the noise: {again_s:.3f} s")


def bare(count: int) -> list[float]:
    """Do the work of so many rounds in two processes, and return the seconds of each."""
    children = Children()
    try:
        clients = list(range(work.CLIENTS))
        halves = [
            children.start(work.serve_half, clients[: work.CLIENTS // 2], True),
            children.start(work.serve_half, clients[work.CLIENTS // 2 :], False),
        ]
        took_s = []
        for number in range(count + 1):
            began = time.perf_counter()
            for half in halves:
                half.send(number)
            for half in halves:
                half.recv()
            took_s.append(time.perf_counter() - began)
        return took_s[1:]
    finally:
        children.close()


def peers() -> dict[str, Callable[[int], list[float]]]:
    """Return whom to measure: RoleML only where it is installed."""
    found = {"rolecall": rolecall_rounds.rounds}
    try:
        import roleml  # noqa: F401
    except ImportError:
        return found
    from peers.rounds import roleml_rounds

    return {**found, "RoleML": roleml_rounds.rounds}


if __name__ == "__main__":
    main()
