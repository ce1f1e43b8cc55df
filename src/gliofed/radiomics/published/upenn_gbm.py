"""CaPTk features of UPENN-GBM: one file a region and sequence.

    radiomic_features_CaPTk/*_{T1,T1GD,T2,FLAIR}_{ET,NC,ED}.csv     SubjectID, 144 features
    UPENN-GBM_clinical_info_v2.1.csv                                labels, age, sex

Bakas et al. 2022, Scientific Data 9:453, doi:10.7937/TCIA.709X-DN49, CC BY 4.0; features of the
automatic segmentation by CaPTk (Davatzikos et al. 2018, Journal of Medical Imaging 5:011018).
Images are 8-bit, resampled to 1 mm. A patient without a row of a region has an unknown region: the
table does not say whether it is empty. All patients have grade 4: the set is of glioblastoma.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gliofed.data.formats import upenn_gbm
from gliofed.data.formats.fields import labels_of, person_of
from gliofed.errors import DataError
from gliofed.radiomics.feature_table import FeatureSubject
from gliofed.radiomics.published.reading import (
    RowAccount,
    TableReading,
    UnmappedColumns,
    feature_table,
    not_negative,
    number,
    read_labels,
    unmapped_columns,
)
from gliofed.radiomics.vocabulary import (
    UNKNOWN_REGION,
    RegionMeasures,
    feature_values,
    whole_tumour,
)
from gliofed.tables import Table, TableRow, by_id, column, read_table
from gliofed.types import SEQUENCES
from gliofed.types import Sequence as Scan

ID: Final = "SubjectID"
REGION_NAMES: Final = {"et": "ET", "ncr": "NC", "ed": "ED"}
SCAN_NAMES: Final = {Scan.T1: "T1", Scan.T1CE: "T1GD", Scan.T2: "T2", Scan.FLAIR: "FLAIR"}
MEAN: Final = "Intensity_Mean"
SPREAD: Final = "Intensity_StandardDeviation"
VOLUME: Final = "Volumetric_Volume"
GRADE: Final = "4"
FOLLOW_UP: Final = "session after the first surgery"
_ORDER: Final = "of one region: percentiles, ranges and higher moments of a union do not follow"
_TEXTURE: Final = "of one region and 16 grey levels of it: other tables count other levels"
_REASONS: Final = {
    "Intensity_": _ORDER,
    "Histogram_": _ORDER,
    "Volumetric_Pixels": "the volume, counted in voxels",
    "Morphologic_": "shape of one region: that of the union does not follow, and the other tables "
    "state no formula of theirs",
    "GLCM_": _TEXTURE,
    "GLRLM_": _TEXTURE,
    "GLSZM_": _TEXTURE,
    "NGTDM_": _TEXTURE,
    "LBP_": _TEXTURE,
}
_Rows = Mapping[str, tuple[Table, TableRow]]
"""Exam to its row."""


def read_upenn_gbm(folder: Path, labels: Path, site: str) -> TableReading:
    """Read the twelve files of `folder`, as one hospital.

    An exam is in the result if any region has a row and the clinical table has one. Raises
    DataError: a missing or damaged file, or volumes of a region that differ between sequences.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; expected that of CaPTk features, as published")
    known = read_labels(labels, ("ID",), _exam, upenn_gbm.FIELDS)
    tables = {(r, s): _read(folder, r, s) for r in REGION_NAMES for s in SEQUENCES}
    rows = {key: _by_exam(table) for key, table in tables.items()}
    exams = sorted({exam for own in rows.values() for exam in own})
    kept = [e for e in exams if _refusal(e) == "" and e in known.values]
    subjects, values, unknown = [], [], Counter[str]()
    for exam in kept:
        found = known.values[exam]
        regions = {r: _region(exam, r, rows) for r in REGION_NAMES}
        unknown.update(r for r, own in regions.items() if own is UNKNOWN_REGION)
        patient = exam.rpartition("_")[0]
        own_labels = labels_of({**found, "grade": GRADE})
        person = person_of(found)
        subjects.append(
            FeatureSubject(exam, site, patient, own_labels, person, frozenset(SEQUENCES))
        )
        values.append(feature_values(whole_tumour(regions), regions))
    whys = {e: _refusal(e) or "no row in the clinical table" for e in exams if e not in set(kept)}
    refused = {e: FOLLOW_UP for e in known.values if not e.endswith(f"_{upenn_gbm.BASELINE}")}
    return TableReading(
        site,
        feature_table(subjects, values),
        (
            *(_account(table, rows[key], whys) for key, table in tables.items()),
            known.account(kept, refused),
        ),
        tuple(u for key, table in tables.items() for u in _unmapped(table, *key)),
        (
            ("volumes", VOLUME),
            ("means", f"{MEAN}, 8-bit"),
            ("spreads", f"{SPREAD}, 8-bit"),
            ("whole tumour", "the three regions, weighted by volume"),
        ),
        tuple(
            f"{site}: {n} patients have no row of region {r}; it is unknown, and so is the whole "
            "tumour."
            for r, n in unknown.items()
        ),
    )


