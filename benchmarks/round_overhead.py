"""Measure what federated averaging costs beside the training in it: ten clients, LeNet-5, processes of this machine.

    nox -s bench -- rounds

The same training, averaging and testing is also done by two processes that do nothing else: that is the computation
of a round on two cores. It is done before and after each peer has its turn, since machines are not equally fast all the
time; a ratio is the time of a round by the mean of the two.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from time import perf_counter

from peers.remote.children import Children
from peers.rounds import rolecall_rounds, work
from rich.console import Console

RATIO_MAX = 1.10


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=10, help="rounds of each turn, after one that does not count")
    parser.add_argument("--turns", type=int, default=3, help="how often each peer is measured")
    options = parser.parse_args()
    say = Console(highlight=False, soft_wrap=True).print
    took: dict[str, list[tuple[float, float]]] = {}
    before_s = statistics.median(bare(options.rounds))
    for turn in range(options.turns):
        for name, rounds in peers().items():
            took_s = statistics.median(rounds(options.rounds))
            after_s = statistics.median(bare(options.rounds))
            computed_s, before_s = (before_s + after_s) / 2, after_s
            took.setdefault(name, []).append((took_s, computed_s))
            say(f"turn {turn + 1}, {name}: {took_s:.3f} s a round, {computed_s:.3f} s of them computation")
    for name, turns in took.items():
        say(report(name, turns))


def report(name: str, turns: list[tuple[float, float]]) -> str:
    """Return the line of a peer, from the seconds of a round and of its computation in each turn."""
    ratios = [took_s / computed_s for took_s, computed_s in turns]
    took_s, ratio = statistics.median(took_s for took_s, _ in turns), statistics.median(ratios)
    aim = f", at most {RATIO_MAX:.2f} wanted" if name == "rolecall" else ""
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return f"{name}: {took_s:.3f} s a round, {ratio:.2f} times the computation on two cores ({spread}{aim})"


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
            began = perf_counter()
            for half in halves:
                half.send(number)
            for half in halves:
                half.recv()
            took_s.append(perf_counter() - began)
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
