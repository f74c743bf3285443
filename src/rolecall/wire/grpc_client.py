"""The dialling end of a connection: a gRPC channel with one stream."""

from __future__ import annotations

import ssl
from typing import Any, Final

from grpclib.client import Channel
from grpclib.const import Cardinality
from grpclib.exceptions import StreamTerminatedError
from grpclib.protocol import H2Protocol
from h2.exceptions import H2Error

from rolecall.wire.addresses import format_address
from rolecall.wire.h2_tuning import TunedProtocol, TunedStream, configuration
from rolecall.wire.peers import LinkRefused
from rolecall.wire.pipe import Pipe, PipeClosed

__all__ = ("CONNECT", "connect", "open_channel", "peer_certificate")

CONNECT: Final = "/rolecall.v1.Link/Connect"


class _Channel(Channel):
    """A channel of grpclib with our protocol, whose certificates name nodes and not hosts."""

    def _protocol_factory(self) -> H2Protocol:
        original = super()._protocol_factory()
        return TunedProtocol(original.handler, original.config, original.h2_config)


def open_channel(host: str, port: int, tls: ssl.SSLContext | None) -> Channel:
    """Return a channel for the administrative service of a node; close it after use."""
    return _Channel(host, port, ssl=tls, config=configuration())


def peer_certificate(channel: Channel) -> dict[str, Any] | None:
    """Return what the certificate of the other side says, None without TLS or before anything has been asked."""
    protocol = channel._protocol
    if protocol is None:
        return None
    assert isinstance(protocol, TunedProtocol)
    ssl_object = protocol.connection.transport.get_extra_info("ssl_object")
    found: dict[str, Any] | None = ssl_object.getpeercert() if ssl_object is not None else None
    return found


async def connect(host: str, port: int, tls: ssl.SSLContext | None) -> Pipe:
    """Return a new connection to a node, on which nothing has been said yet.

    Raises `OSError` when nobody can be reached, `PipeClosed` when the connection ends at once, and `LinkRefused` for a
    certificate that is not acceptable.
    """
    channel = open_channel(host, port, tls)
    try:
        call = channel.request(CONNECT, Cardinality.STREAM_STREAM, bytes, bytes)
        await call.__aenter__()  # its exit would wait for trailers; closing the channel releases all that it holds
        await call.send_request()
    except ssl.SSLCertVerificationError as error:
        channel.close()
        problem = f"the certificate of the node there is not acceptable: {error.verify_message}"
        raise LinkRefused(format_address(host, port), "certificate", problem) from None
    except (StreamTerminatedError, H2Error) as error:
        channel.close()
        raise PipeClosed(str(error) or type(error).__name__) from None
    except BaseException:
        channel.close()
        raise
    stream = call._stream
    assert isinstance(stream, TunedStream)
    return Pipe(stream, release=channel.close)
