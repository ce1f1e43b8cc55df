"""UPENN-GBM: 611 preoperative exams of patients with glioblastoma, University of Pennsylvania.

Had at https://www.cancerimagingarchive.net/collection/upenn-gbm/ (NIfTI package; the clinical
tables v1.0 to v2.1 are read). Licence: CC BY 4.0. Cite Bakas et al. 2022, Scientific Data 9:453,
and the data, https://doi.org/10.7937/TCIA.709X-DN49.

    UPENN-GBM_clinical_info_v2.1.csv
    NIfTI-files/images_structural/UPENN-GBM-00001_11/UPENN-GBM-00001_11_{T1,T1GD,T2,FLAIR}.nii.gz
    NIfTI-files/images_segm/UPENN-GBM-00001_11_segm.nii.gz                    corrected by hand
    NIfTI-files/automated_segm/UPENN-GBM-00001_11_automated_approx_segm.nii.gz

`_11` is the exam before surgery; `_21` and others are follow-ups and refused. The mask corrected
by hand is taken where there is one; labels 1, 2, 4, whole tumour is above 0. Images are
skull-stripped and registered. NOS/NEC, Indeterminate and Not Available are unknown. There is no
1p/19q. The set was collected as glioblastoma (grade 4) and has no grade column; with the IDH-mutant
ones grade 4 astrocytomas under CNS5, every exam is grade 4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from gliofed.data.audit import DatasetReading, MappedValue
from gliofed.data.formats.fields import LabelField, code_parser, parse_age, parse_sex, read_fields
from gliofed.data.formats.layout import (
    CandidateCase,
    build_reading,
    find_folders,
    find_image,
    find_images,
)
from gliofed.errors import DataError
from gliofed.tables import by_id, column, find_table, read_table
from gliofed.types import UNKNOWN, Sequence

ID: Final = re.compile(r"(UPENN-GBM-\d{5})_(\d\d)", re.ASCII)
BASELINE: Final = "11"
MASK_LABELS: Final = frozenset({1, 2, 4})
NAMES: Final = {
    Sequence.T1: "T1",
    Sequence.T1CE: "T1GD",
    Sequence.T2: "T2",
    Sequence.FLAIR: "FLAIR",
}
MASKS: Final = (("images_segm", "segm"), ("automated_segm", "automated_approx_segm"))
_UNKNOWN: Final = {"not available": UNKNOWN, "not applicable": UNKNOWN}

FIELDS: Final = (
    LabelField(
        "idh",
        ("IDH1",),
        code_parser({"wildtype": "wildtype", "mutated": "mutant", "nos/nec": UNKNOWN, **_UNKNOWN}),
    ),
    LabelField(
        "mgmt",
        ("MGMT",),
        code_parser(
            {
                "methylated": "methylated",
                "unmethylated": "unmethylated",
                "indeterminate": UNKNOWN,
                **_UNKNOWN,
            }
        ),
    ),
    LabelField("sex", ("Gender",), parse_sex, required=False),
    LabelField("age", ("Age_at_scan_years",), parse_age, required=False),
)


def read(root: Path, site: str) -> DatasetReading:
    """Every preoperative exam with images. Raises DataError as `tables` and `layout`."""
    table = read_table(
        find_table(
            root,
            ("UPENN-GBM_clinical_info_v*.csv",),
            "download the clinical table from the collection's page into this folder",
        )
    )
    rows = by_id(table, column(table, "ID"), _exam)
    values, mapped = read_fields(table, rows.values(), FIELDS)
    folder_of = find_folders(_below(root, "images_structural") or root, ID)
    drawn = [(_below(root, kind), name) for kind, name in MASKS]
    candidates = []
    for (exam, _), row_values in zip(rows.items(), values, strict=True):
        folder = folder_of.get(exam)
        patient, session = exam.rsplit("_", 1)
        candidates.append(
            CandidateCase(
                row=exam,
                id=exam,
                patient=patient,
                site=site,
                values={**row_values, "grade": "4"},
                images=_images(folder) if folder else {},
                mask=_mask(drawn, exam),
                mask_labels=MASK_LABELS,
                refused=""
                if session == BASELINE
                else f"session {session}: after the first surgery",
            )
        )
    candidates += [
        CandidateCase(row=e, id=e, patient=e, site=site, refused="no row in table")
        for e in folder_of
        if e not in rows
    ]
    grade = MappedValue("(the set is of glioblastoma)", "(every row)", "grade", "4", len(rows))
    return build_reading("upenn_gbm", root, candidates, (*mapped, grade), table.notes)


def _exam(text: str) -> str:
    if ID.fullmatch(text) is None:
        raise DataError(f"{text!r}: not an id of UPENN-GBM; expected such as UPENN-GBM-00001_11")
    return text


def _below(root: Path, name: str) -> Path | None:
    return next(iter(find_folders(root, re.compile(re.escape(name))).values()), None)


def _images(folder: Path) -> dict[Sequence, Path]:
    return dict(find_images(folder, {s: (f"{folder.name}_{n}",) for s, n in NAMES.items()}))


def _mask(drawn: Iterable[tuple[Path | None, str]], exam: str) -> Path | None:
    found = (find_image(folder, f"{exam}_{name}") for folder, name in drawn if folder is not None)
    return next((mask for mask in found if mask is not None), None)
