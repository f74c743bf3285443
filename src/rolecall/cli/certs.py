"""`rolecall certs`: an authority for the machines of one installation, and a certificate for each node."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from rolecall.cli.options import Debug, Format, FormatOption

__all__ = ("app",)

app = typer.Typer()

Directory: TypeAlias = Annotated[
    Path, typer.Option("--dir", metavar="DIR", help="Where the files of the authority and of the nodes are.")
]
_HEADINGS = ("for", "certificate", "key", "valid until (UTC)")


@app.callback(invoke_without_command=True)
def certs(context: typer.Context) -> None:
    """Certificates for mutual TLS: an authority, and one for each node.

    Example:  rolecall certs init && rolecall certs issue alice
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


@app.command("init")
def init(
    directory: Directory = Path("certs"),
    days: Annotated[int, typer.Option("--days", min=1, help="For how long it is valid.")] = 3650,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Make an authority: DIR/ca.pem, which every node gets, and DIR/ca.key.

    The key is needed only to issue certificates; keep it off the nodes.
    Nothing that is there is overwritten.

    Example:  rolecall certs init --dir certs
    """
    from rolecall.cli.failures import ending_events, reported

    with reported(*ending_events(format), debug=debug):
        from rolecall.wire.certificates import create_authority

        certificate, key = create_authority(directory, days=days)
        _show([_row("authority", certificate, key)], format)


@app.command("issue")
def issue(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", help='Nodes; ranges such as "edge[1-10]" are more than one.')
    ],
    directory: Directory = Path("certs"),
    days: Annotated[int, typer.Option("--days", min=1, help="For how long they are valid.")] = 397,
    format: FormatOption = Format.TEXT,
    debug: Debug = False,
) -> None:
    """Make certificates for nodes: DIR/NAME.pem and DIR/NAME.key.

    A node needs these two and DIR/ca.pem on its machine; its key is readable
    by its owner only. Nothing that is there is overwritten.

    Example:  rolecall certs issue conductor "edge[1-3]" --dir certs
    """
    from rolecall.cli.failures import ending_events, reported

    with reported(*ending_events(format), debug=debug):
        from rolecall.wire.certificates import issue

        nodes = _nodes(names, directory)
        made = [issue(directory, node, days=days) for node in nodes]
        rows = [_row(node, files.certificate, files.key) for node, files in zip(nodes, made, strict=True)]
        _show(rows, format)


def _nodes(names: list[str], directory: Path) -> list[str]:
    """Return the nodes that are meant, each once; raise if one has a certificate, before any gets one."""
    from rolecall.core.errors import ConfigError
    from rolecall.core.patterns import expand_range

    try:
        nodes = list(dict.fromkeys(node for name in names for node in expand_range(name)))
    except ValueError as error:
        raise ConfigError("certs issue", str(error)) from None
    for node in nodes:
        if node != "ca" and (path := directory / f"{node}.pem").exists():
            raise ConfigError(str(path), "it is there already", hint="Move it away first if it is to be replaced")
    return nodes


def _row(owner: str, certificate: Path, key: Path) -> dict[str, Any]:
    from rolecall.wire.certificates import read_certificate

    until: datetime = read_certificate(certificate).valid_until
    return {
        "for": owner,
        "certificate": str(certificate),
        "key": str(key),
        "valid_until": f"{until:%Y-%m-%d %H:%M}",
    }


def _show(rows: list[dict[str, Any]], format: Format) -> None:
    from rolecall.cli.listing import show_rows

    show_rows("certificate", rows, format=format, headings=_HEADINGS)
