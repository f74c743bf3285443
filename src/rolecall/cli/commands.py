"""The command `rolecall`: its families of commands, and how errors of usage are told."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from rolecall.cli import certs, compare, data, demo, doctor, manage, node, replay, run, shell
from rolecall.cli.exit_codes import SHORT, ExitCode
from rolecall.cli.failures import tell
from rolecall.observe.events import EventStream
from rolecall.observe.summary import Failure

__all__ = ("app", "main")

app = typer.Typer(
    name="rolecall",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: " + "; ".join(f"{code} {SHORT[code]}" for code in SHORT),
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("compare")(compare.compare)
app.command("replay")(replay.replay)
app.command("node")(node.node)
for _command in (
    manage.ps, manage.status, manage.logs, manage.call, manage.assign, manage.pause, manage.resume, manage.relate,
    manage.stop, shell.shell,
):  # fmt: skip
    app.command(_command.__name__)(_command)
app.add_typer(data.app, name="data")
app.add_typer(certs.app, name="certs")
app.command("doctor")(doctor.doctor)


@app.callback(invoke_without_command=True)
def rolecall(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    """Roles, channels and nodes for distributed machine learning.

    Begin with:  [bold]rolecall demo[/bold]  (ten clients learn to read digits, offline)

    Example:  rolecall run examples/fedavg/app.yaml --set rounds=5 --seed 7
    """
    if version:
        from importlib import metadata

        typer.echo(f"rolecall {metadata.version('rolecall')}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; `arguments` are those of the process unless given."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given, prog_name="rolecall", standalone_mode=False)
    except typer.Abort:
        return int(ExitCode.ABORTED)
    except Exception as error:
        return _usage_error(error, given)
    return code if isinstance(code, int) else int(ExitCode.OK)


def _usage_error(error: Exception, arguments: Sequence[str]) -> int:
    """Tell what Typer found wrong with the arguments; anything else is raised again."""
    message = getattr(error, "format_message", None)
    if message is None:
        raise error
    command = getattr(getattr(error, "ctx", None), "command_path", "rolecall")
    text = f"{_ended(message())} Try: {command} --help"
    failure = Failure(status="failed", error=text, error_type="UsageError", exit_code=int(ExitCode.USAGE))
    if _wants_events(arguments):
        EventStream(sys.stdout).failed(failure)
    tell(failure, debug=False)
    return failure.exit_code


def _ended(sentence: str) -> str:
    sentence = sentence.replace("?.", "?")
    return sentence if sentence.endswith(("?", ".")) else f"{sentence}."


def _wants_events(arguments: Sequence[str]) -> bool:
    pairs = itertools.pairwise(arguments)
    return "--format=jsonl" in arguments or ("--format", "jsonl") in pairs
