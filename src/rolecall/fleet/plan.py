"""What a conductor has to do, and who is to know how it goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import anyio
import msgspec

from rolecall.core.records import LogLine, Observer, Record
from rolecall.fleet.agent import Order
from rolecall.fleet.course import Course
from rolecall.fleet.deployment import Deployment

__all__ = ("Plan",)


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """An application, also as `portable` made data of it; when its run began, and who observes it.

    `addresses` are those of nodes that others reach elsewhere than the nodes themselves say.
    """

    deployed: Deployment
    application: dict[str, Any]
    course: Course
    observers: list[Observer]
    began_s: float
    checked: bool = False
    addresses: Mapping[str, str] = {}

    @property
    def elapsed_s(self) -> float:
        """How long ago the run began."""
        return anyio.current_time() - self.began_s

    @property
    def order(self) -> Order:
        """What a node is told that gets its roles now."""
        return Order(application=self.application, elapsed_s=self.elapsed_s, checked=self.checked)

    def observe(self, record: Record) -> None:
        """Pass a record to the observers."""
        for observer in self.observers:
            observer(record)

    def say(self, level: str, source: str, text: str) -> None:
        """Have the observers see a line of the log."""
        self.observe(LogLine(self.elapsed_s, level, source, text))
