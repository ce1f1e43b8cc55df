"""TCGA-GBM and TCGA-LGG: preoperative scans prepared for BraTS, molecular labels, real hospitals.

Scans: https://www.cancerimagingarchive.net/analysis-result/brats-tcga-gbm/ and .../brats-tcga-lgg/
(135 and 108 patients), or the TCGA cases of BraTS 2018 to 2023 with their mapping table. Licence:
CC BY 3.0. Cite Bakas et al. 2017, Scientific Data 4:170117 and the two data sets
(doi:10.7937/K9/TCIA.2017.KLXWJJ1Q, doi:10.7937/K9/TCIA.2017.GJQ7R0EF).
Labels: Ceccarelli et al. 2016, Cell 164:550, Table S1 (or TCGAbiolinks' copy of it), saved as CSV.

    tcga_subtypes_ceccarelli2016.csv or mmc2.csv
    TCGA-02-0006/TCGA-02-0006_1996.08.23_{t1,t1Gd,t2,flair}.nii.gz
    TCGA-02-0006/TCGA-02-0006_1996.08.23_GlistrBoost_ManuallyCorrected.nii.gz   else ..._GlistrBoost
or  BraTS folders and name_mapping.csv, as `data/formats/brats.py` describes them

The second part of an id is the tissue source site: the hospital the patient was treated at. It
becomes the case's site, so that one download is the federation of hospitals that it came from
(codes: https://gdc.cancer.gov/resources-tcga-users/tcga-code-tables/tissue-source-site-codes).
Labels 1, 2, 4; whole tumour is above 0. Grade is WHO 2007, as in the table.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Final

from gliofed.data.audit import DatasetReading, MappedValue
from gliofed.data.formats import brats
from gliofed.data.formats.fields import (
    LabelField,
    Values,
    code_parser,
    parse_age,
    parse_sex,
    read_fields,
)
from gliofed.data.formats.layout import CandidateCase, build_reading, find_folders
from gliofed.errors import DataError
from gliofed.tables import by_id, column, find_table, read_table
from gliofed.types import Sequence

ID: Final = re.compile(r"TCGA-([A-Z0-9]{2})-[A-Z0-9]{4}", re.ASCII)
MASK_LABELS: Final = frozenset({1, 2, 4})
NAMES: Final = {
    Sequence.T1: "t1",
    Sequence.T1CE: "t1Gd",
    Sequence.T2: "t2",
    Sequence.FLAIR: "flair",
}
MASKS: Final = ("GlistrBoost_ManuallyCorrected", "GlistrBoost")

HOSPITALS: Final[Mapping[str, tuple[str, ...]]] = {
    "asterand": ("F6",),
    "case-western": ("19", "FG"),
    "case-western-st-joseph": ("HT",),
    "cedars-sinai": ("28",),
    "chi-penrose": ("81",),
    "christiana-healthcare": ("41", "IK"),
    "cureline": ("P5",),
    "duke": ("12", "E1"),
    "emory-university": ("14",),
    "fondazione-besta": ("27", "QH"),
    "greenville-health-system": ("WH",),
    "hartford": ("KT",),
    "henry-ford-hospital": ("06", "DU"),
    "huntsman-cancer-institute": ("VM",),
    "international-genomics-consortium": ("87", "FN"),
    "john-wayne-cancer-center": ("VV",),
    "johns-hopkins": ("WY",),
    "mayo-clinic-rochester": ("15", "DB"),
    "md-anderson-cancer-center": ("02", "R8"),
    "msk-cancer-center": ("HW",),
    "northwestern-university": ("VW",),
    "st-joseph-arizona": ("32", "RR"),
    "swedish-neurosciences": ("74",),
    "thomas-jefferson-university": ("76", "CS"),
    "toronto-western-hospital": ("16",),
    "ucsf": ("08", "RY"),
    "unc": ("EZ", "OX"),
    "university-of-florida": ("26", "DH"),
    "university-of-heidelberg": ("S9",),
    "university-of-kansas": ("W9",),
    "university-of-miami": ("4W",),
    "university-of-new-south-wales": ("TM",),
    "university-of-sao-paulo": ("TQ",),
}
BY_CODE: Final = {code: name for name, codes in HOSPITALS.items() for code in codes}

FIELDS: Final = (
    LabelField(
        "idh", ("IDH.status", "IDH status"), code_parser({"mutant": "mutant", "wt": "wildtype"})
    ),
    LabelField(
        "codel_1p19q",
        ("X1p.19q.codeletion", "1p/19q codeletion"),
        code_parser({"codel": "codeleted", "non-codel": "intact"}),
    ),
    LabelField(
        "mgmt",
        ("MGMT.promoter.status", "MGMT promoter status"),
        code_parser({"methylated": "methylated", "unmethylated": "unmethylated"}),
    ),
    LabelField("grade", ("Grade",), code_parser({"g2": "2", "g3": "3", "g4": "4"})),
    LabelField("sex", ("Gender",), parse_sex, required=False),
    LabelField(
        "age", ("Age..years.at.diagnosis.", "Age (years at diagnosis)"), parse_age, required=False
    ),
)


def read(root: Path, site: str) -> DatasetReading:
    """Every patient with images; a case's site is its hospital, not `site`.

    Raises DataError as `tables` and `layout`.
    """
    table = read_table(
        find_table(
            root,
            ("tcga_subtypes_ceccarelli2016.csv", "*mmc2*.csv", "*eccarelli*.csv"),
            "the labels are in Table S1 of Ceccarelli et al. 2016",
        )
    )
    rows = by_id(table, column(table, "patient", "Case"), check_barcode)
    values, mapped = read_fields(table, rows.values(), FIELDS)
    by_name = dict(zip(rows, values, strict=True))
    scans = brats.scan_folder(root)
    candidates = [_folder(f, by_name) for f in find_folders(root, ID).values()]
    candidates += [_brats(s, by_name) for s in scans.scans]
    with_images = {c.patient for c in candidates}
    candidates += [
        CandidateCase(row=r, id=r, patient=r, site=site, values=by_name[r])
        for r in rows
        if r not in with_images
    ]
    notes = scans.notes if scans.scans else ()
    counted: tuple[MappedValue, ...] = tuple(m for m in scans.mapped if scans.scans)
    return build_reading("tcga", root, candidates, (*mapped, *counted), (*table.notes, *notes))


def check_barcode(text: str) -> str:
    """The text, where it is a TCGA patient's barcode. Raises DataError."""
    if ID.fullmatch(text) is None:
        raise DataError(f"{text!r}: not a TCGA patient; expected such as TCGA-02-0006")
    return text


