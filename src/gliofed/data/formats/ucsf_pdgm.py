"""UCSF-PDGM: 501 preoperative exams of 495 patients with diffuse glioma, one scanner, 3 T.

Had at https://www.cancerimagingarchive.net/collection/ucsf-pdgm/ (versions 2 to 5 are read).
Licence: CC BY 4.0. Cite Calabrese et al. 2022, Radiology: Artificial Intelligence 4:e220058, and
the data, https://doi.org/10.7937/tcia.bdgf-8v37.

    UCSF-PDGM-metadata_v5.csv             or _v2 to _v4; ids of 3 digits (UCSF-PDGM-004)
    UCSF-PDGM-v5/UCSF-PDGM-0004_nifti/    folders of 4 digits, at any depth down to 4
        UCSF-PDGM-0004_{T1,T1c,T2,FLAIR}_bias.nii.gz   bias-corrected; else the same without _bias
        UCSF-PDGM-0004_tumor_segmentation.nii.gz       labels 1, 2, 4; whole tumour is above 0

`T1gad` in place of `T1c` (first release) is read too. Images are skull-stripped and registered.

Six exams are follow-ups of patients who are in the set already, and are dropped. Version 2 lists
them as patients of their own; later versions rename them after the first exam with `_FU` and the
days between. `relative co-deletion` stays unknown: of the six rows that say so, the table's own
diagnosis calls four oligodendroglioma and two astrocytoma. The grade is CNS WHO 2021.
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
from gliofed.errors import DataError
from gliofed.tables import by_id, column, find_table, read_table
from gliofed.types import UNKNOWN, Sequence, Unknown

ID: Final = re.compile(r"UCSF-PDGM-(\d{1,4})(_FU\d+d)?(_nifti)?", re.ASCII)
RENAMED: Final = {
    138: "0429_FU003d",
    175: "0396_FU175d",
    181: "0409_FU001d",
    278: "0431_FU001d",
    289: "0391_FU016d",
    315: "0433_FU007d",
}
"""Version 2's number of each follow-up, and its name since version 3."""

MASK_LABELS: Final = frozenset({1, 2, 4})
NAMES: Final = {
    Sequence.T1: ("T1_bias", "T1"),
    Sequence.T1CE: ("T1c_bias", "T1gad_bias", "T1c", "T1gad"),
    Sequence.T2: ("T2_bias", "T2"),
    Sequence.FLAIR: ("FLAIR_bias", "T2FLAIR_bias", "FLAIR", "T2FLAIR"),
}
_HOTSPOT = re.compile(r"idh(1 p\.(r|arg)132|2 p\.(r|arg)172)[a-z]{1,3}")


def _idh(text: str) -> str | Unknown:
    """`IDH1 p.R132H` and other codon 132 and 172 changes are mutant."""
    if _HOTSPOT.fullmatch(text.strip().lower()):
        return "mutant"
    return code_parser({"wildtype": "wildtype", "mutated (nos)": "mutant"})(text)


FIELDS: Final = (
    LabelField("idh", ("IDH",), _idh),
    LabelField(
        "codel_1p19q",
        ("1p/19q",),
        code_parser(
            {"intact": "intact", "co-deletion": "codeleted", "relative co-deletion": UNKNOWN}
        ),
    ),
    LabelField(
        "mgmt",
        ("MGMT status",),
        code_parser(
            {"positive": "methylated", "negative": "unmethylated", "indeterminate": UNKNOWN}
        ),
    ),
    LabelField("grade", ("WHO CNS Grade",), marker_parser("grade")),
    LabelField("sex", ("Sex",), parse_sex, required=False),
    LabelField("age", ("Age at MRI",), parse_age, required=False),
)


def exam_name(text: str) -> str:
    """`UCSF-PDGM-0004` or `UCSF-PDGM-0429_FU003d`, from any version's way to write it.

    Raises DataError for text that is no id of this set.
    """
    match = ID.fullmatch(text)
    if match is None:
        raise DataError(f"{text!r}: not an id of UCSF-PDGM; expected UCSF-PDGM- and its number")
    number = int(match[1])
    if number in RENAMED:
        return f"UCSF-PDGM-{RENAMED[number]}"
    return f"UCSF-PDGM-{number:04d}{match[2] or ''}"


def patient_of(exam: str) -> str:
    """The patient of an exam: its name without a follow-up's ending."""
    return exam.partition("_FU")[0]


def read(root: Path, site: str) -> DatasetReading:
    """Every first exam with images. Raises DataError as `tables` and `layout`."""
    table = read_table(
        find_table(
            root,
            ("UCSF-PDGM-metadata_v*.csv", "UCSF-PDGM-metadata.csv"),
            "download the clinical table from the collection's page into this folder",
        )
    )
    name = column(table, "ID")
    rows = by_id(table, name, exam_name)
    values, mapped = read_fields(table, rows.values(), FIELDS)
    folder_of: dict[str, Path] = {}
    for path in find_folders(root, ID).values():
        exam = exam_name(path.name)
        if exam in folder_of:
            raise DataError(f"{exam} is present twice: {folder_of[exam]} and {path}; keep one")
        folder_of[exam] = path
    candidates = []
    for exam, row, row_values in zip(rows, rows.values(), values, strict=True):
        folder = folder_of.get(exam)
        candidates.append(
            CandidateCase(
                row=row.cells[name],
                id=exam,
                patient=patient_of(exam),
                site=site,
                values=row_values,
                images=_images(folder) if folder else {},
                mask=_mask(folder) if folder else None,
                mask_labels=MASK_LABELS,
                refused="follow-up exam of a patient who is in the set" if "_FU" in exam else "",
            )
        )
    candidates += [
        CandidateCase(
            row=folder_of[e].name, id=e, patient=patient_of(e), site=site, refused="no row in table"
        )
        for e in folder_of
        if e not in rows
    ]
    return build_reading("ucsf_pdgm", root, candidates, mapped, table.notes)


def _stem(folder: Path) -> str:
    return folder.name.removesuffix("_nifti")


def _images(folder: Path) -> dict[Sequence, Path]:
    stem = _stem(folder)
    return dict(
        find_images(folder, {s: tuple(f"{stem}_{n}" for n in own) for s, own in NAMES.items()})
    )


def _mask(folder: Path) -> Path | None:
    return find_image(folder, f"{_stem(folder)}_tumor_segmentation")
