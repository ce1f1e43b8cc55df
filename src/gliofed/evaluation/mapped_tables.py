"""Another program's tables as one table of predictions in gliofed's form.

Tables are joined by patient, or set below each other where patients cannot be linked. A
probability of the predicted class becomes that of the second class.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.errors import DataError
from gliofed.evaluation.mapping_file import (
    OTHER_COLUMNS,
    MappedTable,
    MarkerColumns,
    PredictionMapping,
    read_mapping,
)
from gliofed.evaluation.prediction_table import NUMBER_COLUMNS, SUM_TOLERANCE, class_columns
from gliofed.markers import ABSENT, BY_ID, MARKERS, Marker
from gliofed.tables import Table, TableRow, find_column, read_table
from gliofed.types import Unknown

LEAST_OF_PREDICTED: Final = 0.5 - SUM_TOLERANCE
"""Of two classes, the predicted one has at least half."""
Cells = Mapping[str, str]


@dataclass(frozen=True)
class ConvertedTable:
    """text: CSV in gliofed's form. notes: sentences on rows that were not used."""

    text: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Line:
    """One row, in gliofed's columns. place: file and line. predicts: markers that its table
    predicts."""

    place: str
    cells: Cells
    predicts: frozenset[str]

    @property
    def key(self) -> tuple[str, str]:
        return self.cells.get("patient", ""), self.cells.get("case", "")


def convert_tables(path: Path) -> ConvertedTable:
    """The tables that the mapping file `path` names, as one.

    Raises StudyError for the mapping, and DataError with file, line and patient for a table: no
    such column, a word that is no class, a number out of range, a predicted class with less than
    half, rows that contradict each other or cannot be joined.
    """
    mapping = read_mapping(path)
    tables = [_lines(table, path) for table in mapping.tables]
    if mapping.linked:
        rows, notes = _joined(tables)
    else:
        rows, notes = _below_each_other(tables, mapping), ()
    return ConvertedTable(_csv(mapping, rows), notes)


def _lines(mapped: MappedTable, path: Path) -> list[_Line]:
    table = read_table(mapped.file)
    names = {own: _column(table, other, path) for own, other in mapped.columns.items()}
    readers = [
        _MarkerReader(table, BY_ID[marker], columns, path)
        for marker, columns in mapped.markers.items()
    ]
    predicts = frozenset(m for m, own in mapped.markers.items() if own.is_predicted)
    out = []
    for row in table.rows:
        cells = {own: _copied(own, row.cells[name], table) for own, name in names.items()}
        who = cells.get("patient") or cells.get("case")
        place = f"{mapped.file}:{row.line}"
        if not who:
            raise DataError(f"{place}: no patient or case; fill the cell in, or remove the line")
        for reader in readers:
            cells |= reader.cells(row, f"{place}: {who}")
        out.append(_Line(place, cells, predicts))
    return out


def _column(table: Table, name: str, mapping: Path) -> str:
    found = find_column(table, name)
    if found is None:
        raise DataError(
            f"{table.path}: no column {name!r}; it has {', '.join(table.columns)}; correct the "
            f"name in {mapping}"
        )
    return found


class _MarkerReader:
    """Reads the columns of one marker."""

    def __init__(self, table: Table, marker: Marker, own: MarkerColumns, mapping: Path) -> None:
        self._marker, self._own, self._mapping = marker, own, mapping
        self._names = {name: _column(table, name, mapping) for name in own.names}
        self._table = table
        self._words = {word.casefold(): name for word, name in own.classes.items()}

    def cells(self, row: TableRow, where: str) -> Cells:
        """The marker's columns in gliofed's form."""
        own, out = self._own, {}
        if own.truth:
            out[f"{self._marker.id}_true"] = self._class(row, own.truth, where)
        if own.probabilities:
            out |= self._of_each_class(row, where)
        elif own.probability:
            found = self._of_second_class(row, where)
            out[f"{self._marker.id}_p"] = "" if found is None else repr(found)
        return out

    def _class(self, row: TableRow, name: str, where: str) -> str:
        """Empty if unknown."""
        text = row.cells[self._names[name]]
        if text.casefold() in self._words:
            return self._words[text.casefold()]
        try:
            found = self._marker.parse(text)
        except ValueError:
            raise DataError(
                f"{where}: column {name!r}: {text!r} is no class of {self._marker.id}; say which in"
                f' {self._mapping}: classes = {{ "{text}" = "{self._marker.classes[-1]}" }}'
            ) from None
        return "" if isinstance(found, Unknown) else found

    def _number(self, row: TableRow, name: str, where: str) -> float | None:
        """None if unknown; of the scale "logit" any finite number, else a fraction."""
        text = row.cells[self._names[name]]
        if text.casefold() in ABSENT:
            return None
        scale = self._own.scale
        most = {"fraction": 1.0, "percent": 100.0, "logit": math.inf}[scale]
        try:
            found = float(_with_point(text, self._table))
        except ValueError:
            found = math.nan
        if not (math.isfinite(found) and (scale == "logit" or 0 <= found <= most)):
            other = "; is its scale another, percent or logit?" if scale == "fraction" else ""
            limits = "a number" if scale == "logit" else f"a number from 0 to {most:g}"
            raise DataError(f"{where}: column {name!r}: {text!r}; expected {limits}{other}")
        return found / 100 if scale == "percent" else found

    def _of_second_class(self, row: TableRow, where: str) -> float | None:
        own, (first, second) = self._own, self._marker.classes
        found = self._number(row, own.probability, where)
        if found is None:
            return None
        if own.scale == "logit":
            found = _fraction(found)
        of = own.of or second
        if own.predicted:
            of = self._class(row, own.predicted, where)
            self._check_predicted(of, found, row.cells[self._names[own.probability]], where)
        return 1 - found if of == first else found

    def _check_predicted(self, of: str, found: float, text: str, where: str) -> None:
        own, second = self._own, self._marker.classes[1]
        if not of:
            raise DataError(
                f"{where}: column {own.predicted!r} is empty beside the probability {text!r}; fill "
                "it in, or empty both"
            )
        if found < LEAST_OF_PREDICTED:
            raise DataError(
                f"{where}: column {own.probability!r}: {text!r}, but of two classes the predicted "
                f"one, {of!r}, has at least half; if the column is always of {second!r}, write "
                f"of = \"{second}\" in place of 'predicted' in {self._mapping}"
            )

    def _of_each_class(self, row: TableRow, where: str) -> Cells:
        """One column a class; of two classes, that of the second."""
        marker, names = self._marker, self._own.probabilities
        read = [self._number(row, names[c], where) for c in marker.classes]
        found = [p for p in read if p is not None]
        two = len(marker.classes) == 2
        columns = (f"{marker.id}_p",) if two else class_columns(marker)
        if len(found) < len(read):
            return dict.fromkeys(columns, "")
        if self._own.scale == "logit":
            found = _softmax(found)
        if abs(math.fsum(found) - 1) > SUM_TOLERANCE:
            raise DataError(
                f"{where}: columns {', '.join(names.values())} add up to {math.fsum(found):.6g}; "
                'expected 1, or scale = "percent" or "logit"'
            )
        return dict(zip(columns, map(repr, found[-len(columns) :]), strict=True))


