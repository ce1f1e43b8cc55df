"""Texts of a DICOM header or path, without what may identify a patient."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

HIDDEN: Final = "…"
LONGEST: Final = 60
_NUMBERS: Final = re.compile(r"\d+(\.\d+){2,}|\d{5,}")
_UNPRINTED: Final = re.compile(r"[^\x20-\x7e\u00a0-\u024f…]+")
_SHORT: Final = 4


def redact(text: str, words: Iterable[str]) -> str:
    """One line of at most `LONGEST` letters without UIDs, dates, long numbers or `words`.

    words: what names the patient, staff and place in the header. Short ones are hidden where
    they stand alone, longer ones wherever they occur.
    """
    out = text
    for word in sorted(set(words), key=lambda w: (-len(w), w)):
        pattern = re.escape(word)
        if len(word) < _SHORT:
            pattern = rf"(?<![^\W_]){pattern}(?![^\W_])"
        out = re.sub(pattern, HIDDEN, out, flags=re.I)
    out = _UNPRINTED.sub(" ", _NUMBERS.sub(HIDDEN, out))
    return out[:LONGEST].strip()