def _exam(text: str) -> str:
    if upenn_gbm.ID.fullmatch(text) is None:
        raise DataError(f"{text!r}: not an id of UPENN-GBM; expected such as UPENN-GBM-00001_11")
    return text


def _refusal(exam: str) -> str:
    return "" if exam.endswith(f"_{upenn_gbm.BASELINE}") else FOLLOW_UP


def _read(folder: Path, region: str, scan: Scan) -> Table:
    end = f"_{SCAN_NAMES[scan]}_{REGION_NAMES[region]}.csv"
    found = sorted(folder.glob(f"*{end}"))
    if len(found) != 1:
        raise DataError(
            f"{folder}: {len(found)} files *{end}; expected one; take the folder of CaPTk features "
            "as published"
        )
    return read_table(found[0])


def _by_exam(table: Table) -> _Rows:
    rows = by_id(table, column(table, ID), _exam)
    return {exam: (table, row) for exam, row in rows.items()}


def _region(exam: str, region: str, rows: Mapping[tuple[str, Scan], _Rows]) -> RegionMeasures:
    """One region of an exam; unknown if a sequence has no row of it."""
    here = {s: rows[region, s].get(exam) for s in SEQUENCES}
    own = {s: found for s, found in here.items() if found is not None}
    if len(own) < len(SEQUENCES):
        return UNKNOWN_REGION
    volumes = {s: not_negative(*found, _name(region, s, VOLUME)) for s, found in own.items()}
    if len(set(volumes.values())) > 1:
        table, row = own[SEQUENCES[0]]
        raise DataError(
            f"{table.path}:{row.line}: the volume of {REGION_NAMES[region]} of {exam} differs "
            "between the files of its sequences; take all files of one release"
        )
    return RegionMeasures(
        volumes[SEQUENCES[0]],
        {s: number(*found, _name(region, s, MEAN)) for s, found in own.items()},
        {s: not_negative(*found, _name(region, s, SPREAD)) for s, found in own.items()},
    )


def _name(region: str, scan: Scan, feature: str) -> str:
    return f"{SCAN_NAMES[scan]}_{REGION_NAMES[region]}_{feature}"


def _account(table: Table, rows: _Rows, whys: Mapping[str, str]) -> RowAccount:
    dropped = Counter(whys[e] for e in rows if e in whys)
    return RowAccount(table.path.name, len(table.rows), len(rows) - dropped.total(), dropped)


def _unmapped(table: Table, region: str, scan: Scan) -> tuple[UnmappedColumns, ...]:
    used = (ID, *(_name(region, scan, f) for f in (MEAN, SPREAD, VOLUME)))
    reasons = {_name(region, scan, start): why for start, why in _REASONS.items()}
    return unmapped_columns(table, used, reasons)
