"""Whether a file is DICOM, by its first bytes; needs no DICOM library."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Final

_PREAMBLE: Final = 128
_MARK: Final = b"DICM"
_FIRST_GROUPS: Final = (0x0002, 0x0008)
"""Of the first data element: file meta information, else the identification of the instance."""
_SHORT_TYPES: Final = frozenset({b"CS", b"DA", b"DT", b"LO", b"SH", b"TM", b"UI", b"UL"})
"""Value representations of elements that begin those groups; their length has two bytes."""
_LENGTHS: Final = (0x0000, 0x0001)
"""Elements that hold a length; all others that files begin with are text."""
_LONGEST: Final = 4096
"""Bytes of the first value; longer ones are no DICOM."""


def starts_as_dicom(data: bytes) -> bool:
    """Whether these first bytes of a file end the preamble with the mark (PS3.10 section 7.1), or
    are the data elements that files of older scanners and exports begin with."""
    marked = data[_PREAMBLE : _PREAMBLE + len(_MARK)] == _MARK
    return marked or _starts_as_elements(data)


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM. Raises OSError where it cannot be read."""
    with path.open("rb") as file:
        return starts_as_dicom(file.read(_PREAMBLE + len(_MARK)))


def _starts_as_elements(data: bytes) -> bool:
    """Whether they are data elements in rising order, little endian (PS3.5 section 7.1)."""
    if len(data) < 8:
        return False
    explicit = data[4:6] in _SHORT_TYPES
    (length,) = struct.unpack_from("<H", data, 6) if explicit else struct.unpack_from("<I", data, 4)
    first, following = _tag(data, 0), _tag(data, 8 + length)
    if first is None or first[0] not in _FIRST_GROUPS or length > _LONGEST:
        return False
    if not explicit and first[1] not in _LENGTHS and not _is_text(data[8 : 8 + length]):
        return False
    return following is None or first < following


def _is_text(value: bytes) -> bool:
    return value.rstrip(b"\0").decode("latin-1").isprintable()


def _tag(data: bytes, at: int) -> tuple[int, int] | None:
    """Group and element at a place; None beyond the end."""
    if at + 4 > len(data):
        return None
    group, element = struct.unpack_from("<HH", data, at)
    return group, element
