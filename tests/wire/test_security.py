from __future__ import annotations

import datetime
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509

from rolecall.core.errors import ConfigError
from rolecall.wire.addresses import format_address, is_loopback, parse_address
from rolecall.wire.certificates import (
    check_own_certificate,
    create_authority,
    issue,
    read_certificate,
)
from rolecall.wire.security import (
    TlsFiles,
    certified_name,
    client_context,
    new_secret,
    proof_of,
    proves,
    server_context,
)

NOW = datetime.datetime(2030, 5, 1, 12, tzinfo=datetime.UTC)


# ---------------------------------------------------------------------------------------------------- addresses


@pytest.mark.parametrize("address", ["127.0.0.1:4000", "host.example:1", "[::1]:65535", "localhost:0"])
def test_addresses_are_taken_apart_and_put_together(address: str) -> None:
    assert format_address(*parse_address(address)) == address


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True),
        ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("host", False), ("localhost.evil.example", False),
    ],
)  # fmt: skip
def test_what_is_this_machine(host: str, loopback: bool) -> None:
    assert is_loopback(host) == loopback


# ------------------------------------------------------------------------------------------------------- proofs


def test_a_proof_needs_the_same_secret_label_and_parts() -> None:
    secret = new_secret()
    proof = proof_of(secret, "label", b"a", b"bc")
    assert proves(proof, secret, "label", b"a", b"bc")
    assert not proves(proof, new_secret(), "label", b"a", b"bc")
    assert not proves(proof, secret, "other", b"a", b"bc")
    assert not proves(proof, secret, "label", b"ab", b"c")
    assert not proves(proof[:-1], secret, "label", b"a", b"bc")
    assert len(secret) == 32 and new_secret() != secret


# -------------------------------------------------------------------------------------------------- certificates


def test_an_authority_issues_certificates_that_name_nodes(tmp_path: Path) -> None:
    certificate, key = create_authority(tmp_path, now=NOW)
    files = issue(tmp_path, "edge-1.lab", now=NOW)
    assert files == TlsFiles.in_directory(tmp_path, "edge-1.lab")
    facts = read_certificate(files.certificate)
    assert facts.node == "edge-1.lab" and facts.valid_from < NOW < facts.valid_until
    assert read_certificate(certificate).node is None
    assert [stat.S_IMODE(path.stat().st_mode) for path in (key, files.key)] == [0o600, 0o600]
    check_own_certificate(files, "edge-1.lab", now=NOW)
    assert server_context(files).verify_mode == client_context(files).verify_mode == ssl.CERT_REQUIRED


def test_a_certificate_can_do_what_a_node_does_and_no_more(tmp_path: Path) -> None:
    create_authority(tmp_path)
    found = x509.load_pem_x509_certificate(issue(tmp_path, "a").certificate.read_bytes())
    assert found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert found.extensions.get_extension_for_class(x509.KeyUsage).value.key_cert_sign is False
    assert len(list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)) == 2


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    create_authority(tmp_path)
    issue(tmp_path, "a")
    with pytest.raises(ConfigError, match=r"ca\.pem: it is there already"):
        create_authority(tmp_path)
    with pytest.raises(ConfigError, match=r"a\.pem: it is there already"):
        issue(tmp_path, "a")


@pytest.mark.parametrize("name", ["", "a/b", "../a", "ca", "a b", "x" * 200])
def test_names_that_no_node_can_have_are_refused(tmp_path: Path, name: str) -> None:
    create_authority(tmp_path)
    with pytest.raises(ConfigError):
        issue(tmp_path, name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ca.key", "ca.pem"]


def test_without_an_authority_nothing_is_issued(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ca\.pem: it cannot be read.*`rolecall certs init`"):
        issue(tmp_path, "a")


def test_an_expired_authority_issues_nothing(tmp_path: Path) -> None:
    create_authority(tmp_path, days=10, now=NOW)
    with pytest.raises(ConfigError, match=r"ca\.pem: it expired on 2030-05-11 12:00 UTC"):
        issue(tmp_path, "a", now=NOW + datetime.timedelta(days=11))


def test_the_key_of_another_authority_is_refused(tmp_path: Path) -> None:
    create_authority(tmp_path / "one")
    create_authority(tmp_path / "two")
    (tmp_path / "one" / "ca.key").write_bytes((tmp_path / "two" / "ca.key").read_bytes())
    with pytest.raises(ConfigError, match=r"ca\.key: it does not belong to "):
        issue(tmp_path / "one", "a")


@pytest.mark.parametrize("days", [-1, 400])
def test_ones_own_certificate_must_be_valid_now(tmp_path: Path, days: int) -> None:
    create_authority(tmp_path, now=NOW - datetime.timedelta(days=100))
    files = issue(tmp_path, "a", now=NOW)
    problem = "expired on" if days > 0 else "not valid before"
    with pytest.raises(ConfigError, match=problem):
        check_own_certificate(files, "a", now=NOW + datetime.timedelta(days=days))


def test_ones_own_certificate_must_be_of_the_authority(tmp_path: Path) -> None:
    create_authority(tmp_path / "one")
    create_authority(tmp_path / "two")
    of_one, of_two = issue(tmp_path / "one", "a"), issue(tmp_path / "two", "a")
    mixed = TlsFiles(authority=of_one.authority, certificate=of_two.certificate, key=of_two.key)
    with pytest.raises(ConfigError, match=r"a\.pem: it was not issued by the authority of .*ca\.pem"):
        check_own_certificate(mixed, "a")


@pytest.mark.parametrize("part", ["authority", "certificate", "key"])
def test_damaged_files_are_named(tmp_path: Path, part: str) -> None:
    create_authority(tmp_path)
    files = issue(tmp_path, "a")
    path: Path = getattr(files, part)
    path.write_bytes(b"-----BEGIN NOTHING-----\n")
    with pytest.raises(ConfigError, match=path.stem if part != "key" else "cannot be used with the key"):
        server_context(files)


@pytest.mark.parametrize(
    ("names", "node"),
    [
        ([("URI", "rolecall:node:a")], "a"),
        ([("DNS", "a"), ("URI", "rolecall:node:edge%2D1")], "edge-1"),
        ([("DNS", "rolecall:node:a")], None),
        ([("URI", "https://a")], None),
        ([("URI", "rolecall:node:a"), ("URI", "rolecall:node:b")], None),
        ([], None),
    ],
)
def test_the_name_in_a_certificate(names: list[tuple[str, str]], node: str | None) -> None:
    assert certified_name({"subjectAltName": tuple(names)}) == node
