"""`rolecall ps`, `status`, `logs`, `call`, `assign`, `pause`, `stop` and so on: looking after runs and nodes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rolecall.cli.access import Certs, SecretFile
from rolecall.cli.options import Debug, Format, FormatOption
from rolecall.cli.places import At, Places, RunOption

if TYPE_CHECKING:
    from rolecall.cli.views import View

__all__ = ("assign", "call", "logs", "pause", "ps", "relate", "resume", "status", "stop")


def ps(format: FormatOption = Format.TEXT, debug: Debug = False) -> None:
    """List the runs and the nodes of this machine that can be looked after.

    Runs are there while they last, nodes while rolecall node serves; of this
    user only.

    Example:  rolecall ps
    """
    from rolecall.cli.actions import list_all

    with _command(format, debug) as view:
        _wait(lambda: list_all(view, Places()))


def status(
    name: Annotated[
        str | None, typer.Argument(metavar="NODE", help="A node, or a run as rolecall ps calls it; all by default.")
    ] = None,
    run: RunOption = None,
    at: At = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Show what runs on nodes: their roles with their status, their links.

    Example:  rolecall status client1
    """
    from rolecall.cli.actions import show_status

    with _command(format, debug) as view:
        _wait(lambda: show_status(view, Places(at, certs, secret_file, run), name))


def logs(
    name: Annotated[
        str | None, typer.Argument(metavar="ROLE|NODE", help="Whose lines; patterns such as client*/trainer, too.")
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", show_default=False, help="Go on with lines as they come, until Ctrl-C.")
    ] = False,
    past: Annotated[int, typer.Option("--lines", "-n", metavar="N", min=0, help="How many past lines.")] = 100,
    level: Annotated[str, typer.Option("--level", help="The least level: debug, info, warning or error.")] = "info",
    run: RunOption = None,
    at: At = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Show the log of a run or a node: metrics, changes of status, messages.

    Example:  rolecall logs "client*/trainer" --follow
    """
    from rolecall.cli.actions import show_logs

    with _command(format, debug) as view:
        places = Places(at, certs, secret_file, run)
        _wait(lambda: show_logs(view, places, name or "", level, past=past, follow=follow))


def call(
    role: Annotated[str, typer.Argument(metavar="ROLE", help="Whom to call, such as server/coordinator.")],
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="Its service, task or stream.")],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="NAME=VALUE", help="Arguments; values are YAML.")
    ] = None,
    json: Annotated[
        str | None, typer.Option("--json", metavar="OBJECT", help="Arguments as one JSON object instead.")
    ] = None,
    timeout_s: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long it may take.")
    ] = None,
    run: RunOption = None,
    at: At = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Call a role, and print what it returns as JSON: of a stream, each item.

    The role's node makes the call, in its own name: channels that are open to
    a relationship only are closed to it, unless the node is in it.

    Example:  rolecall call server/counter add 'numbers=[1, 2]'
    """
    from rolecall.cli.actions import make_call
    from rolecall.cli.arguments import arguments_of

    with _command(format, debug) as view:
        given = arguments_of(arguments or [], json)
        places = Places(at, certs, secret_file, run)
        _wait(lambda: make_call(view, places, role, channel, given, timeout_s or 0))


def assign(
    node: Annotated[str, typer.Argument(metavar="NODE", help="The node that is to have the role.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The name of the role there.")],
    class_: Annotated[str, typer.Argument(metavar="CLASS", help="Its class, as module:QualName.")],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="OPTION=VALUE", help="An option of its constructor; values are YAML."),
    ] = None,
    elements: Annotated[
        list[str] | None,
        typer.Option("--element", metavar="SLOT=CLASS", help="What fills an element: module:QualName, or YAML."),
    ] = None,
    relate: Annotated[
        list[str] | None,
        typer.Option("--relate", metavar="NAME=ROLES", help="A relationship: role ids or patterns, with commas."),
    ] = None,
    run: RunOption = None,
    at: At = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Create a role on a node, and start it. What the node may import holds.

    Example:  rolecall assign edge1 prober probing:Prober --set period_s=5 --relate trainers=client*/trainer
    """
    from rolecall.cli.actions import assign_role
    from rolecall.cli.arguments import relationships_of, role_of

    with _command(format, debug) as view:
        role, relationships = role_of(class_, sets or [], elements or []), relationships_of(relate or [])
        places = Places(at, certs, secret_file, run)
        _wait(lambda: assign_role(view, places, node, name, role, relationships))


def pause(
    roles: Annotated[str, typer.Argument(metavar="ROLE", help="Which; patterns such as client*/trainer, too.")],
    run: RunOption = None,
    at: At = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Let roles finish what they do, and take nothing new until they are resumed.

    What they are sent meanwhile waits.

    Example:  rolecall pause "client*/trainer"
    """
    from rolecall.cli.actions import pause_roles

    with _command(format, debug) as view:
        _wait(lambda: pause_roles(view, Places(at, certs, secret_file, run), roles))


