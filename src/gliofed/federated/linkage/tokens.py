"""Keyed tokens of ids and image fingerprints; they reveal nothing without the salt.

An id becomes HMAC-SHA256 (RFC 2104) of its normal form. A fingerprint is first cut into signs of
random projections (Charikar 2002, STOC 380), `BITS` a token, `TOKENS` a vector, as locality
sensitive hashing does (Indyk and Motwani 1998, STOC 604); each token then becomes four bytes of
BLAKE2s (RFC 7693) under a key of its own place. Equal tokens indicate that two vectors are close.
Unequal tokens carry no information without the salt.
"""

from __future__ import annotations

import hashlib
import hmac
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.errors import DataError

SALT_BYTES: Final = 32
BITS: Final = 24
TOKENS: Final = 512
_DISTINCT: Final = 16  # 32 random bytes have fewer distinct ones in less than 1 of 10**9 draws


@dataclass(frozen=True)
class FederationSalt:
    """The secret of a federation: every site has it, the server must not have it."""

    secret: bytes

    def __post_init__(self) -> None:
        if len(self.secret) < SALT_BYTES or len(set(self.secret)) < _DISTINCT:
            raise DataError(
                f"the salt has {len(self.secret)} bytes, {len(set(self.secret))} of them distinct; "
                f"expected at least {SALT_BYTES} random ones: openssl rand -hex {SALT_BYTES}"
            )

    def __repr__(self) -> str:
        return "FederationSalt(...)"

    def key(self, purpose: str) -> bytes:
        """A separate key for each purpose."""
        return hmac.digest(self.secret, purpose.encode(), "sha256")

    @cached_property
    def _id_key(self) -> bytes:
        return self.key("id")

    def id_token(self, normal: str) -> bytes:
        """16 bytes for a normal id."""
        return hmac.digest(self._id_key, normal.encode(), "sha256")[:16]

    def image_tokens(self, vectors: NDArray[np.float32], place: str) -> NDArray[np.int32]:
        """(N, `TOKENS`) tokens of (N, length) vectors.

        place: part of the key; tokens of different places never match.
        """
        planes = self._planes(vectors.shape[1])
        signs = (vectors @ planes > 0).reshape(len(vectors), TOKENS, BITS)
        bits = np.packbits(signs, axis=-1)
        number = np.broadcast_to(np.arange(TOKENS, dtype=">u2")[:, None], (TOKENS, 1))
        out = bytearray()
        for row, signs_of_row in enumerate(bits):
            key = self.key(f"image/{place}/{row}")
            data = np.concatenate([number.view(np.uint8), signs_of_row], axis=1).tobytes()
            size = len(data) // TOKENS
            for start in range(0, len(data), size):
                token = hashlib.blake2s(data[start : start + size], key=key, digest_size=4)
                out += token.digest()
        return np.frombuffer(bytes(out), "<i4").reshape(len(vectors), TOKENS)

    def _planes(self, length: int) -> NDArray[np.float32]:
        """(length, TOKENS x BITS) of +-1, the same on every machine and with every NumPy."""
        if length not in self._drawn:
            count = length * TOKENS * BITS
            stream = hashlib.shake_256(self.key(f"planes/{length}")).digest((count + 7) // 8)
            signs = np.unpackbits(np.frombuffer(stream, np.uint8), count=count)
            self._drawn[length] = (signs.astype(np.float32) * 2 - 1).reshape(length, -1)
        return self._drawn[length]

    @cached_property
    def _drawn(self) -> dict[int, NDArray[np.float32]]:
        return {}


def study_salt(study_digest: str) -> FederationSalt:
    """A salt for sites that all run in one process; the same when a run is resumed.

    It is not secret, since it follows from the study. Between hospitals, use `read_salt`.
    """
    return FederationSalt(hashlib.sha512(f"gliofed salt {study_digest}".encode()).digest())


def read_salt(path: Path) -> FederationSalt:
    """The salt in a file of hexadecimal digits that only its owner may read (mode 0600).

    Raises DataError: no such file, others may read or write it, not hexadecimal, or too weak.
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a salt file ({error})") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DataError(f"{path}: other users may read or write the salt; run: chmod 600 {path}")
    try:
        return FederationSalt(bytes.fromhex(text))
    except ValueError:
        raise DataError(
            f"{path}: expected hexadecimal digits; make one with: openssl rand -hex {SALT_BYTES}"
        ) from None
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
