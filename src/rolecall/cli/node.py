"""`rolecall node`: a node in this process, or several, for a conductor to deploy to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO, TypeAlias

import typer

from rolecall.cli.access import Certs, SecretFile
from rolecall.cli.options import DataDir, Debug, Format, FormatOption

if TYPE_CHECKING:
    import anyio

    from rolecall.fleet.standing_node import StandingNodeConfig

__all__ = ("node",)

Announce: TypeAlias = "Callable[[StandingNodeConfig, str | None], None]"


def node(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help='Its name in applications, and in its certificate; ranges such as "client[1-5]" are more than one.',
        ),
    ],
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen",
            metavar="HOST:PORT",
            help="Where conductors and other nodes reach it; port 0: any. Of several nodes each takes the next port.",
        ),
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
            "in the user's state directory, for each node.",
        ),
    ] = None,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Be a node: wait for an application, serve it, and wait for the next.

    A conductor, which is rolecall run APP --engine nodes, deploys to it. It
    imports nothing but rolecall's own roles and models and what --allow names.
    Several names make as many nodes in this process, which share one import of
    what they run.

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
        access = Access(certs=certs, secret_file=secret_file)
        configs = [
            StandingNodeConfig(
                name=name,
                listen=address,
                join=join,
                access=access,
                packages=tuple(allow or ()),
                audit=audit or _audit_file(name),
            )
            for name, address in _places(names, listen, join)
        ]
        _serve(configs, out, format)


def _places(names: list[str], listen: str | None, join: str | None) -> list[tuple[str, str | None]]:
    """Return the nodes that are meant, each with where it listens."""
    from rolecall.core.errors import ConfigError
    from rolecall.core.patterns import expand_range
    from rolecall.wire.addresses import format_address, parse_address

    try:
        nodes = list(dict.fromkeys(node for name in names for node in expand_range(name)))
        for node in nodes:
            _check(node)
    except ValueError as error:
        raise ConfigError("rolecall node", str(error)) from None
    if listen is None:
        if join is None:
            raise ConfigError(
                "rolecall node", "nobody could reach this node, and it would reach nobody",
                hint="Say where it listens (--listen HOST:PORT), or where a conductor does (--join HOST:PORT)",
            )  # fmt: skip
        return [(node, None) for node in nodes]
    host, port = parse_address(listen)
    return [(node, format_address(host, port and port + number)) for number, node in enumerate(nodes)]


def _check(name: str) -> None:
    from rolecall.core.errors import ConfigError
    from rolecall.core.ids import RoleId

    if RoleId.of(name, "node").home == "conductor":
        raise ConfigError("rolecall node", "'conductor' is the name of the node that conducts", hint="Choose another")


def _audit_file(name: str) -> Path:
    """Return where the audit log of a node is unless its operator says; it outlives the machine's."""
    from rolecall.fleet.records import STATE, own_directory

    if given := os.environ.get(STATE):
        return own_directory(Path(given)) / f"{name}.audit.jsonl"
    home = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(home) / "rolecall" / f"{name}.audit.jsonl"


def _serve(configs: list[StandingNodeConfig], out: TextIO, format: Format) -> None:
    from rolecall.cli.interrupts import Interrupts
    from rolecall.runtime.event_loop import run_on_loop

    def announce(config: StandingNodeConfig, address: str | None) -> None:
        tls, join = config.access.certs is not None, config.join
        if format is Format.JSONL:
            _event(out, {"event": "listening", "node": config.name, "address": address, "join": join, "tls": tls})
            return
        where = f"listens at {address}" if address else f"joins a conductor at {join}"
        out.write(f"Node {config.name} {where}, {'with TLS' if tls else 'this machine only'}.\n")
        out.flush()

    async def serve(stop: anyio.Event) -> None:
        await _serve_all(configs, announce, stop)

    with _log_to_stderr(), Interrupts(notice=_say, last_words=lambda code: None) as interrupts:
        run_on_loop(interrupts.run, serve)
    if format is Format.JSONL:
        _event(out, {"event": "finished", "terminal": True, "status": "ok"})


async def _serve_all(configs: list[StandingNodeConfig], announce: Announce, stop: anyio.Event) -> None:
    """Serve until all nodes have been stopped; what one of them cannot do ends all."""
    import anyio

    errors: list[Exception] = []

    async def serve(config: StandingNodeConfig) -> None:
        try:
            await _serve_one(config, partial(announce, config), stop)
        except Exception as error:
            errors.append(error)
            stop.set()

    async with anyio.create_task_group() as tasks:
        for config in configs:
            tasks.start_soon(serve, config)
    if errors:
        raise errors[0]


async def _serve_one(config: StandingNodeConfig, announce: Callable[[str | None], None], stop_all: anyio.Event) -> None:
    import anyio
    import anyio.to_thread

    from rolecall.fleet.gate import standing
    from rolecall.fleet.standing_node import StandingNode

    stop = anyio.Event()

    async def stop_with_all() -> None:
        await stop_all.wait()
        stop.set()

    async with standing(config.name, await anyio.to_thread.run_sync(config.access.secret)) as desk:

        def listening(address: str | None) -> None:
            desk.listening(address)
            announce(address)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(stop_with_all)
            await StandingNode(config, listening, desk.services).serve(stop)
            tasks.cancel_scope.cancel()


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
