"""The options that several commands share, each with its help text, in one place."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = ("DataDir", "Debug", "Format", "FormatOption", "RunsDir", "Seed")


class Format(StrEnum):
    """How a command prints: for people, or one JSON object a line for programs."""

    TEXT = "text"
    JSONL = "jsonl"


FormatOption: TypeAlias = Annotated[
    Format,
    typer.Option(
        "--format",
        help='"text" for people; "jsonl" for programs: one JSON object a line, the last "terminal".',
    ),
]
Seed: TypeAlias = Annotated[
    int | None,
    typer.Option("--seed", metavar="N", min=0, help="Seed of everything random. The same seed gives the same result."),
]
RunsDir: TypeAlias = Annotated[
    Path,
    typer.Option("--runs-dir", metavar="DIR", help="Where the run leaves its files, in DIR/<time>-<name>/."),
]
DataDir: TypeAlias = Annotated[
    Path | None,
    typer.Option("--data-dir", metavar="DIR", help="Where data files are looked for first; by default $ROLECALL_DATA."),
]
Debug: TypeAlias = Annotated[
    bool, typer.Option("--debug", help="Print the whole traceback of an error.", show_default=False)
]
