"""Features of UCSF-PDGM within the expert mask: one row an exam, of the whole tumour only.

    features_from_gtmask.csv        patient_id, tumor_*, ring_*, contrast_*, bbox_*, slice_*
    UCSF-PDGM-metadata_v5.csv       labels, age, sex

Calabrese et al. 2022, Radiology: Artificial Intelligence 4:e220058, doi:10.7937/tcia.bdgf-8v37,
CC BY 4.0. Intensities are those of the scanner. The table has a reference in the same image: the
ring of three voxels around the tumour. Intensities are divided by its median, which the background
in it (voxels of 0) moves least. There are no regions of the tumour.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Final

import numpy as np

from gliofed.data.formats import ucsf_pdgm
from gliofed.data.formats.fields import labels_of, person_of
from gliofed.errors import DataError
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
from gliofed.radiomics.vocabulary import RegionMeasures, feature_values
from gliofed.tables import Table, TableRow, by_id, column, read_table
from gliofed.types import SEQUENCES
from gliofed.types import Sequence as Scan

ID: Final = "patient_id"
VOLUME: Final = "tumor_volume_mm3"
SCAN_NAMES: Final = {Scan.T1: "t1", Scan.T1CE: "t1c", Scan.T2: "t2", Scan.FLAIR: "flair"}
FOLLOW_UP: Final = "follow-up exam of a patient who is in the set"
_REASONS: Final = {
    "bbox_": "box along the image axes of the whole tumour; other tables have boxes of regions",
    "slice_": "area of slices; in no other table",
    "tumor_slices": "number of slices; in no other table",
    "tumor_voxels": "the volume, counted in voxels",
    "tumor_": "percentile or extreme of the whole tumour; of a union of regions it does not follow",
    "ring_": "of the ring around the tumour; no other table has a reference (its median is used as "
    "the unit)",
    "contrast_": "tumour less ring; no other table has a reference",
    "label_hgg": "a label, derived from the grade",
}


def read_ucsf_pdgm(features: Path, labels: Path, site: str) -> TableReading:
    """Read the table, as one hospital. Follow-up exams and exams without labels are dropped.

    Raises DataError: a damaged table, or a ring whose median is not above 0.
    """
    known = read_labels(labels, ("ID",), ucsf_pdgm.exam_name, ucsf_pdgm.FIELDS)
    table = read_table(features)
    rows = by_id(table, column(table, ID), ucsf_pdgm.exam_name)
    subjects, values, dropped = [], [], Counter[str]()
    for exam, row in rows.items():
        if "_FU" in exam:
            dropped[FOLLOW_UP] += 1
            continue
        if exam not in known.values:
            dropped["no row in the clinical table"] += 1
            continue
        found = known.values[exam]
        subjects.append(
            FeatureSubject(
                exam, site, exam, labels_of(found), person_of(found), frozenset(SEQUENCES)
            )
        )
        values.append(feature_values(_measures(table, row), {}))
    refused = {e: FOLLOW_UP for e in known.values if "_FU" in e}
    return TableReading(
        site,
        feature_table(subjects, values),
        (
            RowAccount(features.name, len(table.rows), len(subjects), dropped),
            known.account([s.case for s in subjects], refused),
        ),
        unmapped_columns(table, _used(), _REASONS),
        (
            ("volumes", VOLUME),
            ("means", "tumor_SEQUENCE_mean / ring_SEQUENCE_p50"),
            ("spreads", "tumor_SEQUENCE_std / ring_SEQUENCE_p50"),
            ("whole tumour", "as published"),
        ),
        (f"{site}: the table has no regions; every feature of a region is unknown.",),
    )


def _used() -> tuple[str, ...]:
    names = (
        f"{part}_{SCAN_NAMES[s]}_{what}"
        for s in SEQUENCES
        for part, what in (("tumor", "mean"), ("tumor", "std"), ("ring", "p50"))
    )
    return (ID, VOLUME, *names)


def _measures(table: Table, row: TableRow) -> RegionMeasures:
    unit = {s: number(table, row, f"ring_{SCAN_NAMES[s]}_p50") for s in SEQUENCES}
    for scan, median in unit.items():
        if not (median > 0 or np.isnan(median)):
            raise DataError(
                f"{table.path}:{row.line}: ring_{SCAN_NAMES[scan]}_p50 is {median:g}; expected the "
                "median of tissue around the tumour, above 0"
            )
    return RegionMeasures(
        not_negative(table, row, VOLUME),
        {s: number(table, row, f"tumor_{SCAN_NAMES[s]}_mean") / unit[s] for s in SEQUENCES},
        {s: not_negative(table, row, f"tumor_{SCAN_NAMES[s]}_std") / unit[s] for s in SEQUENCES},
    )
