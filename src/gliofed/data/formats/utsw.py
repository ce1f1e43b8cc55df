"""UTSW-Glioma: 625 patients, UT Southwestern.

Had at https://www.cancerimagingarchive.net/collection/utsw-glioma/. Licence: CC BY 4.0. Cite Reddy
et al. 2026, Scientific Data 13:934, and the data, https://doi.org/10.7937/DFAE-1B86.

    UTSW_Glioma_Metadata-2-1.tsv
    UTSW-Glioma/BT0001/brain_{t1,t1ce,t2,fl}_ants.nii.gz      else brain_{t1,t1ce,t2,flair}.nii.gz
    UTSW-Glioma/BT0001/rtumorseg_manual_correction.nii.gz     corrected, on the images' grid
    UTSW-Glioma/BT0001/tumorseg_FeTS.nii.gz                   automatic, where none was corrected

`tumorseg_manual_correction.nii.gz` (without the r) is in another frame than the images for many
patients and is never read. Whole tumour is every label above 0; corrected masks hold labels from 1
to 5. A few automatic masks are empty. The set was collected before surgery; should a row's
`Operation Status` say post-operative all the same, it is refused, and every text there is counted.
Images are skull-stripped, in two variants, of which the `_ants` one goes first.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from gliofed.data.audit import DatasetReading
from gliofed.data.formats.fields import (
    LabelField,
    Values,
    code_parser,
    parse_age,
    parse_sex,
    read_fields,
)
from gliofed.data.formats.layout import (
    UNKNOWN_TEXTS,
    CandidateCase,
    build_reading,
    find_folders,
    find_image,
    find_images,
    scanner_name,
)
from gliofed.tables import by_id, column, find_table, read_table
from gliofed.types import UNKNOWN, Sequence, Unknown

ID: Final = re.compile(r"BT\d{4}", re.ASCII)
NAMES: Final = {
    Sequence.T1: ("brain_t1_ants", "brain_t1"),
    Sequence.T1CE: ("brain_t1ce_ants", "brain_t1ce"),
    Sequence.T2: ("brain_t2_ants", "brain_t2"),
    Sequence.FLAIR: ("brain_fl_ants", "brain_flair_ants", "brain_flair", "brain_fl"),
}
MASKS: Final = ("rtumorseg_manual_correction", "tumorseg_FeTS")
AFTER: Final = "postoperative"
_UNKNOWN: Final = {"indeterminate": UNKNOWN, "not tested": UNKNOWN, "inconclusive": UNKNOWN}


def _text_value(values: Values, key: str) -> str:
    value = values.get(key, UNKNOWN)
    return value if isinstance(value, str) else ""


def _session(text: str) -> str | Unknown:
    """Whether the text states a scan before or after surgery; else unknown."""
    match = re.search(r"\b(pre|post)[- ]?op", text.lower())
    return {"pre": "preoperative", "post": AFTER}[match[1]] if match else UNKNOWN


def _text(text: str) -> str | Unknown:
    return UNKNOWN if text.lower() in UNKNOWN_TEXTS else text


FIELDS: Final = (
    LabelField(
        "idh",
        ("IDH",),
        code_parser(
            {
                "wild type": "wildtype",
                "wildtype": "wildtype",
                "wild-type": "wildtype",
                "wt": "wildtype",
                "mutated": "mutant",
                "mutant": "mutant",
                "mut": "mutant",
                **_UNKNOWN,
            }
        ),
    ),
    LabelField(
        "codel_1p19q",
        ("1p19Q CODEL", "1p/19q"),
        code_parser(
            {
                **dict.fromkeys(
                    (
                        "intact",
                        "non-codeleted",
                        "not codeleted",
                        "noncodeleted",
                        "non co-deleted",
                        "non-co-deleted",
                        "not co-deleted",
                        "no",
                        "0",
                    ),
                    "intact",
                ),
                **dict.fromkeys(
                    ("codeleted", "co-deleted", "codel", "co-deletion", "codeletion", "yes", "1"),
                    "codeleted",
                ),
                **_UNKNOWN,
            }
        ),
    ),
    LabelField(
        "mgmt",
        ("MGMT",),
        code_parser(
            {
                "methylated": "methylated",
                "unmethylated": "unmethylated",
                "not methylated": "unmethylated",
                **_UNKNOWN,
            }
        ),
    ),
    LabelField(
        "grade",
        ("Tumor Grade",),
        code_parser(
            {
                "2": "2",
                "ii": "2",
                "3": "3",
                "iii": "3",
                "4": "4",
                "iv": "4",
                "1": UNKNOWN,
                "i": UNKNOWN,
            }
        ),
    ),
    LabelField("session", ("Operation Status",), _session, required=False),
    LabelField("sex", ("Sex at birth", "Sex"), parse_sex, required=False),
    LabelField("age", ("Age at Imaging",), parse_age, required=False),
    LabelField("make", ("Scanner Make",), _text, required=False),
    LabelField("model", ("Scanner Model",), _text, required=False),
    LabelField("strength", ("Scanner Strength",), _text, required=False),
)


def read(root: Path, site: str) -> DatasetReading:
    """Every preoperative patient with images. Raises DataError as `tables` and `layout`."""
    table = read_table(
        find_table(
            root,
            ("UTSW_Glioma_Metadata*.tsv", "UTSW_Glioma_Metadata*.csv"),
            "download the metadata from the collection's page into this folder",
        )
    )
    rows = by_id(table, column(table, "Subject ID"), str)
    values, mapped = read_fields(table, rows.values(), FIELDS)
    folder_of = find_folders(root, ID)
    candidates = []
    for name, row_values in zip(rows, values, strict=True):
        folder = folder_of.get(name)
        candidates.append(
            CandidateCase(
                row=name,
                id=name,
                patient=f"UTSW-{name}",
                site=site,
                values=row_values,
                images=find_images(folder, NAMES) if folder else {},
                mask=find_image(folder, *MASKS) if folder else None,
                refused="a scan after surgery" if row_values.get("session") == AFTER else "",
                scanner=scanner_name(
                    *(_text_value(row_values, k) for k in ("make", "model", "strength"))
                ),
            )
        )
    candidates += [
        CandidateCase(row=n, id=n, patient=n, site=site, refused="no row in table")
        for n in folder_of
        if n not in rows
    ]
    return build_reading("utsw", root, candidates, mapped, table.notes)
