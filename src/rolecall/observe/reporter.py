"""What every way of showing a run can do: the event stream for programs, progress and a curve for people."""

from __future__ import annotations

from typing import Protocol

from rolecall.core.records import Record
from rolecall.observe.summary import Failure, Plan, Summary

__all__ = ("Reporter",)


class Reporter(Protocol):
    """Shows one run: `started` first, then records as they come, in the end `finished` or `failed`, once."""

    def started(self, plan: Plan) -> None:
        """Show that the run begins."""

    def record(self, record: Record) -> None:
        """Show one record of the run, or pass over it."""

    def finished(self, summary: Summary) -> None:
        """Show how the run ended."""

    def failed(self, failure: Failure) -> None:
        """Show that the run ended without a result."""
