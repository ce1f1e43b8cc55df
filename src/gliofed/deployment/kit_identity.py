"""The certificate of a kit as the identity of a site in secret sums."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.x509.oid import NameOID

from gliofed.deployment.kit import Kit
from gliofed.errors import KitError, UpdateError
from gliofed.federated.schema import shown

_PADDING = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)


@dataclass(frozen=True)
class KitIdentity:
    """Signs with the key of a kit, and checks signatures with the federation's authority.

    sites: those of the study, which alone may take part.
    """

    kit: Kit
    sites: Collection[str]

    def sign(self, data: bytes) -> tuple[str, str]:
        """An RSA-PSS signature, hexadecimal, and the kit's certificate.

        Raises KitError for a kit without an RSA key.
        """
        secret = serialization.load_pem_private_key(self.kit.key.read_bytes(), password=None)
        if not isinstance(secret, RSAPrivateKey):
            raise KitError(f"{self.kit.key}: is not an RSA key; unpack the kit again")
        signature = secret.sign(data, _PADDING, hashes.SHA256())
        return signature.hex(), self.kit.certificate.read_text(encoding="ascii")

    def verify(self, site: str, data: bytes, signed: tuple[str, str]) -> None:
        """Raise UpdateError where `data` is not signed by a site of the study.

        The certificate must be of this name, valid now and issued by the authority in the kit.
        """
        signature, pem = signed
        if site not in self.sites:
            raise UpdateError(f"{shown(site)} is no training site of the study")
        try:
            certificate = x509.load_pem_x509_certificate(pem.encode())
            authority = x509.load_pem_x509_certificate(self.kit.authority.read_bytes())
            certificate.verify_directly_issued_by(authority)
            _rsa_key(certificate).verify(bytes.fromhex(signature), data, _PADDING, hashes.SHA256())
        except (ValueError, TypeError, InvalidSignature):
            raise UpdateError(
                f"the keys of site {site} are not signed by it with a certificate of this "
                "federation"
            ) from None
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        now = datetime.now(UTC)
        if [n.value for n in names] != [site]:
            raise UpdateError(f"the keys of site {site} are signed in another name")
        if not certificate.not_valid_before_utc <= now <= certificate.not_valid_after_utc:
            raise UpdateError(f"the certificate of site {site} is not valid now")


def _rsa_key(certificate: x509.Certificate) -> RSAPublicKey:
    key = certificate.public_key()
    if not isinstance(key, RSAPublicKey):
        raise TypeError("no RSA key")
    return key
