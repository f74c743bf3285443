"""Who is at the other end of a link, and the errors for links that do not come about."""

from __future__ import annotations

import secrets
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from rolecall.core.errors import RolecallError

__all__ = ("FINAL_CODES", "LinkRefused", "Peer", "RefusedByPeer", "Unreachable", "new_incarnation", "printable")

_NAME = r"\A[A-Za-z0-9_][A-Za-z0-9_.\-]{0,99}\Z"
_WORD = r"\A[!-~]{0,300}\Z"
_CAPABILITIES = 64


class Peer(msgspec.Struct, frozen=True):
    """One life of a node: its name, and a random number that a restart changes.

    `address` is where it listens, or None; `capabilities` are words for what it can do.
    """

    name: Annotated[str, Meta(pattern=_NAME)]
    incarnation: Annotated[int, Meta(ge=0, le=2**63 - 1)]
    address: Annotated[str, Meta(pattern=_WORD)] | None = None
    capabilities: Annotated[tuple[Annotated[str, Meta(pattern=_WORD)], ...], Meta(max_length=_CAPABILITIES)] = ()

    @property
    def life(self) -> tuple[str, int]:
        """Name and incarnation, which tell lives apart and order them."""
        return self.name, self.incarnation

    def __str__(self) -> str:
        return self.name


def new_incarnation() -> int:
    """Return the number of a new life."""
    return secrets.randbits(63)


def printable(text: str) -> str:
    """Return a text from elsewhere as it may stand in a log: on one line."""
    return "".join(char if char.isprintable() else "?" for char in text)


class LinkRefused(RolecallError):
    """Raised when a node does not want a link, or is not the node that it should be.

    `code` says which: "protocol", "secret", "certificate", "name", "fenced", "limit", "closing", "forgotten",
    "restarted", "linked", "malformed", or "tls": it hung up right after the TLS handshake.
    """

    def __init__(self, address: str, code: str, reason: str) -> None:
        super().__init__(f"{address}: {reason.rstrip('.')}.")
        self.address, self.code, self.reason = address, code, reason


class RefusedByPeer(LinkRefused):
    """Raised when it is the other node that does not want the link."""


class Unreachable(RolecallError):
    """Raised when nobody could be reached at an address, after several attempts."""

    def __init__(self, address: str, attempts: int, reason: str) -> None:
        times = "once" if attempts == 1 else f"{attempts} times"
        super().__init__(
            f"{address}: no node could be reached, tried {times} ({reason.rstrip('.')}). "
            "Is it running, and does it listen there?"
        )
        self.address, self.attempts = address, attempts


FINAL_CODES: Final = frozenset({"protocol", "secret", "certificate", "name", "fenced", "forgotten", "restarted"})
"""Refusals that trying again cannot change."""
