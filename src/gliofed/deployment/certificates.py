"""Certificates of a federation: signed anew for the same key, and lists of revoked ones."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from gliofed.errors import KitError
from gliofed.federated.flare.provision import Authority

_LIST_DAYS: Final = 3650
_START: Final = timedelta(minutes=5)
"""The clocks of the parties may differ by this much."""


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a PEM file, the newest first. Raises KitError."""
    try:
        return list(x509.load_pem_x509_certificates(path.read_bytes()))
    except FileNotFoundError:
        raise KitError(f"{path}: no such certificate file") from None
    except ValueError:
        raise KitError(f"{path}: is not a certificate in PEM") from None


def pem(certificate: x509.Certificate) -> str:
    """A certificate as PEM."""
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def renewed(old: x509.Certificate, authority: Authority, days: int) -> x509.Certificate:
    """`old` with another number, valid from now for `days` days: the same name, key and uses."""
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _START)
        .not_valid_after(now + timedelta(days=days))
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(_key(authority), hashes.SHA256())


def revocation_list(authority: Authority, serials: Sequence[int], number: int) -> bytes:
    """A list of revoked certificates (RFC 5280), PEM. number: higher than that of the last list."""
    now = datetime.now(UTC)
    issuer = x509.load_pem_x509_certificate(authority.certificate.encode()).subject
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer)
        .last_update(now - _START)
        .next_update(now + timedelta(days=_LIST_DAYS))
        .add_extension(x509.CRLNumber(number), critical=False)
    )
    for serial in serials:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now).build()
        )
    signed = builder.sign(_key(authority), hashes.SHA256())
    return signed.public_bytes(serialization.Encoding.PEM)


def read_revocations(path: Path, root: x509.Certificate) -> tuple[int, list[int]]:
    """The number of a list and the serial numbers of its certificates; (0, []) without a file.

    root: the authority's certificate. Raises KitError: no list, or not signed by the authority.
    """
    try:
        found = x509.load_pem_x509_crl(path.read_bytes())
    except FileNotFoundError:
        return 0, []
    except ValueError:
        raise KitError(f"{path}: is not a list of revoked certificates in PEM") from None
    if not found.is_signature_valid(root.public_key()):  # type: ignore[arg-type]  # (the authority has an RSA key)
        raise KitError(f"{path}: is not signed by this federation's authority")
    number = found.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
    return number, [revoked.serial_number for revoked in found]


def _key(authority: Authority) -> RSAPrivateKey:
    key = serialization.load_pem_private_key(authority.key.encode(), password=None)
    assert isinstance(key, RSAPrivateKey)
    return key
