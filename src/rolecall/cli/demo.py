"""`rolecall demo`: a packaged application, on real data, offline."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import structs

from rolecall import architectures
from rolecall.architectures import CATALOGUE
from rolecall.cli.options import Debug, Format, FormatOption, RunsDir, Seed
from rolecall.cli.run import Engine
from rolecall.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from rolecall.fleet.app import App

__all__ = ("demo",)

_SEED = 0
_RANGE = re.compile(r"(.*)\[1-(\d+)\]")


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
        lambda: _of_size(_packaged(name), nodes),
        Settings(engine=engine, sets=sets, seed=seed, format=format, runs_dir=runs_dir, debug=debug, judged=True),
    )


def _packaged(name: str) -> App:
    """Return the application that lies beside an architecture."""
    from rolecall.fleet.app import App

    if name not in CATALOGUE:
        hint = f"{nearest(name, CATALOGUE).strip()} There are: {', '.join(CATALOGUE)}".strip()
        raise ConfigError("rolecall demo", f"there is no demo {name!r}", hint=hint)
    return App.load(Path(architectures.__file__).with_name(f"{name.replace('-', '_')}.yaml"))


def _of_size(app: App, nodes: int | None) -> App:
    """Return an application with so many nodes of the kind that it has most of."""
    ranges = {key: int(found[2]) for key in app.nodes if (found := _RANGE.fullmatch(key)) is not None}
    if nodes is None or not ranges:
        return app
    most = max(ranges, key=lambda key: ranges[key])
    renamed = {_RANGE.sub(rf"\g<1>[1-{nodes}]", key) if key == most else key: node for key, node in app.nodes.items()}
    return structs.replace(app, nodes=renamed)


def _list(format: Format) -> None:
    from rolecall.cli.listing import show_rows

    rows = [{"name": name, "shows": shows} for name, shows in CATALOGUE.items()]
    show_rows("demo", rows, format=format, headings=("demo", "what it shows"))
