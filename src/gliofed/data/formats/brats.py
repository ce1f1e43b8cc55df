"""BraTS 2018 to 2023, adult glioma before surgery: many hospitals in one folder.

Had at https://www.synapse.org/brats (registration) or, for 2021, at
https://www.cancerimagingarchive.net/analysis-result/rsna-asnr-miccai-brats-2021/. Licence: the
challenge's terms (2021 on TCIA: CC BY 4.0). Cite Menze et al. 2015, IEEE TMI 34:1993; Bakas et al.
2017, Scientific Data 4:170117; Baid et al. 2021, arXiv:2107.02314.

    Brats18_TCIA02_377_1/Brats18_TCIA02_377_1_{t1,t1ce,t2,flair,seg}.nii.gz           2017, 2018
    BraTS20_Training_001/BraTS20_Training_001_{t1,t1ce,t2,flair,seg}.nii.gz           2019, 2020
    BraTS2021_00000/BraTS2021_00000_{t1,t1ce,t2,flair,seg}.nii.gz                     2021
    BraTS-GLI-00000-000/BraTS-GLI-00000-000-{t1n,t1c,t2w,t2f,seg}.nii.gz              2023, SSA

Labels 1, 2, 4 to 2021 and 1, 2, 3 in 2023; whole tumour is above 0. BraTS 2024 is after treatment
(label 4 is the resection cavity): its folders, numbered -100 and up, are refused. So are
meningioma, metastasis and paediatric sets.

One of these tables names each case's patient; without it no overlap with the sets that BraTS was
made from can be seen (spreadsheets: save as CSV).

    name_mapping.csv                     2018 to 2020: the TCGA or TCIA id
    BraTS2021_MappingToTCIA.csv          2021: collection, patient, MGMT value
    BraTS2023_2017_GLI_Mapping.csv       2023: cohort, local id
    labels.csv                           yours, if you have one: patient, then any of idh,
                                         codel_1p19q, mgmt, grade, sex, age, as in BIDS

HGG and LGG are no WHO grades and stay unknown.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gliofed.data.audit import DatasetReading, MappedValue
from gliofed.data.formats import ucsf_pdgm
from gliofed.data.formats.fields import (
    LabelField,
    Values,
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
from gliofed.markers import MARKERS
from gliofed.tables import Table, by_id, column, find_column, look_for_table, read_table
from gliofed.types import UNKNOWN, Sequence, Unknown

ID: Final = re.compile(
    r"Brats1[78]_[A-Za-z0-9]+_[A-Za-z0-9]+_\d+|BraTS(19|20)_[A-Za-z0-9]+(_[A-Za-z0-9]+)*"
    r"|BraTS2021_\d{5}|BraTS-[A-Z]{2,4}-\d{5}-\d{3}",
    re.ASCII,
)
_2023: Final = re.compile(r"BraTS-([A-Z]+)-(\d{5})-(\d{3})", re.ASCII)
ADULT_GLIOMA: Final = frozenset({"GLI", "SSA"})
AFTER_TREATMENT: Final = 100
IMAGE_ENDINGS_TO_2021: Final = {
    Sequence.T1: "_t1",
    Sequence.T1CE: "_t1ce",
    Sequence.T2: "_t2",
    Sequence.FLAIR: "_flair",
}
IMAGE_ENDINGS_2023: Final = {
    Sequence.T1: "-t1n",
    Sequence.T1CE: "-t1c",
    Sequence.T2: "-t2w",
    Sequence.FLAIR: "-t2f",
}
MISNAMED_MASK: Final = "W39_1998.09.19_Segm"
"""The mask of BraTS20_Training_355, as it was published."""

MAPPINGS: Final = (
    "BraTS2023_2017_GLI_Mapping.csv",
    "BraTS2021_MappingToTCIA.csv",
    "name_mapping*.csv",
)
CASE_COLUMNS: Final = (
    "BraTS2023",
    "BraTS2021 ID",
    "BraTS2021",
    "BraTS_2020_subject_ID",
    "BraTS_2019_subject_ID",
    "BraTS_2018_subject_ID",
    "BraTS_2017_subject_ID",
)
PATIENT_COLUMNS: Final = (
    "PatientID on TCIA Radiology Portal",
    "TCGA_TCIA_subject_ID",
    "TCIA_subject_ID",
    "Local ID",
)
COLLECTION_COLUMNS: Final = (
    "Data Collection (as on TCIA+additional)",
    "Cohort Name (if publicly available)",
)
NO_PATIENT: Final = frozenset({"", "na", "n/a", "nan", "none", "new-not-previously-in-tcia"})

MAPPING_FIELDS: Final = (
    LabelField(
        "mgmt",
        ("MGMT value",),
        code_parser({"0": "unmethylated", "1": "methylated"}),
        required=False,
    ),
    LabelField("grade", ("Grade",), code_parser({"hgg": UNKNOWN, "lgg": UNKNOWN}), required=False),
)
LABEL_FIELDS: Final = (
    *(LabelField(m.id, (m.id,), marker_parser(m.id), required=False) for m in MARKERS),
    LabelField("sex", ("sex",), parse_sex, required=False),
    LabelField("age", ("age",), parse_age, required=False),
)


@dataclass(frozen=True)
class BratsCase:
    """One case's folder and its row of the mapping table. refused: why it is not a case."""

    folder: Path
    patient: str
    collection: str
    values: Values
    refused: str

    @property
    def name(self) -> str:
        """The case's id."""
        return self.folder.name

    @property
    def images(self) -> Mapping[Sequence, Path]:
        """Its sequences."""
        ends = IMAGE_ENDINGS_2023 if _2023.fullmatch(self.name) else IMAGE_ENDINGS_TO_2021
        return find_images(self.folder, {s: (f"{self.name}{end}",) for s, end in ends.items()})

    @property
    def mask(self) -> Path | None:
        """Its expert labels."""
        mark = "-seg" if _2023.fullmatch(self.name) else "_seg"
        return find_image(self.folder, f"{self.name}{mark}", MISNAMED_MASK)

    @property
    def mask_labels(self) -> frozenset[int]:
        """The label convention of its year."""
        return frozenset({1, 2, 3}) if _2023.fullmatch(self.name) else frozenset({1, 2, 4})


