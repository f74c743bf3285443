"""A process that carries out one run of a comparison: `python -m rolecall.cli.entrant DIR`, the entry on its stdin.

It tells the points it has reached on stdout, a line of JSON each, and leaves the result in the directory. When nobody
reads what it tells, it ends.
"""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import TextIO

from msgspec import json

from rolecall.cli.failures import failure_of
from rolecall.observe.comparison import Entry, Store, carry_out
from rolecall.observe.measuring import Point

__all__ = ("enter",)


def enter(entry: Entry, store: Store, out: TextIO) -> int:
    """Carry out an entry and keep the result; return the exit code."""

    def tell(kind: str, what: object) -> None:
        out.write(json.encode([kind, what]).decode() + "\n")
        out.flush()

    def on_point(point: Point) -> None:
        tell("point", point)

    try:
        with redirect_stdout(sys.stderr):
            store.keep(carry_out(entry, on_point))
    except BrokenPipeError:
        return 1
    except Exception as error:
        failure = failure_of(error)
        tell("failed", failure)
        return failure.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(enter(json.decode(sys.stdin.buffer.read(), type=Entry), Store(Path(sys.argv[1])), sys.stdout))