def _joined(tables: Sequence[Sequence[_Line]]) -> tuple[list[Cells], tuple[str, ...]]:
    """Rows of the same patient and case as one. A patient without a row in the tables that
    predict is not used; nor is the truth of a marker whose table lacks the patient."""
    rows: dict[tuple[str, str], list[_Line]] = {}
    for lines in tables:
        own: dict[tuple[str, str], list[_Line]] = {}
        for line in lines:
            own.setdefault(line.key, []).append(line)
        for key, found in own.items():
            before = rows.get(key)
            if before and len(before) > 1 and len(found) > 1:
                raise DataError(
                    f"{found[1].place}: {key[0] or key[1]!r} has several rows here and at "
                    f"{before[1].place}; name the column of the case too, or keep one row in one"
                )
            rows[key] = [_merged(a, b) for a in before for b in found] if before else found
    predicted = frozenset(m for lines in tables for line in lines for m in line.predicts)
    used: list[Cells] = []
    lacking = dict.fromkeys(predicted, 0)
    for line in (line for lines in rows.values() for line in lines):
        cells = dict(line.cells)
        for name in predicted - line.predicts:
            lacking[name] += bool(cells.pop(f"{name}_true", ""))
        if line.predicts or cells.get("dice"):
            used.append(cells)
    notes = [
        f"{m.title}: {count} with a known class have no row in the table that predicts it."
        for m in MARKERS
        if (count := lacking.get(m.id, 0))
    ]
    return used, tuple(notes)


def _merged(one: _Line, other: _Line) -> _Line:
    for name in one.cells.keys() & other.cells.keys():
        a, b = one.cells[name], other.cells[name]
        if a and b and a != b:
            raise DataError(
                f"{other.place}: {name} {b!r}, but {a!r} at {one.place}; correct one, or name the "
                "column in one table only"
            )
    cells = {**other.cells, **{k: v for k, v in one.cells.items() if v or k not in other.cells}}
    return _Line(one.place, cells, one.predicts | other.predicts)


def _below_each_other(tables: Sequence[Sequence[_Line]], mapping: PredictionMapping) -> list[Cells]:
    """Patients and cases with the name of their table before their own."""
    return [
        {**line.cells, **{k: f"{table.file.stem}/{v}" for k in ("patient", "case")
                          if (v := line.cells.get(k))}}
        for table, lines in zip(mapping.tables, tables, strict=True)
        for line in lines
    ]  # fmt: skip


def _csv(mapping: PredictionMapping, rows: Sequence[Cells]) -> str:
    markers = [name for m in MARKERS for name in (f"{m.id}_true", *class_columns(m), f"{m.id}_p")]
    present = {name for row in rows for name in row}
    names = [n for n in (*OTHER_COLUMNS, *markers) if n in present or n == "model"]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        full = {**row, "model": row.get("model") or mapping.model}
        writer.writerow([full.get(name, "") for name in names])
    return out.getvalue()


def _copied(name: str, text: str, table: Table) -> str:
    """A cell of a column that is copied; empty if unknown."""
    if text.casefold() in ABSENT:
        return ""
    return _with_point(text, table) if name in (*NUMBER_COLUMNS, "age") else text


def _with_point(number: str, table: Table) -> str:
    """A decimal comma can only be one where cells are not separated by commas."""
    return number if table.delimiter == "," else number.replace(",", ".")


def _fraction(log_odds: float) -> float:
    """Without overflow on either side."""
    if log_odds >= 0:
        return 1 / (1 + math.exp(-log_odds))
    return math.exp(log_odds) / (1 + math.exp(log_odds))


def _softmax(logits: Sequence[float]) -> list[float]:
    top = max(logits)
    parts = [math.exp(v - top) for v in logits]
    return [p / math.fsum(parts) for p in parts]
