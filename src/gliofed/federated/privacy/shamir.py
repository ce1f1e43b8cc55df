"""Secret sharing (Shamir 1979, Communications of the ACM 22): any `threshold` shares give a secret.

The field is that of the integers modulo the Mersenne prime 2^521 - 1, so that a secret of 32 bytes
is one element. The share of holder number x, counted from 1, is the value at x of a polynomial
whose constant term is the secret; its other coefficients are uniform. Fewer shares than
`threshold` are independent of the secret.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from typing import Final

PRIME: Final = 2**521 - 1
SECRET_BYTES: Final = 32
SHARE_BYTES: Final = 66


def split_secret(secret: bytes, threshold: int, holders: int) -> list[bytes]:
    """One share for each holder, in their order. secret: `SECRET_BYTES` bytes."""
    random = [secrets.randbelow(PRIME) for _ in range(threshold - 1)]
    return polynomial_shares([int.from_bytes(secret), *random], holders)


def polynomial_shares(coefficients: Sequence[int], holders: int) -> list[bytes]:
    """The values at 1, 2, ... of the polynomial with these coefficients, the constant one first."""
    shares = []
    for x in range(1, holders + 1):
        value = 0
        for coefficient in reversed(coefficients):
            value = (value * x + coefficient) % PRIME
        shares.append(value.to_bytes(SHARE_BYTES))
    return shares


def join_shares(shares: Mapping[int, bytes], threshold: int) -> bytes | None:
    """The secret from the first `threshold` shares, by number of the holder, counted from 1.

    None where they are no shares of a secret of `SECRET_BYTES` bytes, or too few.
    """
    chosen = {x: int.from_bytes(shares[x]) for x in sorted(shares)[:threshold]}
    if len(chosen) < threshold:
        return None
    secret = 0
    for x, value in chosen.items():
        numerator = denominator = 1
        for other in chosen:
            if other != x:
                numerator = numerator * other % PRIME
                denominator = denominator * (other - x) % PRIME
        secret = (secret + value * numerator * pow(denominator, -1, PRIME)) % PRIME
    return None if secret >= 2 ** (8 * SECRET_BYTES) else secret.to_bytes(SECRET_BYTES)
