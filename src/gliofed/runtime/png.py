"""Writes PNG images without an image library, for processes that import little."""

from __future__ import annotations

import struct
import zlib
from typing import Final

import numpy as np
from numpy.typing import NDArray

GREYS: Final = bytes(level for level in range(256) for _ in range(3))
"""The palette of 256 greys, from black to white."""


def encode_png(indices: NDArray[np.uint8], palette: bytes = GREYS) -> bytes:
    """A palette PNG (ISO/IEC 15948).

    indices: (rows, columns). palette: red, green and blue of each index.
    """
    rows, columns = indices.shape
    lines = b"".join(b"\0" + line.tobytes() for line in indices)
    head = struct.pack(">2I5B", columns, rows, 8, 3, 0, 0, 0)
    parts = (
        (b"IHDR", head),
        (b"PLTE", palette),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )
