"""Who may connect: a secret that both sides know, and, off this machine, certificates that name the nodes."""

from __future__ import annotations

import hashlib
import hmac
import os
import ssl
import urllib.parse
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from rolecall.core.errors import ConfigError
from rolecall.wire.addresses import is_loopback
from rolecall.wire.tls_alerts import AlertingContext

__all__ = (
    "NODE_URI",
    "SECRET_BYTES_MIN",
    "TlsFiles",
    "certified_name",
    "check_listening",
    "check_secret",
    "client_context",
    "new_nonce",
    "new_secret",
    "proof_of",
    "proves",
    "server_context",
)

NODE_URI: Final = "rolecall:node:"
"""How a certificate names its node: this, and the name, as a URI among the subject's alternative names."""
SECRET_BYTES_MIN: Final = 16
_NONCE_BYTES: Final = 32


class TlsFiles(msgspec.Struct, frozen=True, kw_only=True):
    """The files for mutual TLS, in PEM form: the authority all nodes trust, and this node's certificate and key."""

    authority: Path
    certificate: Path
    key: Path

    @classmethod
    def in_directory(cls, directory: str | Path, node: str) -> TlsFiles:
        """Return the files that `rolecall certs` writes for `node` into `directory`."""
        folder = Path(directory)
        return cls(authority=folder / "ca.pem", certificate=folder / f"{node}.pem", key=folder / f"{node}.key")


# ----------------------------------------------------------------------------------------------------- secrets


def new_secret() -> bytes:
    """Return a secret for one run."""
    return os.urandom(32)


def new_nonce() -> bytes:
    """Return random bytes that a proof is made for."""
    return os.urandom(_NONCE_BYTES)


def check_secret(secret: bytes | None) -> None:
    """Raise `ConfigError` for a secret that can be guessed."""
    if secret is not None and len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(
            "secret",
            f"it has {len(secret)} bytes, and {SECRET_BYTES_MIN} are needed",
            hint="Take rolecall.wire.security.new_secret()",
        )


def proof_of(secret: bytes, label: str, *parts: bytes | memoryview) -> bytes:
    """Return what shows knowledge of `secret` to whoever knows it as well, and tells nothing about it to others.

    It is HMAC-SHA256 over the label and the parts, each with its length before it.
    """
    proof = hmac.new(secret, digestmod=hashlib.sha256)
    for part in (label.encode(), *parts):
        proof.update(len(part).to_bytes(8, "big"))
        proof.update(part)
    return proof.digest()


def proves(proof: bytes | memoryview, secret: bytes, label: str, *parts: bytes | memoryview) -> bool:
    """Return whether `proof` was made with the same secret, label and parts."""
    return hmac.compare_digest(bytes(proof), proof_of(secret, label, *parts))


# --------------------------------------------------------------------------------------------------- addresses


def check_listening(host: str, tls: TlsFiles | None, secret: bytes | None) -> None:
    """Raise `ConfigError` where a node may not listen: plain text off this machine, or open to all its users."""
    if tls is not None:
        return
    if not is_loopback(host):
        raise ConfigError(
            f"listen on {host}",
            "other machines can reach this address, and without TLS anyone there could read along or join",
            hint="Listen on 127.0.0.1, or make certificates with `rolecall certs init` and `rolecall certs issue`",
        )
    if secret is None:
        raise ConfigError(
            f"listen on {host}",
            "without a secret every user of this machine could join",
            hint="Give the nodes of the run a common secret, or certificates",
        )


# ---------------------------------------------------------------------------------------------------------- TLS


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the TLS settings of a node that listens; raise `ConfigError` for files that cannot be used."""
    return _context(files, ssl.PROTOCOL_TLS_SERVER)


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """Return the TLS settings of a node that dials; raise `ConfigError` for files that cannot be used."""
    return _context(files, ssl.PROTOCOL_TLS_CLIENT)


def _context(files: TlsFiles, protocol: int) -> ssl.SSLContext:
    context = AlertingContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False  # certificates name nodes, which may change their address; see `certified_name`
    context.verify_mode = ssl.CERT_REQUIRED
    context.set_alpn_protocols(["h2"])
    for path in (files.authority, files.certificate, files.key):
        _check_readable(path)
    try:
        context.load_verify_locations(cafile=files.authority)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(str(files.authority), f"this is no certificate of an authority ({_reason(error)})") from None
    try:
        context.load_cert_chain(files.certificate, files.key, password=_no_password)
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(
            str(files.certificate), f"it cannot be used with the key {files.key} ({_reason(error)})"
        ) from None
    return context


def _no_password() -> str:
    return ""  # rather than asking on the terminal


def _check_readable(path: Path) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigError(
            str(path), f"it cannot be read ({error.strerror})", hint="`rolecall certs issue NAME` writes it"
        ) from None


def _reason(error: OSError) -> str:
    return error.reason if isinstance(error, ssl.SSLError) and error.reason else str(error)


def certified_name(certificate: Mapping[str, Any]) -> str | None:
    """Return the node that a certificate names, which `getpeercert` has read, or None if it names none, or several."""
    names = [
        urllib.parse.unquote(value[len(NODE_URI) :])
        for kind, value in certificate.get("subjectAltName", ())
        if kind == "URI" and value.startswith(NODE_URI)
    ]
    return names[0] if len(names) == 1 else None
