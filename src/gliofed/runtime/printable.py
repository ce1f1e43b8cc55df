"""Texts from files and other people, made safe to show on a terminal or a page."""

from __future__ import annotations

from typing import Final

LONGEST: Final = 300
"""Characters of a text that may quote a stranger's file."""


def printable(text: str, longest: int | None = None) -> str:
    """On one line, without control characters, which a terminal obeys.

    longest: in characters; what is longer ends in an ellipsis.
    """
    clean = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if longest is None or len(clean) <= longest:
        return clean
    return clean[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"


def size_text(size: float) -> str:
    """A number of bytes in decimal units, to three digits or to the byte.

    >>> size_text(999), size_text(12_345), size_text(2_500_000_000)
    ('999 bytes', '12.3 kB', '2.50 GB')
    """
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            value = size / scale
            digits = 2 if value < 10 else 1 if value < 100 else 0
            return f"{value:.{digits}f} {unit}"
    return f"{size:.0f} bytes"
