"""Makes what mutual TLS needs: an authority for the machines of one installation, and a certificate for each node.

Keys are elliptic (P-256), readable by their owner only and not encrypted. The authority's key is needed only to issue
certificates: keep it off the nodes.
"""

from __future__ import annotations

import datetime
import os
import urllib.parse
from pathlib import Path
from typing import Final

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from rolecall.core.errors import ConfigError
from rolecall.core.ids import RoleId
from rolecall.wire.security import NODE_URI, TlsFiles

__all__ = ("CertificateFacts", "check_own_certificate", "create_authority", "issue", "read_certificate")

_AUTHORITY_DAYS: Final = 3650
_NODE_DAYS: Final = 397
_BACKDATED: Final = datetime.timedelta(hours=1)  # for clocks that are a little slow


class CertificateFacts(msgspec.Struct, frozen=True):
    """What a certificate says: the node it names (None for an authority), and when it is valid (UTC)."""

    node: str | None
    valid_from: datetime.datetime
    valid_until: datetime.datetime


# ------------------------------------------------------------------------------------------------------ making


def create_authority(
    directory: str | Path, *, name: str = "rolecall", days: int = _AUTHORITY_DAYS, now: datetime.datetime | None = None
) -> tuple[Path, Path]:
    """Write `ca.pem` and `ca.key` into `directory`, and return their paths.

    Raises `ConfigError` when one is there: a new authority would make all certificates of the old one useless.
    """
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
    builder = _builder(subject, subject, key.public_key(), days, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(_key_usage(authority=True), critical=True)
    builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    return _write(folder, "ca", builder.sign(key, hashes.SHA256()), key)


def issue(
    directory: str | Path, node: str, *, days: int = _NODE_DAYS, now: datetime.datetime | None = None
) -> TlsFiles:
    """Write `NODE.pem` and `NODE.key` into the directory that has the authority's files; return where all are.

    Raises `ConfigError` for a name no node can have, when a certificate of that name is there, and when the
    authority is missing, damaged or expired.
    """
    folder = Path(directory)
    _check_name(node)
    authority, authority_key = _load_authority(folder)
    _check_valid(authority, folder / "ca.pem", now)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node[:64])])
    builder = _builder(subject, authority.subject, key.public_key(), days, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(_BOTH_SIDES), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_node_uri(node)]), critical=False)
    builder = builder.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False
    )
    _write(folder, node, builder.sign(authority_key, hashes.SHA256()), key)
    return TlsFiles.in_directory(folder, node)


_BOTH_SIDES = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]  # either side may dial


def _node_uri(node: str) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(NODE_URI + urllib.parse.quote(node, safe=""))


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    days: int,
    now: datetime.datetime | None,
) -> x509.CertificateBuilder:
    start = now or datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - _BACKDATED)
        .not_valid_after(start + datetime.timedelta(days=days))
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _check_name(node: str) -> None:
    try:
        RoleId.of(node, "node")
    except ValueError as error:
        raise ConfigError("certs issue", str(error)) from None
    if node == "ca":
        raise ConfigError("certs issue", "'ca' is the name of the authority's files", hint="Choose another name")


# ------------------------------------------------------------------------------------------------------- files


def _write(
    folder: Path, stem: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> tuple[Path, Path]:
    paths = folder / f"{stem}.pem", folder / f"{stem}.key"
    for path in paths:
        if path.exists():
            raise ConfigError(str(path), "it is there already", hint="Move it away first if it is to be replaced")
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    _create(paths[1], private, 0o600)
    _create(paths[0], certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    return paths


def _create(path: Path, content: bytes, mode: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)


def _load_authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    certificate = _load(folder / "ca.pem")
    path = folder / "ca.key"
    try:
        key = serialization.load_pem_private_key(_read(path), password=None)
    except (ValueError, TypeError) as error:
        raise ConfigError(str(path), f"this is no private key ({error})") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise ConfigError(str(path), f"it does not belong to {folder / 'ca.pem'}")
    return certificate, key


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(
            str(path), f"it cannot be read ({error.strerror})", hint="`rolecall certs init` makes an authority"
        ) from None


def _load(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(_read(path))
    except ValueError as error:
        raise ConfigError(str(path), f"this is no certificate ({error})") from None


# ----------------------------------------------------------------------------------------------------- reading


def read_certificate(path: str | Path) -> CertificateFacts:
    """Return what a certificate file says; raise `ConfigError` for anything else."""
    return _facts(_load(Path(path)))


def check_own_certificate(files: TlsFiles, node: str, *, now: datetime.datetime | None = None) -> None:
    """Raise `ConfigError` if peers would refuse this node: wrong name, wrong authority, not valid now."""
    certificate, authority = _load(files.certificate), _load(files.authority)
    named = _facts(certificate).node
    if named != node:
        found = f"it names the node {named!r}" if named else "it names no node"
        raise ConfigError(
            str(files.certificate), f"{found}, and this node is {node!r}", hint=f"`rolecall certs issue {node}`"
        )
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        raise ConfigError(str(files.certificate), f"it was not issued by the authority of {files.authority}") from None
    _check_valid(certificate, files.certificate, now)
    _check_valid(authority, files.authority, now)


def _facts(certificate: x509.Certificate) -> CertificateFacts:
    return CertificateFacts(_named(certificate), certificate.not_valid_before_utc, certificate.not_valid_after_utc)


def _named(certificate: x509.Certificate) -> str | None:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    nodes = [urllib.parse.unquote(uri[len(NODE_URI) :]) for uri in uris if uri.startswith(NODE_URI)]
    return nodes[0] if len(nodes) == 1 else None


def _check_valid(certificate: x509.Certificate, path: Path, now: datetime.datetime | None) -> None:
    facts, time = _facts(certificate), now or datetime.datetime.now(datetime.UTC)
    if time > facts.valid_until:
        raise ConfigError(str(path), f"it expired on {facts.valid_until:%Y-%m-%d %H:%M} UTC", hint="Issue a new one")
    if time < facts.valid_from:
        raise ConfigError(
            str(path), f"it is not valid before {facts.valid_from:%Y-%m-%d %H:%M} UTC", hint="Is the clock right?"
        )
