"""REMBRANDT: 64 preoperative exams with expert segmentations, Henry Ford Hospital and others.

Scans and masks of Sayah et al. 2022, Scientific Data 9:338, made from the collection at
https://www.cancerimagingarchive.net/collection/rembrandt/ (CC BY 3.0, Scarpace et al. 2019,
doi:10.7937/K9/TCIA.2015.588OZUZB; Gusev et al. 2018, Scientific Data 5:180158).

    900-00-5303_2005.03.24/900-00-5303_2005.03.24_{t1,t1ce,t2,flair}_LPS_rSRI.nii.gz
    900-00-5303_2005.03.24/900-00-5303_2005.03.24_GlistrBoost_out.nii.gz     or ..._out-labels
    HF1318_1994.04.23/...                                                    likewise
    labels.csv                   yours, if you have one, as beside a BraTS folder: patient, then
                                 any of idh, codel_1p19q, mgmt, grade, sex, age

A folder is one exam; its name is the patient's id and a shifted date. Wrapper folders may stay.
Labels 1, 2, 4; whole tumour is above 0. Scans lie in the SRI24 atlas but are **not
skull-stripped**. The mapping tables of BraTS 2021 and 2023 do not name this collection. A BraTS
folder with a table that does is read as `brats_collections` reads one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from gliofed.data.audit import DatasetReading
from gliofed.data.formats import brats, brats_collections
from gliofed.data.formats.fields import Values
from gliofed.data.formats.layout import (
    CandidateCase,
    build_reading,
    find_folders,
    find_image,
    find_images,
)
from gliofed.types import Sequence

ID: Final = re.compile(r"(900-00-\d{4}|HF\d{4})_\d{4}\.\d\d\.\d\d", re.ASCII)
MASK_LABELS: Final = frozenset({1, 2, 4})
NAMES: Final = {
    Sequence.T1: "t1",
    Sequence.T1CE: "t1ce",
    Sequence.T2: "t2",
    Sequence.FLAIR: "flair",
}
MASKS: Final = ("GlistrBoost_out", "GlistrBoost_out-labels")


def read(root: Path, site: str) -> DatasetReading:
    """Every exam with images. Raises DataError as `tables` and `layout`."""
    folders = find_folders(root, ID)
    if not folders:
        return brats_collections.read_rembrandt(root, site)
    labels, mapped = brats.read_user_labels(root)
    candidates = [_candidate(folder, site, labels) for folder in folders.values()]
    scanned = {c.patient for c in candidates}
    candidates += [
        CandidateCase(row=p, id=p, patient=p, site=site) for p in labels if p not in scanned
    ]
    return build_reading("rembrandt", root, candidates, mapped)


def _candidate(folder: Path, site: str, labels: Mapping[str, Values]) -> CandidateCase:
    name = folder.name
    patient = name.partition("_")[0]
    return CandidateCase(
        row=name,
        id=name,
        patient=patient,
        site=site,
        values=labels.get(patient, {}),
        images=find_images(folder, {s: (f"{name}_{n}_LPS_rSRI",) for s, n in NAMES.items()}),
        mask=find_image(folder, *(f"{name}_{m}" for m in MASKS)),
        mask_labels=MASK_LABELS,
    )
