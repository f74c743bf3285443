"""`rolecall run`: run an application file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from rolecall.cli.access import Certs, Listen, SecretFile, use_access
from rolecall.cli.options import DataDir, Debug, Format, FormatOption, RunsDir, Seed

if TYPE_CHECKING:
    from rolecall.fleet.app import App

__all__ = ("run",)


Application: TypeAlias = Annotated[
    Path, typer.Argument(metavar="APP", help="An application: app.yaml, or a Python file that defines `app`.")
]
Engine: TypeAlias = Annotated[
    str,
    typer.Option(
        "--engine",
        metavar="NAME",
        help="What runs it. local: all nodes in this process; sim: in virtual time; "
        "processes: each in one of its own; nodes: each where rolecall node runs.",
    ),
]
Sets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Override a parameter of the application, such as rounds=3; repeatable.",
    ),
]
Check: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--check",
        show_default=False,
        help="Encode and decode every message, and find values changed after they were sent. Slower.",
    ),
]
Detached: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--detach",
        "-d",
        show_default=False,
        help="Return once it runs, and let it go on by itself; what it prints goes to output.txt in its directory.",
    ),
]


_Starter: TypeAlias = Annotated[int | None, typer.Option("--starter", hidden=True)]


def run(
    context: typer.Context,
    application: Application,
    engine: Engine = "local",
    sets: Sets = None,
    seed: Seed = None,
    format: FormatOption = Format.TEXT,
    runs_dir: RunsDir = Path("runs"),
    data_dir: DataDir = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    listen: Listen = None,
    check: Check = False,
    detached: Detached = False,
    starter: _Starter = None,
    debug: Debug = False,
) -> None:
    """Run an application, and show its progress and its curve.

    What it leaves behind is in a new directory under --runs-dir: the expanded
    application, its metrics, its log, the final model, the curve.

    Ctrl-C ends the run in good order; a second one aborts it. While it lasts,
    rolecall ps lists it, and status, logs, call, assign, stop and shell look
    after it.

    Example:  rolecall run examples/fedavg/app.yaml --set rounds=5 --seed 7
    """
    from rolecall.cli.session import Settings, attend

    def load() -> App:
        from rolecall.fleet.app import App

        use_access(certs, secret_file, listen)
        return App.load(application)

    settings = Settings(
        engine=engine,
        sets=tuple(sets or ()),
        seed=seed,
        format=format,
        runs_dir=runs_dir,
        data_dir=data_dir,
        check=check,
        debug=debug,
    )
    if starter is not None:
        from rolecall.cli.detached import Starter

        told = Starter(starter)
        settings = replace(settings, live=False, on_directory=told.on_directory, on_record=told.on_record)
    if detached:
        from rolecall.cli.detached import detach

        detach(_without_detach(context), format)
    else:
        attend(load, settings)


def _without_detach(context: typer.Context) -> list[str]:
    """Return the arguments of this command as they were given, as another process may take them."""
    given = ["run"]
    for parameter in context.command.params:
        value = context.params.get(parameter.name or "")
        if parameter.name in ("detached", "starter", "help") or value in (None, False) or not parameter.name:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        for one in values:
            words = [] if parameter.param_type_name == "argument" else [parameter.opts[0]]
            given += words if one is True else [*words, str(one)]
    return given
