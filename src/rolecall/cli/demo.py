"""`rolecall demo`: a packaged application, on real data, offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rolecall.architectures import CATALOGUE
from rolecall.cli.options import Debug, Format, FormatOption, RunsDir, Seed
from rolecall.cli.run import Engine

if TYPE_CHECKING:
    from rolecall.fleet.app import App

__all__ = ("demo",)

_SEED = 0


def demo(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which demo; see --list.")] = "fedavg",
    show_list: Annotated[bool, typer.Option("--list", show_default=False, help="List the demos and exit.")] = False,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", metavar="N", min=1, help="How many rounds; each demo has its own default."),
    ] = None,
    nodes: Annotated[
        int | None,
        typer.Option("--nodes", metavar="N", min=2, help="How many nodes learn; each demo has its own default."),
    ] = None,
    engine: Engine = "local",
    seed: Seed = _SEED,
    format: FormatOption = Format.TEXT,
    runs_dir: RunsDir = Path("runs"),
    debug: Debug = False,
) -> None:
    """Watch an architecture learn real data, offline, within seconds.

    What it leaves behind is in a new directory under --runs-dir;
    rolecall run repeats it from the app.yaml there.

    Example:  rolecall demo fedavg --rounds 10 --seed 7
    """
    from rolecall.cli.session import Settings, attend

    if show_list:
        _list(format)
        return

    sets = () if rounds is None else (f"rounds={rounds}",)
    attend(
        lambda: _packaged(name, nodes),
        Settings(engine=engine, sets=sets, seed=seed, format=format, runs_dir=runs_dir, debug=debug, judged=True),
    )


def _packaged(name: str, nodes: int | None) -> App:
    """Return the application that lies beside an architecture, of its own size or another."""
    from rolecall.fleet.contender import of_size, packaged

    app = packaged(name, "rolecall demo", "demo")
    return app if nodes is None else of_size(app, nodes)


def _list(format: Format) -> None:
    from rolecall.cli.listing import show_rows

    rows = [{"name": name, "shows": shows} for name, shows in CATALOGUE.items()]
    show_rows("demo", rows, format=format, headings=("demo", "what it shows"))
