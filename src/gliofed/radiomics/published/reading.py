"""What a reader of a published table returns: cases, every row accounted for, unused columns."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from gliofed.data.formats.fields import LabelField, read_fields
from gliofed.data.formats.fields import Values as Fields
from gliofed.errors import DataError
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.radiomics.feature_table import FeatureSubject, FeatureTable
from gliofed.radiomics.vocabulary import NAMES
from gliofed.tables import Table, TableRow, by_id, column, read_table

UNKNOWN_CELLS: Final = frozenset({"", "nan", "-nan", "inf", "-inf", "#div/0!", "n/a"})
"""Lower-case cells that state no number: an absent region, or a division by zero."""


@dataclass(frozen=True)
class RowAccount:
    """Every row of one file: rows = read + those of all reasons in `dropped`."""

    file: str
    rows: int
    read: int
    dropped: Mapping[str, int]


@dataclass(frozen=True)
class UnmappedColumns:
    """Columns of a table that no feature of the vocabulary uses. names: as in the header, or one
    pattern that stands for `columns` of them."""

    table: str
    names: str
    columns: int
    reason: str


@dataclass(frozen=True)
class TableReading:
    """table: features of the vocabulary, intensities in the table's units. notes: sentences on what
    is unknown. sources: what each group of features was computed from."""

    name: str
    table: FeatureTable
    accounts: tuple[RowAccount, ...]
    unmapped: tuple[UnmappedColumns, ...]
    sources: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class LabelTable:
    """A table of labels by id, and its account."""

    path: Path
    values: Mapping[str, Fields]

    def account(self, used: Iterable[str], refused: Mapping[str, str]) -> RowAccount:
        """Its rows: read for a case of `used`, else dropped. refused: id to reason; otherwise the
        patient has no features."""
        wanted = set(used)
        left = [i for i in self.values if i not in wanted]
        why = Counter(refused.get(i, "no row in the table of features") for i in left)
        return RowAccount(self.path.name, len(self.values), len(self.values) - len(left), why)


def read_labels(
    path: Path, name: Sequence[str], key: Callable[[str], str], fields: Iterable[LabelField]
) -> LabelTable:
    """Read a published table of labels. name: of the column of ids, over versions.

    Raises DataError as `read_table`, `by_id` and `read_fields` do.
    """
    table = read_table(path)
    rows = by_id(table, column(table, *name), key)
    values, _ = read_fields(table, rows.values(), fields)
    return LabelTable(path, dict(zip(rows, values, strict=True)))


def number(table: Table, row: TableRow, name: str) -> float:
    """A cell as a number; NaN for one of `UNKNOWN_CELLS`.

    Raises DataError for other text, and for a column that is not there.
    """
    text = row.cells[name if name in row.cells else column(table, name)]
    if text.lower() in UNKNOWN_CELLS:
        return math.nan
    try:
        return float(text)
    except ValueError:
        raise DataError(
            f"{table.path}:{row.line}: {name} is {text!r}; expected a number, or nothing"
        ) from None


def not_negative(table: Table, row: TableRow, name: str) -> float:
    """As `number`, of a volume, a size or a standard deviation. Raises DataError below 0."""
    found = number(table, row, name)
    if found < 0:
        raise DataError(f"{table.path}:{row.line}: {name} is {found:g}; expected 0 or more")
    return found


def feature_table(subjects: Sequence[FeatureSubject], rows: Sequence[Values]) -> FeatureTable:
    """Cases with their (F,) values of the vocabulary."""
    values = np.array(rows, float).reshape(len(subjects), len(NAMES))
    return FeatureTable(tuple(subjects), NAMES, values)


def unmapped_columns(
    table: Table, mapped: Iterable[str], reasons: Mapping[str, str]
) -> tuple[UnmappedColumns, ...]:
    """Every column that is not in `mapped`, by the beginning of its name that `reasons` explains.

    Raises DataError for a column without a reason: it is of another version of the table.
    """
    used = set(mapped)
    grouped: dict[str, list[str]] = {}
    for name in table.columns:
        if name in used:
            continue
        start = next((s for s in reasons if name.startswith(s)), None)
        if start is None:
            raise DataError(
                f"{table.path}: column {name!r} is of no known version of this table; remove it"
            )
        grouped.setdefault(start, []).append(name)
    return tuple(
        UnmappedColumns(
            table.path.name, own[0] if len(own) == 1 else f"{start}*", len(own), reasons[start]
        )
        for start, own in grouped.items()
    )
