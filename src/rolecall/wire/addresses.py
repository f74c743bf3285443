"""Addresses of nodes, as users write them: `host:port`, `[::1]:port`."""

from __future__ import annotations

import ipaddress

from rolecall.core.errors import ConfigError

__all__ = ("format_address", "is_loopback", "parse_address")


def parse_address(address: str) -> tuple[str, int]:
    """Return host and port; raise `ConfigError` for what is no address."""
    host, colon, port = address.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or not port.isascii() or not port.isdigit() or not int(port) <= 65_535:
        raise ConfigError(repr(address), "this is no address", hint="Write host:port, such as 127.0.0.1:4000")
    if ":" in host and not bracketed:
        raise ConfigError(repr(address), "this is no address", hint=f"Write IPv6 in brackets: [{host}]:{port}")
    return (host[1:-1] if bracketed else host), int(port)


def format_address(host: str, port: int) -> str:
    """Return what `parse_address` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_loopback(host: str) -> bool:
    """Return whether `host` can only be reached from this machine; other names than localhost are not looked up."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
