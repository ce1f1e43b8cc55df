"""Reading tables: comma-, semicolon- or tab-separated text, or one clear DataError.

    table = read_table(Path("UCSF-PDGM-metadata_v5.csv"))
    rows = by_id(table, column(table, "ID"), str.strip)

Functions here raise only DataError, whatever the bytes of a file.
"""

from __future__ import annotations

import csv
import difflib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from gliofed.errors import DataError

MAX_BYTES = 32 * 2**20
"""Limit for a table file; published label tables have less than a tenth of it."""
MAX_JSON_BYTES = 2**20
MAX_COLUMNS = 5_000
DELIMITERS = (",", ";", "\t")
SPREADSHEETS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
EXPORT = 'open it and save the sheet as "CSV UTF-8" next to it, under the same name'


@dataclass(frozen=True)
class TableRow:
    """One row. line: where it ends in the file, counted from 1. Cells are stripped of spaces."""

    line: int
    cells: Mapping[str, str]


@dataclass(frozen=True)
class Table:
    """A table as read. encoding: "utf-8", "utf-16" or "cp1252". Empty lines are skipped."""

    path: Path
    encoding: str
    delimiter: str
    columns: tuple[str, ...]
    rows: tuple[TableRow, ...]

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for an audit on how the text was read."""
        if self.encoding == "cp1252":
            return (f"{self.path.name} is not UTF-8; read as Windows-1252, check its accents",)
        return ()


def read_table(path: Path, delimiter: str | None = None, utf8_only: bool = False) -> Table:
    """Read a table with a header line; default `delimiter`: the one with most columns.

    UTF-8 with or without a mark, UTF-16 with one, else Windows-1252 (unless `utf8_only`). Raises
    DataError: no such file, a spreadsheet, more than 32 MiB, bytes of no such encoding, no header,
    a column that occurs twice or has cells but no name, a row with more or fewer cells than the
    header, or quotes that do not close.
    """
    text, encoding = _decode(path, _read_bytes(path), utf8_only)
    delimiter = delimiter or likeliest_delimiter(text)
    header, lines = _header_and_lines(path, text, delimiter)
    nameless = [place for place, name in enumerate(header) if not name]
    for line in lines:
        if any(line.cells[place] for place in nameless):
            raise DataError(
                f"{path}:{line.number}: a cell under a column without a name; name the column"
            )
    return _table(path, encoding, delimiter, header, lines)


def parse_table(text: str, path: Path) -> Table:
    """As `read_table`, from text that was read from `path`.

    Columns without a name, such as the row numbers that pandas writes, are passed over.
    """
    text = text.removeprefix("\ufeff")
    delimiter = likeliest_delimiter(text)
    header, lines = _header_and_lines(path, text, delimiter)
    return _table(path, "utf-8", delimiter, header, lines)


@dataclass(frozen=True)
class TextLine:
    """One line of a table that is not empty. number: where it ends in the file, from 1."""

    number: int
    cells: tuple[str, ...]


class BadQuotesError(ValueError):
    """Text whose quotes do not close, or stand in the middle of a cell. line: from 1."""

    def __init__(self, line: int, reason: str) -> None:
        super().__init__(reason)
        self.line = line


def likeliest_delimiter(text: str, delimiters: Sequence[str] = DELIMITERS) -> str:
    """The delimiter that splits the first line that is not empty into most cells."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return max(delimiters, key=first.count)


