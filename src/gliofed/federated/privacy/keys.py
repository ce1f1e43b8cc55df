"""The keys of secret sums: X25519 (RFC 7748), HKDF with SHA-256 (RFC 5869), ChaCha20-Poly1305.

A site makes new keys for every agreement: one for the encryption of shares, and for each slot one
for the masks of pairs and 32 random bytes for the mask of its own. Every key that is derived is
bound to run, study, agreement, slot, and the names of the two sites.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from gliofed.errors import UpdateError
from gliofed.federated.privacy.identity import Identity
from gliofed.federated.privacy.masks import SignedKey
from gliofed.federated.privacy.shamir import SECRET_BYTES
from gliofed.federated.privacy.slot import SLOTS


@dataclass(frozen=True)
class Agreement:
    """What an agreement of keys is for. study: its digest. nonce: of the request for keys."""

    run: str
    study: str
    nonce: str

    def label(self, purpose: str, *parts: str) -> bytes:
        """Binds what is derived or signed to this agreement and to `parts`."""
        known = ("gliofed secure-sum 1", purpose, self.run, self.study, self.nonce)
        return json.dumps([*known, *parts]).encode()


@dataclass(frozen=True)
class PublicKeys:
    """The keys that a site announces, each of 32 bytes.

    masking, commitments: one a slot; a commitment is the SHA-256 of the seed of the own mask.
    """

    site: str
    encryption: bytes
    masking: tuple[bytes, ...]
    commitments: tuple[bytes, ...]
    signature: str = ""
    certificate: str = ""

    def signed(self, agreement: Agreement) -> bytes:
        """What the signature is over."""
        keys = b"".join((self.encryption, *self.masking, *self.commitments))
        return agreement.label("keys", self.site, keys.hex())


@dataclass(frozen=True)
class SecretKeys:
    """The keys of one site in one agreement. They are in memory only."""

    agreement: Agreement
    site: str
    encryption: X25519PrivateKey
    masking: Sequence[X25519PrivateKey]
    seeds: Sequence[bytes]

    @classmethod
    def new(cls, agreement: Agreement, site: str) -> SecretKeys:
        """Random ones."""
        masking = [X25519PrivateKey.generate() for _ in range(SLOTS)]
        seeds = [secrets.token_bytes(SECRET_BYTES) for _ in range(SLOTS)]
        return cls(agreement, site, X25519PrivateKey.generate(), masking, seeds)

    def public(self, identity: Identity) -> PublicKeys:
        """What is announced, signed."""
        keys = PublicKeys(
            self.site,
            self.encryption.public_key().public_bytes_raw(),
            tuple(key.public_key().public_bytes_raw() for key in self.masking),
            tuple(
                commitment(seed, self.agreement, slot, self.site)
                for slot, seed in enumerate(self.seeds)
            ),
        )
        signature, certificate = identity.sign(keys.signed(self.agreement))
        own = (keys.site, keys.encryption, keys.masking, keys.commitments)
        return PublicKeys(*own, signature, certificate)

    def masks(self, slot: int, others: Sequence[PublicKeys]) -> list[SignedKey]:
        """Those of the site's sum in `slot`: its own, and one with each of `others`."""
        own = self_mask(self.seeds[slot], self.agreement, slot, self.site)
        pairs = [
            pair_mask(self.masking[slot], self.agreement, slot, (self.site, other))
            for other in others
        ]
        return [own, *pairs]


def commitment(seed: bytes, agreement: Agreement, slot: int, site: str) -> bytes:
    """SHA-256 of a seed and of what it is for."""
    return hashlib.sha256(agreement.label("commitment", str(slot), site) + seed).digest()


def self_mask(seed: bytes, agreement: Agreement, slot: int, site: str) -> SignedKey:
    """The mask that a site adds on its own."""
    return _derived(seed, agreement.label("self", str(slot), site)), 1


def pair_mask(
    key: X25519PrivateKey, agreement: Agreement, slot: int, sites: tuple[str, PublicKeys]
) -> SignedKey:
    """The mask of two sites, as the first adds it; the second adds its negative.

    key: of the first for this slot. sites: its name, and the keys of the second.
    """
    site, other = sites
    names = sorted((site, other.site))
    label = agreement.label("pair", str(slot), *names)
    return _shared(key, other.masking[slot], label), 1 if site < other.site else -1


def seal(key: X25519PrivateKey, public: bytes, label: bytes, slot: int, shares: bytes) -> bytes:
    """Shares, encrypted to the holder of `public`. label: of dealer and holder."""
    cipher = ChaCha20Poly1305(_shared(key, public, label))
    return cipher.encrypt(slot.to_bytes(12), shares, None)


def open_sealed(
    key: X25519PrivateKey, public: bytes, label: bytes, slot: int, sealed: bytes
) -> bytes | None:
    """The shares, or None where they are not from the dealer of `public`."""
    try:
        return ChaCha20Poly1305(_shared(key, public, label)).decrypt(
            slot.to_bytes(12), sealed, None
        )
    except InvalidTag:
        return None


def _shared(key: X25519PrivateKey, public: bytes, label: bytes) -> bytes:
    """32 bytes from a key exchange. Raises UpdateError for a key of low order."""
    try:
        secret = key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise UpdateError("a public key of another site is of low order") from None
    return _derived(secret, label)


def _derived(secret: bytes, label: bytes) -> bytes:
    return HKDF(SHA256(), 32, salt=None, info=label).derive(secret)
