"""A table file to its cells, or the one fault that keeps it from being read."""

from __future__ import annotations

import csv
import io
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.validation.findings import BrokenFileError, FileFault

LARGEST: Final = 64 * 2**20
_OTHERS: Final = "\t,;|"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class TextRow:
    """One row. line: in the file, from 1. cells: by column, without space around."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class TextTable:
    """A table that could be read. Rows of the wrong length are left out, with a fault each."""

    columns: tuple[str, ...]
    rows: tuple[TextRow, ...]
    faults: tuple[FileFault, ...]


def read_cells(path: Path) -> TextTable:
    """The table. Raises BrokenFileError where it cannot be read as one."""
    delimiter = "," if path.suffix.lower() == ".csv" else "\t"
    text = _text(_bytes(path))
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise BrokenFileError("TAB-EMPTY", "no text")
    _check_delimiter(lines[0], delimiter)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((reader.line_num, [cell.strip() for cell in row]))
    except csv.Error as error:
        raise BrokenFileError("TAB-QUOTES", f"line {reader.line_num}: {error}") from None
    if not rows:
        raise BrokenFileError("TAB-EMPTY", "delimiters alone")
    (_, columns), body = rows[0], rows[1:]
    if not body:
        raise BrokenFileError("TAB-EMPTY", "a heading, and no rows")
    faults = [
        FileFault("TAB-COLUMN-TWICE", repr(name)) for name, n in Counter(columns).items() if n > 1
    ]
    good = []
    for line, row in body:
        if len(row) == len(columns):
            good.append(TextRow(line, dict(zip(columns, row, strict=True))))
        else:
            text = f"line {line}: {len(row)} cells, the heading has {len(columns)}"
            faults.append(FileFault("TAB-ROW-LENGTH", text))
    return TextTable(tuple(columns), tuple(good), tuple(faults))


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


def _check_delimiter(heading: str, delimiter: str) -> None:
    if delimiter in heading:
        return
    found = max(_OTHERS, key=heading.count)
    if heading.count(found):
        raise BrokenFileError("TAB-DELIMITER", f"separated by {found!r}, expected {delimiter!r}")
