"""Why a TLS handshake failed, told to the other side.

With TLS 1.3 a client has finished before the server has looked at its certificate; only an alert tells it of a refusal.
OpenSSL makes one, but asyncio and uvloop drop it with the connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import socket
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, Final

__all__ = ("AlertingContext", "alert_text", "telling")

_LINGER_S: Final = 0.5  # with unread data, closing at once would take the alert back
_alerts: contextvars.ContextVar[list[bytes]] = contextvars.ContextVar("alerts")

_TEXTS: Final = {
    "UNKNOWN_CA": "it is of an authority that is not known there",
    "CERTIFICATE_EXPIRED": "it is not valid now",
    "CERTIFICATE_REVOKED": "it has been revoked",
    "CERTIFICATE_REQUIRED": "there is none",
    "BAD_CERTIFICATE": "it is damaged, or not for this use",
    "CERTIFICATE_UNKNOWN": "it is not acceptable",
    "UNSUPPORTED_CERTIFICATE": "it is of a kind that is not supported there",
    "DECRYPT_ERROR": "it does not fit its key",
}


class _Handshake(ssl.SSLObject):
    """One side of a connection, that keeps the alert with which its handshake has failed."""

    outgoing: ssl.MemoryBIO
    alerts: list[bytes]

    def do_handshake(self) -> None:
        """See `ssl`."""
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError:
            self.alerts.append(self.outgoing.read())
            raise


class AlertingContext(ssl.SSLContext):
    """The TLS settings of a side that can tell why it refuses the other."""

    sslobject_class = _Handshake

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> ssl.SSLObject:
        """See `ssl`."""
        made = super().wrap_bio(incoming, outgoing, *args, **options)
        assert isinstance(made, _Handshake)
        made.outgoing, made.alerts = outgoing, _alerts.get([])
        return made


async def telling(connection: socket.socket, handshake: Callable[[], Awaitable[object]]) -> None:
    """Await the handshake on an accepted connection; where it fails, send the alert, and raise what it raised."""
    alerts: list[bytes] = []
    _alerts.set(alerts)
    with connection.dup() as copy:
        try:
            await handshake()
        except ssl.SSLError:
            with contextlib.suppress(OSError):
                await _tell(copy, b"".join(alerts))
            raise


async def _tell(connection: socket.socket, alert: bytes) -> None:
    """Send the alert, and wait shortly for the other side to hang up."""
    loop = asyncio.get_running_loop()
    connection.setblocking(False)
    async with asyncio.timeout(_LINGER_S):
        await loop.sock_sendall(connection, alert)
        connection.shutdown(socket.SHUT_WR)
        while await loop.sock_recv(connection, 65_536):
            pass


def alert_text(error: BaseException | None) -> str | None:
    """Return what the other side's alert says of this side's certificate, None if it said nothing."""
    reason = (error.reason or "") if isinstance(error, ssl.SSLError) else ""
    _, _, name = reason.partition("_ALERT_")
    return _TEXTS.get(name)
