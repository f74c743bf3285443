"""The command line, `rolecall`: one module for each family of commands. `main` is the console script, `app` Typer's."""

from __future__ import annotations

from rolecall.cli.commands import app, main

__all__ = ("app", "main")
