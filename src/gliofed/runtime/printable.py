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
