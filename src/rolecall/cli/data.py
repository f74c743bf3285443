"""`rolecall data`: the data sets that rolecall knows, and where they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from rolecall.cli.options import DataDir, Debug, Format, FormatOption
from rolecall.core.errors import DataError

if TYPE_CHECKING:
    from rolecall.learn.data import DatasetInfo

__all__ = ("DataSet", "app", "data_sets", "use_data_dir")

app = typer.Typer()


@dataclass(frozen=True)
class DataSet:
    """A row of `rolecall data list`; `where` says where it was found, or how to get it."""

    name: str
    what: str
    shape: str
    train: int
    test: int
    found: bool
    where: str


@app.callback(invoke_without_command=True)
def data(context: typer.Context) -> None:
    """Data sets: which there are, and which of them are on this machine.

    Example:  rolecall data list
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("list")
def list_(format: FormatOption = Format.TEXT, data_dir: DataDir = None, debug: Debug = False) -> None:
    """List the data sets, with where each was found or how to get it.

    Example:  rolecall data list --data-dir ~/data
    """
    from rolecall.cli.failures import ending_events, reported
    from rolecall.cli.listing import show_rows

    with reported(*ending_events(format), debug=debug):
        use_data_dir(data_dir)
        rows = [vars(known) for known in data_sets()]
        headings = ("name", "what it is", "shape", "train", "test", "found", "where, or how to get it")
        show_rows("data-set", rows, format=format, headings=headings)


def data_sets() -> list[DataSet]:
    """Return what there is to say about each data set that rolecall knows, without reading it."""
    from rolecall.learn.data import datasets

    return [_described(info, info.found()) for info in datasets()]


def _described(info: DatasetInfo, place: Path | None) -> DataSet:
    return DataSet(
        name=info.name,
        what=info.what,
        shape="x".join(map(str, info.shape)),
        train=info.train,
        test=info.test,
        found=place is not None,
        where=str(place or info.get),
    )


def use_data_dir(data_dir: Path | None) -> None:
    """Let every part of this process, and the processes it starts, look for data in `data_dir` first."""
    if data_dir is None:
        return
    if not data_dir.is_dir():
        raise DataError(data_dir, "there is no such directory", hint="Check what --data-dir names")
    os.environ["ROLECALL_DATA"] = str(data_dir.resolve())
