"""`rolecall node`: one node in this process, for a conductor to deploy to."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer

from rolecall.cli.access import Certs, SecretFile
from rolecall.cli.options import DataDir, Debug, Format, FormatOption

if TYPE_CHECKING:
    from rolecall.fleet.standing_node import StandingNodeConfig

__all__ = ("node",)


def node(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name in applications, and in its certificate.")],
    listen: Annotated[
        str | None,
        typer.Option("--listen", metavar="HOST:PORT", help="Where conductors and other nodes reach it; port 0: any."),
    ] = None,
    join: Annotated[
        str | None,
        typer.Option("--join", metavar="HOST:PORT", help="Where a conductor listens: for nodes nobody can reach."),
    ] = None,
    certs: Certs = None,
    secret_file: SecretFile = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", metavar="PACKAGE", help="What applications may have imported here; repeatable."),
    ] = None,
    data_dir: DataDir = None,
    audit: Annotated[
        Path | None,
        typer.Option(
            "--audit",
            metavar="FILE",
            help="Where each join, denial, assignment and stop becomes a line; by default NAME.audit.jsonl "
            "in the user's state directory.",
        ),
    ] = None,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Be a node: wait for an application, serve it, and wait for the next.

    A conductor, which is rolecall run APP --engine nodes, deploys to it. It
    imports nothing but rolecall's own roles and models and what --allow names.

    While it serves, rolecall ps on its machine lists it, and status, logs,
    call, assign, stop and shell look after it.

    Ctrl-C or SIGTERM stops what runs here in good order, and ends the node.

    Example:  rolecall node edge1 --listen 10.0.0.5:4000 --certs certs --allow myproject
    """
    from rolecall.cli.failures import ending_events, reported

    out = sys.stdout
    with ExitStack() as stack:
        stack.enter_context(reported(*ending_events(format), debug=debug))
        if format is Format.JSONL:
            stack.enter_context(redirect_stdout(sys.stderr))  # what roles print must not get among the events
        from rolecall.cli.data import use_data_dir
        from rolecall.fleet.access import Access
        from rolecall.fleet.standing_node import StandingNodeConfig

        use_data_dir(data_dir)
        _check(name, listen, join)
        access = Access(certs=certs, secret_file=secret_file)
        config = StandingNodeConfig(
            name=name,
            listen=listen,
            join=join,
            access=access,
            packages=tuple(allow or ()),
            audit=audit or _audit_file(name),
        )
        _serve(config, out, format)


def _check(name: str, listen: str | None, join: str | None) -> None:
    from rolecall.core.errors import ConfigError
    from rolecall.core.ids import RoleId

    try:
        home = RoleId.of(name, "node").home
    except ValueError as error:
        raise ConfigError("rolecall node", str(error)) from None
    if home == "conductor":
        raise ConfigError("rolecall node", "'conductor' is the name of the node that conducts", hint="Choose another")
    if listen is None and join is None:
        raise ConfigError(
            "rolecall node", "nobody could reach this node, and it would reach nobody",
            hint="Say where it listens (--listen HOST:PORT), or where a conductor does (--join HOST:PORT)",
        )  # fmt: skip


def _audit_file(name: str) -> Path:
    """Return where the audit log of a node is unless its operator says; it outlives the machine's."""
    from rolecall.fleet.records import STATE, own_directory

    if given := os.environ.get(STATE):
        return own_directory(Path(given)) / f"{name}.audit.jsonl"
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "rolecall" / f"{name}.audit.jsonl"


def _serve(config: StandingNodeConfig, out: TextIO, format: Format) -> None:

    import anyio
    import anyio.to_thread

    from rolecall.cli.interrupts import Interrupts
    from rolecall.fleet.gate import standing
    from rolecall.fleet.standing_node import StandingNode
    from rolecall.runtime.event_loop import run_on_loop

    def announce(address: str | None) -> None:
        tls = config.access.certs is not None
        if format is Format.JSONL:
            _event(
                out, {"event": "listening", "node": config.name, "address": address, "join": config.join, "tls": tls}
            )
            return
        where = f"listens at {address}" if address else f"joins a conductor at {config.join}"
        out.write(f"Node {config.name} {where}, {'with TLS' if tls else 'this machine only'}.\n")
        out.flush()

    async def serve(stop: anyio.Event) -> None:
        async with standing(config.name, await anyio.to_thread.run_sync(config.access.secret)) as desk:

            def listening(address: str | None) -> None:
                desk.listening(address)
                announce(address)

            await StandingNode(config, listening, desk.services).serve(stop)

    with _log_to_stderr(), Interrupts(notice=_say, last_words=lambda code: None) as interrupts:
        run_on_loop(interrupts.run, serve)
    if format is Format.JSONL:
        _event(out, {"event": "finished", "terminal": True, "status": "ok"})


@contextmanager
def _log_to_stderr() -> Iterator[None]:
    """Have a line for all that concerns who may do what here: who came, who was refused, what was deployed."""
    import logging

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger = logging.getLogger("rolecall")
    before = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before[0])
        logger.propagate = before[1]


def _event(out: TextIO, event: dict[str, Any]) -> None:
    from rolecall.observe.events import line_of

    out.write(line_of(event))
    out.flush()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
