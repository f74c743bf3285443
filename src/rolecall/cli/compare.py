"""`rolecall compare`: several architectures, or variations of one, on the same work."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rolecall.cli.data import use_data_dir
from rolecall.cli.exit_codes import ExitCode
from rolecall.cli.options import DataDir, Debug, Format, FormatOption
from rolecall.core.errors import ConfigError

if TYPE_CHECKING:
    from rolecall.cli.contest import Contest
    from rolecall.fleet.contender import Workload
    from rolecall.observe.comparison import Amount, Entry

__all__ = ("compare",)

_SEEDS_MAX = 1_000
_RUNS_MAX = 10_000


def compare(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Architectures; see rolecall demo --list.")],
    dataset: Annotated[
        str, typer.Option("--dataset", metavar="NAME", help="What is learned; see rolecall data list.")
    ] = "fashion-mnist",
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="mlp, lenet5 or cnn.")] = "cnn",
    clients: Annotated[int, typer.Option("--clients", metavar="N", min=2, help="How many nodes hold data.")] = 10,
    partition: Annotated[
        str | None,
        typer.Option("--partition", metavar="HOW", help="How they share it: iid, dirichlet(0.1), shards(2), ..."),
    ] = None,
    each: Annotated[
        int, typer.Option("--each", metavar="N", min=1, help="Without --partition: N samples at random for each.")
    ] = 1000,
    rounds: Annotated[
        int, typer.Option("--rounds", metavar="N", min=1, help="Rounds' worth of work: what a run trains in all.")
    ] = 200,
    share: Annotated[
        float,
        typer.Option("--share", metavar="X", min=0.0, max=1.0, help="A round's worth: this share of all samples."),
    ] = 0.4,
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="N|LIST", help="How many seeds (0, 1, ...), or which: 3,5 (one: 3,).")
    ] = "3",
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="[NAME:]KEY=VALUE", help="Set a parameter or an option, for all or for NAME."),
    ] = None,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="KEY=V1,V2,...", help="Compare each with these values; repeatable."),
    ] = None,
    lr: Annotated[float, typer.Option("--lr", metavar="X", help="Learning rate of all.")] = 0.1,
    batch_size: Annotated[int, typer.Option("--batch-size", metavar="N", min=1, help="Batch size of all.")] = 32,
    device: Annotated[str, typer.Option("--device", metavar="NAME", help="Device of each node.")] = "edge",
    network: Annotated[str, typer.Option("--network", metavar="NAME", help="Line of each node.")] = "wifi",
    points: Annotated[int, typer.Option("--points", metavar="N", min=1, help="How often models are tested.")] = 20,
    test_samples: Annotated[
        int, typer.Option("--test-samples", metavar="N", min=1, help="On how many samples; at the end on all.")
    ] = 2000,
    jobs: Annotated[int, typer.Option("--jobs", metavar="N", min=1, max=64, help="Runs side by side.")] = 1,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where results are kept, and found again.")] = Path(
        "compare"
    ),
    format: FormatOption = Format.TEXT,
    data_dir: DataDir = None,
    debug: Debug = False,
) -> None:
    """Compare architectures on the same data, seeds, devices and network.

    All train on as many samples, in virtual time. There is a table, and a figure of the accuracy against samples,
    bytes and time in --out. What is done is kept there: the same command goes on where it was stopped.

    Example:  rolecall compare fedavg etree gossip --dataset digits --model mlp --partition iid --rounds 20
    """
    from rolecall.cli.contest import Contest
    from rolecall.cli.failures import ending_events, reported
    from rolecall.fleet.contender import Workload, dealt
    from rolecall.observe.comparison import Amount

    with reported(*ending_events(format), debug=debug):
        use_data_dir(data_dir)
        work = Workload(
            dataset=dataset, model=model, clients=clients, device=device, network=network, lr=lr, batch_size=batch_size,
            partition=partition or f"sizes({','.join([str(each)] * clients)})",
        )  # fmt: skip
        budget = max(1, round(rounds * share * dealt(work)))
        amount = Amount(budget=budget, every=-(-budget // points), test_samples=test_samples)
        entries = entries_of(names, sets or [], vary or [], seeds_of(seeds), work, amount)
        raise typer.Exit(int(_held(Contest(entries, out, jobs, format, sys.stdout))))


def _held(contest: Contest) -> ExitCode:
    from rolecall.cli.session import let_go

    try:
        return ExitCode.STOPPED if contest.hold() else ExitCode.OK
    except BrokenPipeError:
        let_go(sys.stdout)
        return ExitCode.OUTPUT_CLOSED


def entries_of(
    names: Sequence[str],
    sets: Sequence[str],
    vary: Sequence[str],
    seeds: Sequence[int],
    work: Workload,
    amount: Amount,
) -> list[Entry]:
    """Return all runs: first each variation with the first seed, then with the next; raise `ConfigError` for bad ones.

    A setting for all is used where an architecture knows it, and has to be known to one of them.
    """
    from rolecall.fleet.contender import contender
    from rolecall.observe.comparison import Entry

    found: list[Entry] = []
    for seed, name, varied in itertools.product(seeds, dict.fromkeys(names), _variations(vary)):
        label = " ".join((name, *varied))
        own = (*_sets_of(name, names, sets), *varied)
        found.append(Entry(label=label, architecture=name, sets=own, seed=seed, work=work, amount=amount))
    if len(found) > _RUNS_MAX:
        raise ConfigError("rolecall compare", f"these are {len(found):,} runs", hint=f"At most {_RUNS_MAX:,}")
    for entry in found:
        if entry.seed == seeds[0]:
            contender(entry.architecture, work, entry.sets).expanded(seed=entry.seed).check()
    return found


def seeds_of(text: str) -> list[int]:
    """Return seeds, given as a number of them or as a list."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdecimal() and len(part) <= 18 for part in parts):
        raise ConfigError(f"--seeds {text}", "expected how many, or a list", hint="As in --seeds 3 or --seeds 3,5")
    seeds = list(dict.fromkeys(map(int, parts))) if "," in text else list(range(min(int(parts[0]), _SEEDS_MAX + 1)))
    if not 0 < len(seeds) <= _SEEDS_MAX:
        raise ConfigError(f"--seeds {text}", f"found {len(seeds)} seeds", hint=f"Give 1 to {_SEEDS_MAX:,}")
    return seeds


