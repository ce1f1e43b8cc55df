"""Masks: streams of uniform integers modulo 2^64 or 2^32, from 32 bytes each.

The generator is AES-256 in counter mode (NIST SP 800-38A) from a counter of 0; every key is used
for one stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from torch import Tensor

_BLOCK: Final = 2**16
"""Values of a block, few enough for a core's cache."""
_ZEROS: Final = bytes(8 * _BLOCK)
SignedKey = tuple[bytes, int]
"""A key of 32 bytes, and 1 or -1: whether its stream is added or subtracted."""


def apply_masks(tensors: Mapping[str, Tensor], keys: Sequence[SignedKey]) -> None:
    """Add the streams of `keys` to int64 or int32 tensors in place.

    A stream goes through the tensors in the order of their names. They must be contiguous.
    """
    streams = [(_stream(key), sign) for key, sign in keys]
    buffer = bytearray(len(_ZEROS) + 16)  # the library asks for a block of the cipher to spare
    for name in sorted(tensors):
        signed = tensors[name].numpy().reshape(-1)
        flat = signed.view(f"u{signed.itemsize}")
        values = np.frombuffer(buffer, f"<u{signed.itemsize}")
        for start in range(0, flat.size, _BLOCK):
            block = flat[start : start + _BLOCK]
            for stream, sign in streams:
                stream.update_into(_ZEROS[: block.nbytes], buffer)
                if sign > 0:
                    block += values[: block.size]
                else:
                    block -= values[: block.size]


def _stream(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
