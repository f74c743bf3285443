"""The command line: `rolecall demo`, `run`, `data`, `doctor`. `main` is the console script, `app` Typer's."""

from __future__ import annotations

from rolecall.cli.commands import app, main

__all__ = ("app", "main")