def _variations(vary: Sequence[str]) -> list[tuple[str, ...]]:
    ways: list[list[str]] = []
    for text in vary:
        key, equals, values = text.partition("=")
        if not equals or not key or not values:
            raise ConfigError(f"--vary {text}", "expected KEY=V1,V2", hint="As in --vary fraction=0.1,0.4")
        ways.append([f"{key}={value}" for value in values.split(",")])
    return list(itertools.product(*ways))


def _sets_of(name: str, names: Sequence[str], sets: Sequence[str]) -> list[str]:
    """Return the settings that are meant for an architecture."""
    own: list[str] = []
    for text in sets:
        whose, colon, setting = text.partition(":")
        if colon and "=" not in whose:
            _require_compared(whose, names, text)
            own += [setting] if whose == name else []
        elif _known(name, text) or not any(_known(other, text) for other in names):
            own.append(text)  # unknown to all: refused with the rest
    return own


def _known(name: str, text: str) -> bool:
    from rolecall.fleet.contender import takes

    return takes(name, text.partition("=")[0])


def _require_compared(whose: str, names: Sequence[str], text: str) -> None:
    if whose not in names:
        from rolecall.core.errors import nearest

        hint = f"{nearest(whose, names).strip()} Compared are: {', '.join(names)}".strip()
        raise ConfigError(f"--set {text}", f"{whose!r} is not compared", hint=hint)
