"""Tables of features: one row a case, unknown values NaN; gliofed's own and a published one.

    features.csv    case, site, patient, each marker, sex, age, scanner, sequences; features
    TCGA_GBM_radiomicFeatures.csv, TCGA_LGG_radiomicFeatures.csv: ID, Date; features

The second is of Bakas et al. 2017, Scientific Data 4:170117, without labels: these are looked up
in the table of Ceccarelli et al. 2016 (see `data.formats.tcga`), the hospital in the barcode.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gliofed.data.formats import tcga
from gliofed.data.formats.fields import Values as Fields
from gliofed.data.formats.fields import labels_of, parse_sex, parse_years, person_of, read_fields
from gliofed.errors import DataError
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.markers import ABSENT, BY_ID, MARKERS
from gliofed.radiomics.input_names import AGE_SEX_NAMES
from gliofed.tables import Table, TableRow, by_id, column, find_column, read_table
from gliofed.types import SEQUENCES, UNKNOWN, Labels, Person, Unknown
from gliofed.types import Sequence as Scan

_OWN: Final = (
    "case",
    "site",
    "patient",
    *(m.id for m in MARKERS),
    "sex",
    "age",
    "scanner",
    "sequences",
)
_PUBLISHED: Final = ("ID", "Date")
_NOTHING: Final = frozenset({"", "#div/0!", "inf", "-inf", "nan"})
"""Cells of the published table for an absent region or a division by zero."""
IDH_NAME: Final = "idh_mutant"
PATIENT_NAMES: Final = frozenset({*AGE_SEX_NAMES, IDH_NAME})
"""Columns that state something of the patient: no hospital's scanner changes them."""


@dataclass(frozen=True)
class FeatureSubject:
    """The case of a row of features. sequences: those scanned; None if unknown."""

    case: str
    site: str
    patient: str
    labels: Labels
    person: Person = field(default_factory=Person)
    sequences: frozenset[Scan] | None = None


@dataclass(frozen=True)
class FeatureTable:
    """values: (subjects, names), NaN where unknown. Raises ValueError for another shape."""

    subjects: tuple[FeatureSubject, ...]
    names: tuple[str, ...]
    values: Values

    def __post_init__(self) -> None:
        if self.values.shape != (len(self.subjects), len(self.names)):
            raise ValueError(f"values of shape {self.values.shape} do not fit the table")

    @property
    def sites(self) -> tuple[str, ...]:
        """The sorted names of the hospitals."""
        return tuple(sorted({s.site for s in self.subjects}))

    def pick(self, rows: NDArray[np.bool_]) -> FeatureTable:
        """The rows selected by a boolean mask, in the same order."""
        chosen = tuple(s for s, yes in zip(self.subjects, rows, strict=True) if yes)
        return FeatureTable(chosen, self.names, self.values[rows])

    def only(self, names: Sequence[str]) -> FeatureTable:
        """The columns of these names, in their order. Raises ValueError for another name."""
        columns = [self.names.index(name) for name in names]
        return FeatureTable(self.subjects, tuple(names), self.values[:, columns])

    def at_site(self, site: str) -> FeatureTable:
        """The rows of one hospital."""
        return self.pick(np.array([s.site == site for s in self.subjects], bool))

    def without_sites(self, sites: Collection[str]) -> FeatureTable:
        """The rows of the other hospitals."""
        return self.pick(np.array([s.site not in sites for s in self.subjects], bool))

    def by_site(self) -> tuple[FeatureTable, ...]:
        """One table a hospital, in the order of `sites`."""
        return tuple(self.at_site(site) for site in self.sites)


def age_and_sex(table: FeatureTable) -> FeatureTable:
    """Age in years and sex (1 male, 0 female) in place of the features."""
    rows = [
        (
            math.nan if isinstance(s.person.age, Unknown) else s.person.age,
            math.nan if isinstance(s.person.sex, Unknown) else float(s.person.sex == "M"),
        )
        for s in table.subjects
    ]
    return FeatureTable(table.subjects, AGE_SEX_NAMES, np.array(rows, float).reshape(len(rows), 2))


def with_patient_columns(table: FeatureTable) -> FeatureTable:
    """The features, then age, sex and IDH (1 mutant, 0 wildtype)."""
    labels = [s.labels["idh"] for s in table.subjects]
    mutant = [math.nan if isinstance(x, Unknown) else float(x == "mutant") for x in labels]
    values = np.column_stack([table.values, age_and_sex(table).values, mutant])
    return FeatureTable(table.subjects, (*table.names, *AGE_SEX_NAMES, IDH_NAME), values)


