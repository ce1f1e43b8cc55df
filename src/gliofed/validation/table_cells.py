"""A table file to its cells, or the one fault that keeps it from being read.

Lines are split as everywhere (`gliofed.tables`). The bytes are read here: a check names the byte
that is no UTF-8, and goes on past columns and rows that a reading of the data refuses.
"""

from __future__ import annotations

import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.tables import BadQuotesError, TableRow, likeliest_delimiter, split_lines
from gliofed.validation.findings import BrokenFileError, FileFault

LARGEST: Final = 64 * 2**20
_DELIMITERS: Final = "\t,;|"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class TextTable:
    """A table that could be read. Rows of the wrong length are left out, with a fault each."""

    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]
    faults: tuple[FileFault, ...]


def read_cells(path: Path) -> TextTable:
    """The table. Raises BrokenFileError where it cannot be read as one."""
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    text = _text(_bytes(path))
    if not text.strip():
        raise BrokenFileError("TAB-EMPTY", "no text")
    _check_delimiter(text, delimiter)
    try:
        lines = split_lines(text, delimiter)
    except BadQuotesError as error:
        raise BrokenFileError("TAB-QUOTES", f"line {error.line}: {error}") from None
    if not lines:
        raise BrokenFileError("TAB-EMPTY", "delimiters alone")
    columns, body = lines[0].cells, lines[1:]
    if not body:
        raise BrokenFileError("TAB-EMPTY", "a heading, and no rows")
    faults = [
        FileFault("TAB-COLUMN-TWICE", repr(name)) for name, n in Counter(columns).items() if n > 1
    ]
    good = []
    for line in body:
        if len(line.cells) == len(columns):
            good.append(TableRow(line.number, dict(zip(columns, line.cells, strict=True))))
        else:
            text = f"line {line.number}: {len(line.cells)} cells, the heading has {len(columns)}"
            faults.append(FileFault("TAB-ROW-LENGTH", text))
    return TextTable(columns, tuple(good), tuple(faults))


def _bytes(path: Path) -> bytes:
    try:
        about = path.stat()
        if not stat.S_ISREG(about.st_mode):
            raise BrokenFileError("FILE-UNREADABLE", "not a regular file")
        if about.st_size > LARGEST:
            raise BrokenFileError("TAB-NOT-TEXT", f"over {LARGEST >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise BrokenFileError("FILE-UNREADABLE", error.strerror or "not readable") from None


def _text(data: bytes) -> str:
    if not data:
        raise BrokenFileError("FILE-EMPTY", "0 bytes")
    if data.startswith(_UTF16):
        raise BrokenFileError("TAB-ENCODING", "UTF-16, as spreadsheets write it")
    if data.startswith(b"PK"):
        raise BrokenFileError("TAB-NOT-TEXT", "a spreadsheet or zip file")
    if b"\0" in data:
        raise BrokenFileError("TAB-NOT-TEXT", f"a zero byte at {data.index(0)}")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise BrokenFileError(
            "TAB-ENCODING", f"line {line}: byte {data[error.start]:#04x}"
        ) from None
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _check_delimiter(text: str, delimiter: str) -> None:
    heading = next(line for line in text.split("\n") if line.strip())
    if delimiter in heading:
        return
    likeliest = likeliest_delimiter(heading, _DELIMITERS)
    if likeliest in heading:
        raise BrokenFileError(
            "TAB-DELIMITER", f"separated by {likeliest!r}, expected {delimiter!r}"
        )