def resume(
    roles: Annotated[str, typer.Argument(metavar="ROLE", help="Which; patterns such as client*/trainer, too.")],
    run: RunOption = None,
    at: At = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Let paused roles go on.

    Example:  rolecall resume "client*/trainer"
    """
    from rolecall.cli.actions import resume_roles

    with _command(format, debug) as view:
        _wait(lambda: resume_roles(view, Places(at, certs, secret_file, run), roles))


def relate(
    of: Annotated[str, typer.Argument(metavar="ROLE|NODE", help="Whose relationship; of a node: that of its roles.")],
    name: Annotated[str, typer.Argument(metavar="NAME", help="The relationship.")],
    roles: Annotated[
        list[str] | None, typer.Argument(metavar="ROLE...", help="Whom it names: role ids or patterns.")
    ] = None,
    add: Annotated[bool, typer.Option("--add", help="Besides those there are.")] = False,
    remove: Annotated[bool, typer.Option("--remove", help="Take these out, and leave the others.")] = False,
    alias: Annotated[
        str | None, typer.Option("--alias", metavar="OTHER", help="Have it stand for another relationship instead.")
    ] = None,
    run: RunOption = None,
    at: At = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Have a relationship name others from now on; without roles, nobody.

    Example:  rolecall relate server/coordinator trainers "client*/trainer" --add
    """
    from rolecall.cli.actions import relate_roles
    from rolecall.cli.arguments import how_of

    with _command(format, debug) as view:
        how = how_of(roles or [], add=add, remove=remove, alias=alias)
        places = Places(at, certs, secret_file, run)
        _wait(lambda: relate_roles(view, places, of, name, roles or [], how, alias))


def stop(
    name: Annotated[
        str, typer.Argument(metavar="RUN|NODE|ROLE", help="A run or node as rolecall ps calls it, or roles.")
    ],
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0, help="How long a run or node may take to end.")
    ] = 60.0,
    run: RunOption = None,
    at: At = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Stop a run or a node in good order, or some roles.

    A run ends as by Ctrl-C: its results so far are kept. A node stops what
    runs there, and ends.

    Example:  rolecall stop fedavg-4711
    """
    from rolecall.cli.actions import stop_it

    with _command(format, debug) as view:
        _wait(lambda: stop_it(view, Places(at, certs, secret_file, run), name, timeout_s))


@contextmanager
def _command(format: Format, debug: bool) -> Iterator[View]:
    """Give the body what shows its results, tell of its errors, and write the terminal event."""
    from rolecall.cli.failures import ending_events, reported
    from rolecall.cli.views import view_of

    with reported(*ending_events(format), debug=debug):
        view = view_of(format, sys.stdout)
        yield view
        view.finished()


def _wait(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    from rolecall.runtime.event_loop import run_on_loop

    try:
        run_on_loop(work)
    except BrokenPipeError:  # nobody reads any more, as with `head`
        from rolecall.cli.exit_codes import ExitCode
        from rolecall.cli.session import let_go

        let_go(sys.stdout)
        raise typer.Exit(int(ExitCode.OUTPUT_CLOSED)) from None
