"""What a channel promises under load: how many handlers at once, how much may wait, and what gives way."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import msgspec

from rolecall.core.errors import DeclarationError

__all__ = (
    "MAILBOX_BYTES",
    "MAILBOX_MESSAGES",
    "MAX_CONCURRENT",
    "ChannelOptions",
    "EventOverflow",
    "Overflow",
    "check_queue",
)

Overflow: TypeAlias = Literal["wait", "fail", "drop_oldest", "latest"]
EventOverflow: TypeAlias = Literal["wait", "drop_oldest", "latest"]

MAILBOX_MESSAGES = 1024
MAILBOX_BYTES = 256 * 2**20
MAX_CONCURRENT = 10_000


class ChannelOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How a channel behaves. `concurrent` counts handlers; `mailbox` counts waiting messages.

    `overflow` says what gives way when the mailbox is full: the caller waits (`wait`), the call fails with
    `Overloaded` (`fail`), the oldest waiting call is displaced (`drop_oldest`), or only the newest ever waits
    (`latest`).
    """

    concurrent: int = 1
    mailbox: int = MAILBOX_MESSAGES
    mailbox_bytes: int = MAILBOX_BYTES
    overflow: Overflow = "wait"
    allow: str | None = None
    idempotent: bool = False
    resumable: bool = False
    progress: Any = None
    compress: bool = False

    @classmethod
    def of(cls, concurrent: bool | int = False, **options: Any) -> ChannelOptions:
        """Return checked options; `concurrent=True` means as many handlers as come (at most 10,000)."""
        number = {True: MAX_CONCURRENT, False: 1}[concurrent] if isinstance(concurrent, bool) else concurrent
        made = cls(concurrent=number, **options)
        made.check()
        return made

    def check(self) -> None:
        """Raise `ValueError` for limits that make no sense."""
        if not 1 <= self.concurrent <= MAX_CONCURRENT:
            raise ValueError(f"concurrent={self.concurrent}: give True, False or a number from 1 to {MAX_CONCURRENT}")
        if self.mailbox < 1 or self.mailbox_bytes < 1:
            raise ValueError("mailbox and mailbox_bytes must be at least 1")
        if self.overflow not in ("wait", "fail", "drop_oldest", "latest"):
            raise ValueError(f"overflow={self.overflow!r}: give 'wait', 'fail', 'drop_oldest' or 'latest'")


def check_queue(place: str, capacity: int, overflow: str) -> None:
    """Raise `DeclarationError` for a queue of events, of the subscription `place`, that makes no sense."""
    if capacity < 1:
        raise DeclarationError(place, f"capacity={capacity}: at least one event must be able to wait")
    if overflow == "fail":
        raise DeclarationError(
            place,
            "overflow='fail' would make one slow subscriber fail the role that emits, and so all others",
            hint="Let the emitter wait ('wait'), or events give way ('drop_oldest', 'latest')",
        )
    if overflow not in get_args(EventOverflow):
        raise DeclarationError(place, f"overflow={overflow!r}", hint="Give 'wait', 'drop_oldest' or 'latest'")