@dataclass(frozen=True)
class BratsFolder:
    """The contents of a BraTS folder. rows: case ids of the mapping without a folder."""

    scans: tuple[BratsCase, ...]
    rows: tuple[str, ...]
    mapped: tuple[MappedValue, ...]
    notes: tuple[str, ...]


def read(root: Path, site: str) -> DatasetReading:
    """Every case with images. Raises DataError as `tables` and `layout`."""
    contents = scan_folder(root)
    patients, more = read_user_labels(root)
    candidates = [to_candidate(s, site, patients) for s in contents.scans]
    candidates += [CandidateCase(row=r, id=r, patient=r, site=site) for r in contents.rows]
    return build_reading("brats", root, candidates, (*contents.mapped, *more), contents.notes)


def to_candidate(scan: BratsCase, site: str, patients: Mapping[str, Values]) -> CandidateCase:
    """A scan with its labels; known labels of `patients` replace those of the mapping."""
    values = {**scan.values, **patients.get(scan.patient, {})}
    return CandidateCase(
        row=scan.name,
        id=scan.name,
        patient=scan.patient,
        site=site,
        values=values,
        images=scan.images,
        mask=scan.mask,
        mask_labels=scan.mask_labels,
        refused=scan.refused,
    )


def scan_folder(root: Path) -> BratsFolder:
    """Every BraTS folder below `root`, with its patient where a mapping table names it.

    Raises DataError as `tables` and `layout`.
    """
    folder_of = find_folders(root, ID)
    path = look_for_table(root, MAPPINGS)
    if path is None:
        note = "no mapping table: patients of TCGA, UCSF-PDGM or UPENN-GBM are not recognised"
        cases = tuple(
            BratsCase(f, _own_patient(n), "", {}, _refused(n)) for n, f in folder_of.items()
        )
        return BratsFolder(cases, (), (), (note,))
    table = read_table(path)
    name = _case_column(table, folder_of)
    rows = by_id(table, name, str, NO_PATIENT)
    values, mapped = read_fields(table, rows.values(), MAPPING_FIELDS)
    by_name = dict(zip(rows, values, strict=True))
    patient_column = find_column(table, *PATIENT_COLUMNS)
    collection_column = find_column(table, *COLLECTION_COLUMNS)
    scans = []
    for case, folder in folder_of.items():
        row = rows.get(case)
        collection = row.cells[collection_column] if row and collection_column else ""
        patient = _patient(row.cells[patient_column], collection) if row and patient_column else ""
        scans.append(
            BratsCase(
                folder,
                patient or _own_patient(case),
                collection,
                by_name.get(case, {}),
                _refused(case),
            )
        )
    other = len(table.rows) - len(rows)
    notes = (f"{other} rows of {path.name} are of no case of this release",) if other else ()
    absent = tuple(r for r in rows if r not in folder_of)
    return BratsFolder(tuple(scans), absent, mapped, (*table.notes, *notes))


def _case_column(table: Table, folder_of: Mapping[str, Path]) -> str:
    """The column of case ids: of the columns, one a year, the one that names most folders."""
    names = [n for c in CASE_COLUMNS if (n := find_column(table, c))]
    names = names or [column(table, *CASE_COLUMNS)]
    return max(names, key=lambda n: sum(row.cells[n] in folder_of for row in table.rows))


def read_user_labels(root: Path) -> tuple[Mapping[str, Values], tuple[MappedValue, ...]]:
    """The labels of labels.csv by patient; empty where there is no such file."""
    path = look_for_table(root, ("labels.csv", "labels.tsv"))
    if path is None:
        return {}, ()
    table = read_table(path)
    rows = by_id(table, column(table, "patient"), str)
    values, mapped = read_fields(table, rows.values(), LABEL_FIELDS)
    known = ({k: v for k, v in own.items() if not isinstance(v, Unknown)} for own in values)
    return dict(zip(rows, known, strict=True)), mapped


def _patient(text: str, collection: str) -> str:
    """The patient's id as its original data set writes it, or "" without one in the mapping."""
    if text.lower() in NO_PATIENT:
        return ""
    if collection == "UCSF-PDGM" and text.isdecimal():
        return ucsf_pdgm.patient_of(ucsf_pdgm.exam_name(f"UCSF-PDGM-{int(text):04d}"))
    if text.startswith("UPENN-GBM-"):
        return text.partition("_")[0]
    return text


def _own_patient(case: str) -> str:
    """BraTS 2023 numbers exams of one patient -000, -001; others have one exam a patient."""
    match = _2023.fullmatch(case)
    return f"BraTS-{match[1]}-{match[2]}" if match else case


def _refused(case: str) -> str:
    match = _2023.fullmatch(case)
    if match is None:
        return ""
    if match[1] not in ADULT_GLIOMA:
        return f"BraTS-{match[1]} is not adult glioma"
    after = int(match[3]) >= AFTER_TREATMENT
    return "after treatment (BraTS 2024): its masks draw the resection cavity" if after else ""


def missing_mapping_error(root: Path, what: str) -> DataError:
    """The error of a set that can only be read with a mapping table."""
    return DataError(
        f"{root}: no {', '.join(MAPPINGS)}; the cases of {what} are identified by that table"
    )
