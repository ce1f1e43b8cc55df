"""Checks tables of patients: form, ids, values, and labels that contradict each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from gliofed.markers import ABSENT, BY_ID, MARKERS
from gliofed.tables import TableRow
from gliofed.types import Unknown
from gliofed.validation.findings import BrokenFileError, FileFault, Finding
from gliofed.validation.header_privacy import contains_date
from gliofed.validation.table_cells import TextTable, read_cells

ID: Final = "participant_id"
KNOWN: Final = frozenset({ID, "age", "sex", "scanner", *BY_ID})
MAX_AGE: Final = 120.0
MIN_ONE_CLASS: Final = 10
"""Number of known values of a marker from which a single class is reported."""

_ID_FORM: Final = re.compile(r"sub-[A-Za-z0-9]+")
_ID_COLUMN: Final = re.compile(r"id|.*[ _-]id|subject|patient|case", re.I)
_ALIKE: Final = re.compile(r"idh|1p|19q|codel|mgmt|grade|gender|^sex|^age")
_PRIVATE: Final = re.compile(
    r"^(sur|first|last|family|given|patient)?name$|birth|^dob$|^mrn$|address|phone|e?mail$|"
    r"accession|insurance|^patient(id|number)$"
)
_SEXES: Final = frozenset({"f", "m", "female", "male", "w", "o", "other"})


def check_table(
    path: Path,
    file: str,
    site: str,
    subjects: Sequence[str] | None,
    ids: dict[str, tuple[str, str]],
) -> list[Finding]:
    """Every fault of one table.

    file: its name for findings. subjects: folders with images, or None to skip that
    comparison. ids: every patient so far, by normalised id, with site and id; it is extended.
    """
    try:
        cells = read_cells(path)
    except BrokenFileError as error:
        return [Finding(error.fault.code, site, file, error.fault.text)]
    bids = subjects is not None or path.name == "participants.tsv"
    faults: list[tuple[str, FileFault]] = [("", f) for f in cells.faults]
    faults += [("", f) for f in _columns(cells, bids)]
    column = _id_column(cells.columns, bids)
    if column is not None:
        faults += _ids(cells, column, bids)
        if bids:
            faults += _patients(cells, column, site, ids)
        if subjects is not None:
            faults += _compare_subjects(cells, column, subjects)
    for row in cells.rows:
        name = row.cells[column] if column else ""
        faults += [
            (name, FileFault(f.code, f"line {row.line}: {f.text}")) for f in _values(row, bids)
        ]
    if bids:
        faults += [("", f) for f in _one_class(cells.rows)]
    return [Finding(f.code, _case(site, name), file, f.text) for name, f in faults]


def _case(site: str, name: str) -> str:
    return "/".join(filter(None, (site, name.removeprefix("sub-"))))


def _id_column(columns: Sequence[str], bids: bool) -> str | None:
    if bids:
        return ID if ID in columns else None
    return next((c for c in columns if _ID_COLUMN.fullmatch(c)), None)


def _columns(cells: TextTable, bids: bool) -> Iterator[FileFault]:
    if bids and ID not in cells.columns:
        yield FileFault("TAB-NO-ID", "columns " + ", ".join(cells.columns))
    for column in dict.fromkeys(cells.columns):
        plain = re.sub(r"[^a-z0-9]", "", column.lower())
        if _PRIVATE.search(plain):
            yield FileFault("TAB-COLUMN-PRIVATE", repr(column))
        elif bids and column not in KNOWN:
            alike = _ALIKE.search(plain) is not None
            yield FileFault("TAB-COLUMN-ALIKE" if alike else "TAB-COLUMN-UNKNOWN", repr(column))


def _ids(cells: TextTable, column: str, bids: bool) -> Iterator[tuple[str, FileFault]]:
    first: dict[str, int] = {}
    for row in cells.rows:
        name = row.cells[column]
        if not name:
            yield "", FileFault("TAB-ID-EMPTY", f"line {row.line}")
            continue
        if bids and not _ID_FORM.fullmatch(name):
            yield name, FileFault("TAB-ID-FORM", f"line {row.line}: {name!r}")
        if name in first:
            text = f"line {row.line}: {name} is in line {first[name]} already"
            yield name, FileFault("TAB-ID-TWICE", text)
        first.setdefault(name, row.line)


def _patients(
    cells: TextTable, column: str, site: str, ids: dict[str, tuple[str, str]]
) -> Iterator[tuple[str, FileFault]]:
    """The same id with another spelling, or at another site."""
    for row in cells.rows:
        name = row.cells[column]
        key = _plain_id(name)
        if not key:
            continue
        where, other = ids.setdefault(key, (site, name))
        if where != site:
            yield (
                name,
                FileFault("TAB-PATIENT-SITES", f"line {row.line}: {name}, {other} at {where}"),
            )
        elif other != name:
            yield name, FileFault("TAB-PATIENT-TWICE", f"line {row.line}: {name} and {other}")


def _plain_id(name: str) -> str:
    """An id without case, punctuation and leading zeros.

    >>> _plain_id("sub-TCGA-007") == _plain_id("tcga_7")
    True
    """
    plain = name.lower().removeprefix("sub-")
    return re.sub(r"[^a-z0-9]", "", re.sub(r"(?<!\d)0+(?=\d)", "", plain))


def _compare_subjects(
    cells: TextTable, column: str, subjects: Sequence[str]
) -> Iterator[tuple[str, FileFault]]:
    rows = {row.cells[column] for row in cells.rows}
    for name in sorted(set(subjects) - rows):
        yield name, FileFault("TAB-NO-ROW", f"{name} has images")
    for name in sorted(rows - set(subjects)):
        if name:
            yield name, FileFault("TAB-NO-CASE", name)


def _values(row: TableRow, bids: bool) -> Iterator[FileFault]:
    for column, cell in row.cells.items():
        plain = re.sub(r"[^a-z]", "", column.lower())
        if cell.lower() in ABSENT:
            continue
        if column != ID and contains_date(cell):
            yield FileFault("TAB-DATE", f"in column {column}")
        elif plain in ("age", "ageatmri", "ageatscanyears"):
            yield from _age(cell)
        elif plain in ("sex", "gender") and cell.lower() not in _SEXES:
            yield FileFault("TAB-SEX", repr(cell))
    if bids:
        yield from _markers(row)


def _age(cell: str) -> Iterator[FileFault]:
    try:
        age = float(cell.removesuffix("+"))  # BIDS writes 89+ for the oldest
    except ValueError:
        yield FileFault("TAB-AGE", repr(cell))
        return
    if not 0 < age <= MAX_AGE:
        yield FileFault("TAB-AGE", repr(cell))
    elif age < 18:
        yield FileFault("TAB-CHILD", f"{age:g} years")


def _markers(row: TableRow) -> Iterator[FileFault]:
    known: dict[str, str] = {}
    for marker in MARKERS:
        try:
            value = marker.parse(row.cells.get(marker.id, ""))
        except ValueError as error:
            yield FileFault("TAB-VALUE", str(error))
            continue
        if not isinstance(value, Unknown):
            known[marker.id] = value
    if known.get("codel_1p19q") != "codeleted":
        return
    if known.get("idh") == "wildtype":
        yield FileFault("TAB-CODEL-WILDTYPE", "codel_1p19q codeleted, idh wildtype")
    if known.get("grade") == "4":
        yield FileFault("TAB-CODEL-GRADE", "codel_1p19q codeleted, grade 4")


def _one_class(rows: Iterable[TableRow]) -> Iterator[FileFault]:
    rows = tuple(rows)
    for marker in MARKERS:
        known = Counter(c for r in rows if (c := r.cells.get(marker.id, "").lower()) not in ABSENT)
        classes = {marker.codes.get(c) for c in known}
        if len(classes) == 1 and known.total() >= MIN_ONE_CLASS:
            yield FileFault(
                "TAB-ONE-CLASS", f"{marker.id}: all {known.total()} known are {classes.pop()}"
            )
