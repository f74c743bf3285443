"""The options that say how nodes which somebody started, and who conducts them, know each other."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

__all__ = ("Certs", "Listen", "SecretFile", "use_access")

Certs: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--certs",
        metavar="DIR",
        envvar="ROLECALL_CERTS",
        help="Certificates for mutual TLS, as rolecall certs makes them.",
    ),
]
SecretFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--secret-file",
        metavar="FILE",
        envvar="ROLECALL_SECRET_FILE",
        help="A secret of at least 16 bytes that all nodes know; on one machine it does without certificates.",
    ),
]
Listen: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--listen",
        metavar="HOST:PORT",
        envvar="ROLECALL_LISTEN",
        help="With --engine nodes: where nodes without an address can join.",
    ),
]


def use_access(certs: Path | None, secret_file: Path | None, listen: str | None) -> None:
    """Let the engine `nodes` of this process find what its nodes know it by."""
    given = {
        "ROLECALL_CERTS": certs and certs.resolve(),
        "ROLECALL_SECRET_FILE": secret_file and secret_file.resolve(),
        "ROLECALL_LISTEN": listen,
    }
    os.environ.update({name: str(value) for name, value in given.items() if value is not None})
