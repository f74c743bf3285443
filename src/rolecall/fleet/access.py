"""How nodes that somebody started, and who conducts them, know each other: certificates, or a common secret."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from rolecall.core.errors import ConfigError
from rolecall.core.ids import RoleId
from rolecall.wire.exchange import ExchangeLimits
from rolecall.wire.security import TlsFiles, check_secret

__all__ = ("CERTS", "CONDUCTOR", "LIMITS", "LISTEN", "SECRET_FILE", "Access")

CERTS: Final = "ROLECALL_CERTS"
SECRET_FILE: Final = "ROLECALL_SECRET_FILE"
LISTEN: Final = "ROLECALL_LISTEN"

CONDUCTOR: Final = RoleId("conductor/conductor")
"""Who may deploy to nodes that somebody started: this role, on a node that proves that it has its name."""

# A node that trains is silent at times, for longer than the loss of a machine may take to be noticed otherwise. What
# a node has a link to, it keeps: another conductor has to wait until the first one is done, or is known to be lost.
LIMITS: Final = ExchangeLimits(suspicion_min_s=10.0, suspicion_max_s=10.0, resume_s=3.0, replaces=False)

_SECRET_FILE_BYTES = 4096


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What lets a node link with others.

    `certs` is a directory that `rolecall certs` has filled, `secret_file` holds what all nodes of this machine know
    who may link with each other, `listen` is where the conductor waits for nodes that join it (`host:port`).
    """

    certs: Path | None = None
    secret_file: Path | None = None
    listen: str | None = None

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Access:
        """Return what the environment says."""
        certs, secret_file = environment.get(CERTS), environment.get(SECRET_FILE)
        return cls(
            certs=Path(certs) if certs else None,
            secret_file=Path(secret_file) if secret_file else None,
            listen=environment.get(LISTEN) or None,
        )

    def tls(self, node: str) -> TlsFiles | None:
        """Return the files of a node for mutual TLS, None where there are no certificates."""
        return TlsFiles.in_directory(self.certs, node) if self.certs is not None else None

    def secret(self) -> bytes | None:
        """Return the secret, None where there is none; reads the file.

        Raises:
            ConfigError: the file cannot be read, others can read it too, or what it holds is no secret.
        """
        return _secret_in(self.secret_file) if self.secret_file is not None else None


def _secret_in(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            mode, content = os.fstat(file.fileno()).st_mode, file.read(_SECRET_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(str(path), f"the secret cannot be read ({error.strerror})") from None
    if mode & 0o077:
        raise ConfigError(str(path), "other users may read the secret, or change it", hint=f"chmod 600 {path}")
    secret = content.strip()
    if len(content) > _SECRET_FILE_BYTES:
        raise ConfigError(str(path), f"this is no secret: it has more than {_SECRET_FILE_BYTES:,} bytes")
    try:
        check_secret(secret)
    except ConfigError as error:
        hint = f"(umask 077; head -c 32 /dev/urandom | base64 > {path}) makes a secret"
        raise ConfigError(str(path), str(error).partition(": ")[2].partition(".")[0], hint=hint) from None
    return secret