def split_lines(text: str, delimiter: str) -> list[TextLine]:
    """Every line that is not empty, cells without spaces around. Raises BadQuotesError."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    lines = []
    try:
        for row in reader:
            cells = tuple(cell.strip() for cell in row)
            if any(cells):
                lines.append(TextLine(reader.line_num, cells))
    except csv.Error as error:
        raise BadQuotesError(reader.line_num, str(error)) from None
    return lines


def column(table: Table, *names: str) -> str:
    """The first of `names` that the table has, upper and lower case alike.

    Raises DataError naming what was looked for and the nearest column found.
    """
    found = find_column(table, *names)
    if found is not None:
        return found
    near = difflib.get_close_matches(names[0], table.columns, n=1, cutoff=0.0)
    raise DataError(
        f"{table.path}: no column {names[0]!r}"
        + (f" (nor {', '.join(map(repr, names[1:]))})" if names[1:] else "")
        + (f"; the nearest is {near[0]!r}" if near else "")
        + "; expected the table as its authors published it"
    )


def find_column(table: Table, *names: str) -> str | None:
    """As `column`, or None where there is none."""
    present = {name.casefold(): name for name in table.columns}
    keys = [" ".join(name.split()).casefold() for name in names]
    return next((present[k] for k in keys if k in present), None)


def by_id(
    table: Table, name: str, key: Callable[[str], str], absent: frozenset[str] = frozenset()
) -> Mapping[str, TableRow]:
    """Rows by `key` of their cell in column `name`, in the table's order.

    absent: lower-case cells of rows to pass over. Raises DataError: another empty cell, two rows
    of one key, or what `key` raises, with file and line.
    """
    rows: dict[str, TableRow] = {}
    for row in table.rows:
        raw = row.cells[name]
        if raw.lower() in absent:
            continue
        if not raw:
            raise DataError(f"{table.path}:{row.line}: empty {name!r}; give each row an id")
        try:
            found = key(raw)
        except DataError as error:
            raise DataError(f"{table.path}:{row.line}: {error}") from None
        if found in rows:
            raise DataError(
                f"{table.path}:{row.line}: {raw} occurs twice (first in line {rows[found].line}); "
                "keep one row"
            )
        rows[found] = row
    return rows


def find_table(root: Path, patterns: tuple[str, ...], what: str) -> Path:
    """The one table below `root` (or in a folder of it) of these name patterns.

    Raises DataError: no such folder, none, two, or only a spreadsheet (which says how to export).
    """
    path = look_for_table(root, patterns)
    if path is None:
        raise DataError(f"{root}: no {patterns[0]}; {what}")
    return path


def look_for_table(root: Path, patterns: tuple[str, ...]) -> Path | None:
    """As `find_table`, or None where there is no such table and no spreadsheet of its name."""
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; expected one data set as published")
    for pattern in patterns:
        found = sorted(p for p in (*root.glob(pattern), *root.glob(f"*/{pattern}")) if p.is_file())
        if len(found) > 1:
            names = ", ".join(str(p.relative_to(root)) for p in found)
            raise DataError(f"{root}: more than one {pattern}: {names}; keep one")
        if found:
            return found[0]
    for pattern in patterns:
        stem = pattern.rpartition(".")[0]
        sheets = [*root.glob(f"{stem}.xls*"), *root.glob(f"*/{stem}.xls*")]
        if sheets:
            raise DataError(f"{sheets[0]}: a spreadsheet is not read; {EXPORT}")
    return None


def read_json(path: Path) -> Mapping[str, object]:
    """The object in a JSON file of at most 1 MiB; empty where there is no such file.

    Raises DataError: not JSON, or not an object.
    """
    try:
        with path.open("rb") as file:
            data = json.loads(file.read(MAX_JSON_BYTES))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: cannot be read as JSON ({error}); copy it again") from None
    if not isinstance(data, dict):
        raise DataError(f"{path}: expected a JSON object of names and values")
    return data


def _read_bytes(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise DataError(f"{path}: no such table") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error})") from None
    if data.startswith(SPREADSHEETS):
        raise DataError(f"{path}: a spreadsheet is not read; {EXPORT}")
    if len(data) > MAX_BYTES:
        raise DataError(f"{path}: more than {MAX_BYTES >> 20} MiB; expected a label table")
    return data


def _decode(path: Path, data: bytes, utf8_only: bool) -> tuple[str, str]:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) and not utf8_only:
        tries = ["utf-16"]
    else:
        tries = ["utf-8-sig"] if utf8_only else ["utf-8-sig", "cp1252"]
    for encoding in tries:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            raise DataError(f"{path}: holds NUL characters; expected text, save it as UTF-8")
        return text, encoding.removesuffix("-sig")
    raise DataError(f"{path}: not UTF-8 text; save it as UTF-8")


def _header_and_lines(
    path: Path, text: str, delimiter: str
) -> tuple[tuple[str, ...], list[TextLine]]:
    """The names of the columns, and the lines below, each with a cell a column."""
    try:
        lines = split_lines(text, delimiter)
    except BadQuotesError as error:
        raise DataError(f"{path}:{error.line}: {error}; save the table again") from None
    if not lines:
        raise DataError(f"{path}: empty; expected a header line and one row a patient")
    header = tuple(" ".join(name.split()) for name in lines[0].cells)
    if len(header) > MAX_COLUMNS:
        raise DataError(f"{path}: {len(header)} columns; expected a label table")
    seen: set[str] = set()
    for name in filter(None, header):
        if name.casefold() in seen:
            raise DataError(f"{path}:{lines[0].number}: column {name!r} occurs twice; keep one")
        seen.add(name.casefold())
    for line in lines[1:]:
        if len(line.cells) != len(header):
            raise DataError(
                f"{path}:{line.number}: {len(line.cells)} cells under {len(header)} columns; a "
                "cell that holds the separator needs quotes"
            )
    return header, lines[1:]


def _table(
    path: Path, encoding: str, delimiter: str, header: tuple[str, ...], lines: Sequence[TextLine]
) -> Table:
    rows = tuple(
        TableRow(line.number, MappingProxyType(dict(zip(header, line.cells, strict=True))))
        for line in lines
    )
    return Table(path, encoding, delimiter, tuple(name for name in header if name), rows)
