"""Whether a file is DICOM, by its first bytes; needs no DICOM library."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_PREAMBLE: Final = 128
_MARK: Final = b"DICM"


def starts_as_dicom(data: bytes) -> bool:
    """Whether these first bytes of a file end the preamble with the mark (PS3.10 section 7.1)."""
    return data[_PREAMBLE : _PREAMBLE + len(_MARK)] == _MARK


def is_dicom(path: Path) -> bool:
    """Whether the file has the DICOM mark. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return starts_as_dicom(file.read(_PREAMBLE + len(_MARK)))
