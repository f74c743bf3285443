"""`rolecall demo`: a packaged application, on real data, offline."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rolecall.cli.options import Debug, Format, FormatOption, RunsDir, Seed
from rolecall.core.errors import ConfigError, nearest

if TYPE_CHECKING:
    from rolecall.fleet.app import App

__all__ = ("DEMOS", "Demo", "demo")

_SEED = 0


@dataclass(frozen=True)
class Demo:
    """A packaged application and what it shows; its file is `rolecall/architectures/<name>.yaml`."""

    name: str
    shows: str

    def load(self) -> App:
        """Return the application."""
        from rolecall.fleet.app import App

        return App.load(Path(__file__).parents[1] / "architectures" / f"{self.name}.yaml")


DEMOS = {
    known.name: known
    for known in (
        Demo("fedavg", "federated averaging: ten clients with unlike shares of the digits learn one model"),
    )
}


def demo(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Which demo; see --list.")] = "fedavg",
    show_list: Annotated[
        bool, typer.Option("--list", show_default=False, help="List the demos and exit.")
    ] = False,
    rounds: Annotated[
        int | None,
        typer.Option("--rounds", metavar="N", min=1, help="How many rounds; each demo has its own default."),
    ] = None,
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

    def load() -> App:
        return _known(name).load()

    sets = () if rounds is None else (f"rounds={rounds}",)
    attend(load, Settings(sets=sets, seed=seed, format=format, runs_dir=runs_dir, debug=debug))


def _known(name: str) -> Demo:
    if name not in DEMOS:
        hint = f"{nearest(name, DEMOS).strip()} There are: {', '.join(DEMOS)}".strip()
        raise ConfigError("rolecall demo", f"there is no demo {name!r}", hint=hint)
    return DEMOS[name]


def _list(format: Format) -> None:
    from rolecall.cli.listing import show_rows

    rows = [{"name": known.name, "shows": known.shows} for known in DEMOS.values()]
    show_rows("demo", rows, format=format, headings=("demo", "what it shows"))
