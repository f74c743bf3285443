"""Comparisons: which runs there are, where their results are kept, and what they come to over the seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import fmean, stdev

import msgspec
from msgspec import json

from rolecall.core.errors import ConfigError, DataError
from rolecall.core.whole_files import write_whole
from rolecall.fleet.app_file import written
from rolecall.fleet.contender import MODELS, Workload, contender
from rolecall.fleet.importing import find
from rolecall.learn import test_set
from rolecall.observe.measuring import Measured, Point, measure
from rolecall.observe.run_directory import versions

__all__ = ("Amount", "Entry", "Result", "Row", "Store", "carry_out", "rows")


class Amount(msgspec.Struct, frozen=True, kw_only=True):
    """How much is trained, and how often tested: `every` so many samples, on so many of the test data."""

    budget: int
    every: int
    test_samples: int


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A run of a comparison: an architecture, what it is set to, a seed; `label` names it among the others."""

    label: str
    architecture: str
    sets: tuple[str, ...]
    seed: int
    work: Workload
    amount: Amount

    @property
    def key(self) -> str:
        """A hash of all that decides the result: the expanded application, the work and the amount."""
        app = contender(self.architecture, self.work, self.sets).expanded(seed=self.seed)
        tree = {key: value for key, value in written(app).items() if key != "import_from"}  # a place of this machine
        decides = [tree, msgspec.to_builtins(self.work), msgspec.to_builtins(self.amount)]
        return hashlib.blake2b(json.encode(decides, order="sorted"), digest_size=8).hexdigest()


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of an entry, as its file has it."""

    key: str
    entry: Entry
    measured: Measured
    versions: dict[str, str]


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """What the runs of one label came to: means over the seeds, and the spread (standard deviation) of accuracy.

    Bytes are of arguments, results and events that roles sent to other nodes, messages are the numbers of those;
    `virtual_s` is the time that has passed in the simulation, `wall_s` what a run took.
    """

    name: str
    runs: int
    accuracy: float
    spread: float
    best: float
    samples: float
    virtual_s: float
    bytes: float
    messages: float
    wall_s: float


class Store:
    """Results in a directory, a file each, written whole or not at all."""

    def __init__(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            problem = f"the directory cannot be created ({error.strerror or error})"
            raise ConfigError(f"--out {directory}", problem, hint="Name one you may write to") from error
        self.directory = directory

    def path(self, entry: Entry, key: str) -> Path:
        """Return where the result of an entry is kept."""
        return self.directory / f"{entry.architecture}-seed{entry.seed}-{key}.json"

    def find(self, entry: Entry) -> Result | None:
        """Return the result of an entry, if it is there; raise `DataError` for a file that holds none."""
        key = entry.key
        path = self.path(entry, key)
        try:
            result = json.decode(path.read_bytes(), type=Result)
        except FileNotFoundError:
            return None
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DataError(path, f"this is no result ({error})", hint="Remove it, and it is made again") from None
        if result.key != key:
            raise DataError(path, "this is the result of other settings", hint="Remove it, and it is made again")
        return msgspec.structs.replace(result, entry=entry)  # another comparison may have called it otherwise

    def keep(self, result: Result) -> None:
        """Write a result."""
        content = json.format(json.encode(result), indent=1) + b"\n"
        write_whole(self.path(result.entry, result.key), [content])


def carry_out(entry: Entry, on_point: Callable[[Point], None] = lambda point: None) -> Result:
    """Run an entry; see `measure` for what it raises."""
    app = contender(entry.architecture, entry.work, entry.sets).expanded(seed=entry.seed)
    app.check()
    model = find(MODELS[entry.work.model])(dataset=entry.work.dataset)
    amount = msgspec.structs.asdict(entry.amount)
    measured = measure(app, model=model, test=test_set(entry.work.dataset), on_point=on_point, **amount)
    return Result(key=entry.key, entry=entry, measured=measured, versions=versions())


def rows(results: Iterable[Result]) -> list[Row]:
    """Return a row for each label, in the order in which they come."""
    labels: dict[str, list[Measured]] = {}
    for result in results:
        labels.setdefault(result.entry.label, []).append(result.measured)
    return [_row(label, runs) for label, runs in labels.items()]


def _row(label: str, runs: Sequence[Measured]) -> Row:
    finals = [run.final for run in runs]
    accuracies = [final.accuracy for final in finals]
    return Row(
        name=label,
        runs=len(runs),
        accuracy=fmean(accuracies),
        spread=stdev(accuracies) if len(runs) > 1 else 0.0,
        best=fmean(run.best for run in runs),
        samples=fmean(final.samples for final in finals),
        virtual_s=fmean(final.time_s for final in finals),
        bytes=fmean(final.bytes for final in finals),
        messages=fmean(final.messages for final in finals),
        wall_s=fmean(run.wall_s for run in runs),
    )
