"""RHUH-GBM: 40 patients with glioblastoma at three times, Rio Hortega University Hospital.

Had at https://www.cancerimagingarchive.net/collection/rhuh-gbm/ (version 1, NIfTI package).
Licence: CC BY 4.0. Cite Cepeda et al. 2023, Data in Brief 50:109617, and the data,
https://doi.org/10.7937/4545-c905.

    clinical_data_TCIA_RHUH-GBM.csv
    RHUH-GBM_nii_v1/RHUH-0001/0/RHUH-0001_0_{t1,t1ce,t2,flair,segmentations}.nii.gz

Folder 0 is before surgery; 1 (within 72 hours after) and 2 (recurrence) are refused, and so are
patients operated on before, whose first scan has a cavity. Labels 1, 2, 3; whole tumour is above 0.
Images are skull-stripped, but **their background is not 0** (they were z-scored with it): set it to
0 before they are prepared.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from gliofed.data.audit import DatasetReading
from gliofed.data.formats.fields import (
    LabelField,
    code_parser,
    marker_parser,
    parse_age,
    parse_sex,
    read_fields,
)
from gliofed.data.formats.layout import (
    CandidateCase,
    build_reading,
    find_folders,
    find_image,
    find_images,
)
from gliofed.tables import by_id, column, find_table, read_table
from gliofed.types import UNKNOWN, Sequence, Unknown

ID: Final = re.compile(r"RHUH-\d{4}", re.ASCII)
SESSION: Final = re.compile(r"\d", re.ASCII)
MASK_LABELS: Final = frozenset({1, 2, 3})
NAMES: Final = {
    Sequence.T1: "t1",
    Sequence.T1CE: "t1ce",
    Sequence.T2: "t2",
    Sequence.FLAIR: "flair",
}
AFTER: Final = "treated before"


def _before(text: str) -> str | Unknown:
    """Whether the patient was untreated at the first scan."""
    key = text.strip().lower()
    if key in ("", "na", "n/a", "nan"):
        return UNKNOWN
    return "untreated" if key in ("no", "none") else AFTER


FIELDS: Final = (
    LabelField(
        "idh",
        ("IDH status = (mutant [mut], wild type [wt], NOS)", "IDH status"),
        code_parser({"wt": "wildtype", "mut": "mutant", "nos": UNKNOWN, "nos/nec": UNKNOWN}),
    ),
    LabelField("grade", ("WHO grade",), marker_parser("grade")),
    LabelField(
        "session",
        ("Previous treatment = (no, surgery, surgery + QT/RT)", "Previous treatment"),
        _before,
    ),
    LabelField("sex", ("Sex",), parse_sex, required=False),
    LabelField("age", ("Age",), parse_age, required=False),
)


def read(root: Path, site: str) -> DatasetReading:
    """Every untreated patient's first scan. Raises DataError as `tables` and `layout`."""
    table = read_table(
        find_table(
            root,
            ("clinical_data_TCIA_RHUH-GBM.csv",),
            "download the clinical table from the collection's page into this folder",
        )
    )
    rows = by_id(table, column(table, "Patient ID"), str)
    values, mapped = read_fields(table, rows.values(), FIELDS)
    folder_of = find_folders(root, ID)
    candidates = []
    for name, row_values in zip(rows, values, strict=True):
        first = folder_of[name] / "0" if name in folder_of else None
        stem = f"{name}_0_"
        candidates.append(
            CandidateCase(
                row=name,
                id=name,
                patient=name,
                site=site,
                values=row_values,
                images=find_images(first, {s: (stem + n,) for s, n in NAMES.items()})
                if first
                else {},
                mask=find_image(first, f"{stem}segmentations") if first else None,
                mask_labels=MASK_LABELS,
                refused="operated on or treated before" if row_values["session"] == AFTER else "",
            )
        )
    for name, folder in folder_of.items():
        if name not in rows:
            candidates.append(
                CandidateCase(row=name, id=name, patient=name, site=site, refused="no row in table")
            )
        candidates += [
            CandidateCase(
                row=f"{name}/{session}",
                id=f"{name}-{session}",
                patient=name,
                site=site,
                refused=f"session {session}: after surgery",
            )
            for session in find_folders(folder, SESSION)
            if session != "0"
        ]
    return build_reading("rhuh_gbm", root, candidates, mapped, table.notes)