def _folder(folder: Path, by_name: Mapping[str, Values]) -> CandidateCase:
    """One patient of the BraTS-TCGA packages."""
    images = {s: _find_file(folder, name) for s, name in NAMES.items()}
    mask = next((m for name in MASKS if (m := _find_file(folder, name))), None)
    candidate = CandidateCase(
        row=folder.name,
        id=folder.name,
        patient=folder.name,
        site="",
        images={s: p for s, p in images.items() if p},
        mask=mask,
        mask_labels=MASK_LABELS,
    )
    return _with_labels(candidate, by_name)


def _brats(scan: brats.BratsCase, by_name: Mapping[str, Values]) -> CandidateCase:
    """One case of a BraTS release, with the id of its patient."""
    refused = scan.refused
    if not refused and ID.fullmatch(scan.patient) is None:
        refused = "not a TCGA patient by the mapping table"
    candidate = CandidateCase(
        row=scan.name,
        id=scan.patient,
        patient=scan.patient,
        site="",
        images=scan.images,
        mask=scan.mask,
        mask_labels=scan.mask_labels,
        refused=refused,
    )
    return _with_labels(candidate, by_name)


def _with_labels(candidate: CandidateCase, by_name: Mapping[str, Values]) -> CandidateCase:
    """The candidate with its hospital as site and its row's labels, or with why it is refused."""
    match = ID.fullmatch(candidate.patient)
    hospital = BY_CODE.get(match[1]) if match else None
    refused = candidate.refused
    if not refused and hospital is None:
        refused = "its tissue source site is not among the glioma hospitals of TCGA"
    if not refused and candidate.patient not in by_name:
        refused = "no row in table"
    return replace(
        candidate,
        site=hospital or "",
        values=by_name.get(candidate.patient, {}),
        refused=refused,
    )


def _find_file(folder: Path, end: str) -> Path | None:
    """The file TCGA-02-0006_<date>_<end>. Raises DataError where there are two."""
    paths = sorted(p for p in folder.glob(f"{folder.name}_*_{end}.nii*") if p.is_file())
    paths = [p for p in paths if len(p.name.partition(f"_{end}.nii")[0].split("_")) == 2]
    if len(paths) > 1:
        raise DataError(f"{folder}: {paths[0].name} and {paths[1].name}; keep the first scan's")
    return paths[0] if paths else None