def features_csv(table: FeatureTable) -> str:
    """The table as CSV, one line a case. Unknown is an empty cell; numbers read back exactly."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*_OWN, *table.names])
    for subject, values in zip(table.subjects, table.values, strict=True):
        person, scans = subject.person, subject.sequences
        known = [*(subject.labels[m.id] for m in MARKERS), person.sex, person.age, person.scanner]
        writer.writerow(
            [subject.case, subject.site, subject.patient]
            + ["" if isinstance(k, Unknown) else k for k in known]
            + ["" if scans is None else "+".join(s.value for s in SEQUENCES if s in scans)]
            + ["" if math.isnan(v) else repr(float(v)) for v in values]
        )
    return out.getvalue()


def read_features(path: Path) -> FeatureTable:
    """Read what `features_csv` wrote. Raises DataError with file, line and cell."""
    table = read_table(path, ",", utf8_only=True)
    missing = [name for name in _OWN if name not in table.columns]
    names = tuple(c for c in table.columns if c not in _OWN)
    if missing or not names or not table.rows:
        what = f"no column {missing[0]!r}" if missing else "no feature" if not names else "no case"
        raise DataError(f"{path}: {what}; expected the table of gliofed radiomics extract")
    subjects = tuple(_subject(path, row) for row in table.rows)
    seen: set[tuple[str, str]] = set()
    for row, subject in zip(table.rows, subjects, strict=True):
        if (key := (subject.site, subject.case)) in seen:
            raise DataError(f"{path}:{row.line}: {'/'.join(key)} has two rows; keep one")
        seen.add(key)
    return FeatureTable(subjects, names, _numbers(table, table.rows, names, frozenset({""})))


def read_published(paths: Sequence[Path], labels: Path | None) -> FeatureTable:
    """The tables of TCGA-GBM and TCGA-LGG as one; the site is the hospital, by the barcode.

    labels: the table of Ceccarelli et al. 2016, or None if they are not needed. A patient without a
    row there gets no label. Raises DataError: a damaged table, different features in both, a
    patient in both, or a barcode without a hospital that has gliomas.
    """
    known = {} if labels is None else _told(labels)
    subjects: dict[str, FeatureSubject] = {}
    names: tuple[str, ...] = ()
    parts: list[Values] = []
    for path in paths:
        table = read_table(path)
        rows = by_id(table, column(table, _PUBLISHED[0]), tcga.check_barcode)
        own = tuple(c for c in table.columns if c not in _PUBLISHED)
        if not own or (parts and own != names):
            raise DataError(
                f"{path}: its features are not those of {paths[0]}; take both as published"
            )
        names = own
        for patient in rows:
            if patient in subjects:
                raise DataError(f"{path}: {patient} is in another table too; keep one")
            found = known.get(patient, {})
            site = _hospital(path, patient)
            subjects[patient] = FeatureSubject(
                patient, site, patient, labels_of(found), person_of(found), frozenset(SEQUENCES)
            )
        parts.append(_numbers(table, rows.values(), names, _NOTHING))
    return FeatureTable(tuple(subjects.values()), names, np.concatenate(parts))


def read_feature_tables(paths: Sequence[Path], labels: Path | None) -> FeatureTable:
    """gliofed's own table, one a hospital or all in one, or the published ones with `labels`.

    Raises DataError as `read_features` and `read_published` do.
    """
    if labels is not None:
        return read_published(paths, labels)
    for path in paths:
        if is_published(path):
            raise DataError(f"{path}: has no labels; give the table that has them with --labels")
    tables = [read_features(path) for path in paths]
    for path, table in zip(paths, tables, strict=True):
        if table.names != tables[0].names:
            raise DataError(f"{path}: its features are not those of {paths[0]}; extract both alike")
    subjects = tuple(s for t in tables for s in t.subjects)
    if len({(s.site, s.case) for s in subjects}) < len(subjects):
        raise DataError(f"{paths[-1]}: one of its cases is in another table too; keep one")
    return FeatureTable(subjects, tables[0].names, np.concatenate([t.values for t in tables]))


def is_published(path: Path) -> bool:
    """Whether a table is a published one, with patients in place of cases."""
    head = read_table(path)
    return find_column(head, "case") is None and find_column(head, _PUBLISHED[0]) is not None


def _told(labels: Path) -> Mapping[str, Fields]:
    """Barcode to its row of the table of labels."""
    table = read_table(labels)
    rows = by_id(table, column(table, "patient", "Case"), tcga.check_barcode)
    values, _ = read_fields(table, rows.values(), tcga.FIELDS)
    return dict(zip(rows, values, strict=True))


def _subject(path: Path, row: TableRow) -> FeatureSubject:
    cells = row.cells
    try:
        scans = frozenset(Scan(s) for s in cells["sequences"].split("+") if s)
        labels = Labels({m.id: BY_ID[m.id].parse(cells[m.id]) for m in MARKERS})
    except ValueError as error:
        raise DataError(f"{path}:{row.line}: {error}; write the table anew") from None
    if not all(cells[name] for name in ("case", "site", "patient")):
        raise DataError(f"{path}:{row.line}: a case needs its id, its site and its patient")
    found = parse_sex(cells["sex"])
    age = parse_years(cells["age"])
    for name, value in (("sex", found), ("age", age)):
        if isinstance(value, Unknown) and cells[name].lower() not in ABSENT:
            raise DataError(f"{path}:{row.line}: {name} {cells[name]!r} cannot be read")
    person = Person(
        UNKNOWN if isinstance(found, Unknown) else "F" if found == "F" else "M",
        age,
        cells["scanner"] or UNKNOWN,
    )
    return FeatureSubject(
        cells["case"], cells["site"], cells["patient"], labels, person, scans or None
    )


def _numbers(
    table: Table, rows: Collection[TableRow], names: tuple[str, ...], unknown: frozenset[str]
) -> Values:
    out = np.full((len(rows), len(names)), np.nan)
    for place, row in enumerate(rows):
        for number, name in enumerate(names):
            text = row.cells[name]
            if text.lower() not in unknown:
                out[place, number] = _number(table.path, row, name)
    return out


def _number(path: Path, row: TableRow, name: str) -> float:
    try:
        found = float(row.cells[name])
    except ValueError:
        found = math.nan
    if not math.isfinite(found):
        raise DataError(
            f"{path}:{row.line}: {name} is {row.cells[name]!r}; expected a number, or nothing"
        )
    return found


def _hospital(path: Path, patient: str) -> str:
    code = patient.split("-")[1]
    if code not in tcga.BY_CODE:
        raise DataError(
            f"{path}: {patient}: {code} is the code of no hospital with gliomas in TCGA"
        )
    return tcga.BY_CODE[code]
