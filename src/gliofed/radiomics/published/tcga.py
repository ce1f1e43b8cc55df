"""The features of TCGA-GBM and TCGA-LGG by Bakas et al. 2017, into the common vocabulary.

    TCGA_GBM_radiomicFeatures.csv, TCGA_LGG_radiomicFeatures.csv     ID, Date, 724 features
    tcga_subtypes_ceccarelli2016.csv                                 labels, age, sex

Bakas et al. 2017, Scientific Data 4:170117. Volumes are in voxels of 1 mm^3, intensities 8-bit. A
region of volume 0 has no intensities. Hospitals are those of the barcodes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gliofed.data.formats import tcga
from gliofed.data.formats.fields import Values as Fields
from gliofed.data.formats.fields import labels_of, person_of
from gliofed.errors import DataError
from gliofed.evaluation.intervals.bootstrap import Values
from gliofed.radiomics.feature_table import FeatureSubject
from gliofed.radiomics.published.reading import (
    RowAccount,
    TableReading,
    feature_table,
    not_negative,
    number,
    read_labels,
    unmapped_columns,
)
from gliofed.radiomics.vocabulary import RegionMeasures, feature_values, whole_tumour
from gliofed.tables import Table, TableRow, by_id, column, read_table
from gliofed.types import SEQUENCES
from gliofed.types import Sequence as Scan

ID: Final = "ID"
REGION_NAMES: Final = {"et": "ET", "ncr": "NET", "ed": "ED"}
SCAN_NAMES: Final = {Scan.T1: "T1", Scan.T1CE: "T1Gd", Scan.T2: "T2", Scan.FLAIR: "FLAIR"}
_REASONS: Final = {
    "Date": "of the scan; no feature",
    "VOLUME_BRAIN": "no other table has the volume of the brain",
    "VOLUME_": "follows from the volumes of regions, or needs that of the brain",
    "DIST_": "distance to the ventricles; in no other table",
    "HISTO_": "share of voxels in bins whose edges are not published with the table",
    "SPATIAL_": "overlap with brain regions; in no other table",
    "ECCENTRICITY_": "of one region, by a formula that the table does not state",
    "SOLIDITY_": "of one region; in no other table",
    "TEXTURE_": "of one region and its own grey levels: other tables count other levels",
    "TGM_": "of a growth model; in no other table",
}


def read_tcga(features: Sequence[Path], labels: Path) -> TableReading:
    """Read one table or both, each patient at the hospital of the barcode.

    A patient without a row of labels has unknown ones. Raises DataError: a damaged table, a patient
    in both, or a barcode without a hospital that has gliomas.
    """
    known = read_labels(labels, ("patient", "Case"), tcga.check_barcode, tcga.FIELDS)
    tables = [read_table(path) for path in features]
    subjects: dict[str, FeatureSubject] = {}
    values: list[Values] = []
    for table in tables:
        for patient, row in by_id(table, column(table, ID), tcga.check_barcode).items():
            if patient in subjects:
                raise DataError(
                    f"{table.path}:{row.line}: {patient} is in another table too; keep one"
                )
            subjects[patient] = _subject(table, row, patient, known.values.get(patient, {}))
            regions = {r: _region(table, row, r) for r in REGION_NAMES}
            values.append(feature_values(whole_tumour(regions), regions))
    lacking = [p for p in subjects if p not in known.values]
    return TableReading(
        "tcga",
        feature_table(list(subjects.values()), values),
        (
            *(RowAccount(t.path.name, len(t.rows), len(t.rows), Counter()) for t in tables),
            known.account(subjects, {}),
        ),
        tuple(u for t in tables for u in unmapped_columns(t, _used(), _REASONS)),
        (
            ("volumes", "VOLUME_REGION, 1 mm^3"),
            ("means", "INTENSITY_Mean_REGION_SEQUENCE, 8-bit"),
            ("spreads", "INTENSITY_STD_REGION_SEQUENCE, 8-bit"),
            ("whole tumour", "the three regions, weighted by volume"),
        ),
        (f"tcga: {len(lacking)} patients have no row of labels.",) if lacking else (),
    )


def _subject(table: Table, row: TableRow, patient: str, found: Fields) -> FeatureSubject:
    code = patient.split("-")[1]
    if code not in tcga.BY_CODE:
        raise DataError(
            f"{table.path}:{row.line}: {patient}: {code} is the code of no hospital with gliomas "
            "in TCGA"
        )
    return FeatureSubject(
        patient,
        tcga.BY_CODE[code],
        patient,
        labels_of(found),
        person_of(found),
        frozenset(SEQUENCES),
    )


def _region(table: Table, row: TableRow, region: str) -> RegionMeasures:
    volume = not_negative(table, row, f"VOLUME_{REGION_NAMES[region]}")
    empty = volume == 0

    def measured(what: str) -> Mapping[Scan, float]:
        return {
            s: math.nan if empty else number(table, row, _name(what, region, s)) for s in SEQUENCES
        }

    return RegionMeasures(volume, measured("Mean"), measured("STD"))


def _name(what: str, region: str, scan: Scan) -> str:
    return f"INTENSITY_{what}_{REGION_NAMES[region]}_{SCAN_NAMES[scan]}"


def _used() -> tuple[str, ...]:
    names = (_name(what, r, s) for what in ("Mean", "STD") for r in REGION_NAMES for s in SEQUENCES)
    return (ID, *(f"VOLUME_{name}" for name in REGION_NAMES.values()), *names)
