"""The command line: `rolecall demo`, `run`, `data`, `doctor`. `main` is the console script."""

from __future__ import annotations

from rolecall.cli.commands import main

__all__ = ("main",)
